"""Scored reasoning as SFT samples, with the quickstart's tokenizer and image processor."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from transformers import AutoProcessor, AutoTokenizer
from verl.utils.dataset.dataset_utils import SFTTensorCollator
from verl.utils.model import extract_multi_modal_inputs

from data_preprocess.schema import THINKING_SCHEMA, thinking_row
from recipe.sophiavl.trm_training.pairs import PAIR_SCHEMA
from recipe.sophiavl.trm_training.sft_dataset import ThinkingSFTDataset, rgb_image, score_text

MODEL = Path(__file__).parents[3] / "examples/quickstart/models/policy"


def png(mode: str, color: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (168, 56), color).save(file, "PNG")
    return file.getvalue()


def row(thinking: str = "It is red.", score: float | None = 0.7, images: int = 1) -> dict:
    made = thinking_row(
        data_source="t",
        question="What color?",
        thinking=thinking,
        score=0.0,
        split="train",
        index=0,
        images=[png("RGB", "red")] * images,
    )
    return made | {"score": score}


def dataset(tmp_path: Path, rows: list[dict], schema: pa.Schema = THINKING_SCHEMA, **settings) -> ThinkingSFTDataset:
    file = tmp_path / "train.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)
    config = OmegaConf.create({"pad_mode": "no_padding", "max_length": 4096, **settings})
    return ThinkingSFTDataset(
        str(file), AutoTokenizer.from_pretrained(MODEL), config, AutoProcessor.from_pretrained(MODEL)
    )


def learned(samples: ThinkingSFTDataset, i: int) -> str:
    sample = samples[i]
    return samples.tokenizer.decode(sample["input_ids"][sample["loss_mask"].bool()])


def test_the_loss_is_on_the_score_alone(tmp_path):
    samples = dataset(tmp_path, [row(score=0.7), row(score=0.25), row(score=1.0)])
    assert [learned(samples, i) for i in range(3)] == [f"{score}<|im_end|>\n" for score in ("0.7", "0.2", "1.0")]


def test_the_judges_words_can_be_the_target(tmp_path):
    schema = pa.schema([*THINKING_SCHEMA, ("reply", pa.string())])
    samples = dataset(tmp_path, [row() | {"reply": "Sound. Score: 0.7"}], schema, target="reply")
    assert learned(samples, 0) == "Sound. Score: 0.7<|im_end|>\n"


def test_a_batch_mixes_text_only_rows_and_images_whichever_comes_first(tmp_path):
    samples = dataset(tmp_path, [row(images=0), row(images=1), row(images=2)])
    for order in ((0, 1, 2), (2, 1, 0)):
        batch = SFTTensorCollator("no_padding")([samples[i] for i in order])
        merged = extract_multi_modal_inputs(batch["multi_modal_inputs"])
        assert merged["image_grid_thw"].tolist() == [[1, 4, 12]] * 3
        assert merged["pixel_values"].shape == (3 * 48, 1176)
    text = samples.tokenizer.decode(samples[0]["input_ids"])
    assert "<|image_pad|>" not in text
    assert "<|vision_start|>" not in text


def test_image_marks_in_the_reasoning_ask_for_no_image(tmp_path):
    samples = dataset(tmp_path, [row(thinking="As <image> and <|image_pad|> show, it is red.", images=1)])
    ids = samples[0]["input_ids"]
    assert int((ids == samples.tokenizer.convert_tokens_to_ids("<|image_pad|>")).sum()) == 12  # one 168x56 image


def test_rows_without_a_score_stop_with_their_number(tmp_path):
    with pytest.raises(ValueError, match=r"train\.parquet: row 1 has no score"):
        dataset(tmp_path, [row(), row(score=None)])


@pytest.mark.parametrize("score", [float("nan"), 1.2])
def test_rows_whose_score_is_none_stop_before_training(tmp_path, score):
    with pytest.raises(ValueError, match=rf"train\.parquet: row 1: score {score} is not in \[0, 1\]"):
        dataset(tmp_path, [row(), row(score=score)])


def test_missing_columns_stop_with_where_to_get_them(tmp_path):
    with pytest.raises(ValueError, match=r"lacks the column reply; .*data\.target=score"):
        dataset(tmp_path, [row()], target="reply")
    with pytest.raises(ValueError, match="lacks the column thinking"):
        dataset(tmp_path, [row()], pa.schema([field for field in THINKING_SCHEMA if field.name != "thinking"]))


def test_an_unknown_target_stops(tmp_path):
    with pytest.raises(ValueError, match=r"data\.target='words': must be one of score, reply"):
        dataset(tmp_path, [row()], target="words")


@pytest.mark.parametrize(
    ("mode", "color", "seen"),
    [("RGB", "red", (255, 0, 0)), ("RGBA", (255, 0, 0, 0), (255, 255, 255)), ("L", 7, (7, 7, 7)), ("P", 0, (0, 0, 0))],
)
def test_images_become_rgb_on_white(mode, color, seen):
    assert rgb_image(png(mode, color)).getpixel((0, 0)) == seen


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_images_are_turned_upright_as_the_server_turns_them(kind):
    """EXIF orientation 6: the camera was held on its side."""
    picture = Image.new("RGB", (8, 16), "red")
    picture.paste("blue", (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    picture.save(file, kind, exif=exif.tobytes())
    turned = rgb_image(file.getvalue())
    assert turned.size == (16, 8)
    left, right = turned.getpixel((2, 4)), turned.getpixel((13, 4))
    assert left[0] > 200 > 50 > left[2]
    assert right[2] > 200 > 50 > right[0]


@pytest.mark.parametrize(("score", "text"), [(0.0, "0.0"), (0.149, "0.1"), (0.95, "1.0"), (1.0, "1.0"), (0.3, "0.3")])
def test_score_text_is_the_nearest_value(score, text):
    assert score_text(score) == text


@pytest.mark.parametrize("score", [-0.1, 1.01, float("nan")])
def test_score_text_refuses_what_is_no_score(score):
    with pytest.raises(ValueError, match="is not in"):
        score_text(score)


def test_pairs_can_be_trained_on_like_the_published_set():
    types = {field.name: field.type for field in PAIR_SCHEMA}
    assert all(types[field.name] == field.type for field in THINKING_SCHEMA)


def test_training_tensors_are_what_verls_trainer_takes(tmp_path):
    sample = dataset(tmp_path, [row()])[0]
    length = len(sample["input_ids"])
    assert sample["position_ids"].shape == (4, length)
    assert sample["loss_mask"].shape == (length,)
    assert sample["multi_modal_inputs"]["pixel_values"].dtype == torch.float32


def test_a_row_that_is_too_long_is_named(tmp_path):
    samples = dataset(tmp_path, [row(), row(thinking="very " * 9 + "red")], max_length=16)
    with pytest.raises(ValueError, match=r"row 1 of .*train\.parquet: .*raise data\.max_length"):
        samples[1]
