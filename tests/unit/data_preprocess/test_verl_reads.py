"""What the preprocessors write is what verl's own datasets read, text-only rows among image rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from preprocess_builders import image_row, text_row, write_dataset

from data_preprocess import sophiavl_130k

pytest.importorskip("verl")


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    source = write_dataset(tmp_path / "in", [text_row(1), image_row(2), text_row(3)])
    assert sophiavl_130k.main([str(source), "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    return tmp_path / "out" / "train-00000.parquet"


def test_rl_rows(shard: Path, tmp_path: Path) -> None:
    from omegaconf import OmegaConf
    from verl.utils.dataset.rl_dataset import RLHFDataset

    config = OmegaConf.create({"filter_overlong_prompts": False, "cache_dir": str(tmp_path / "cache")})
    dataset = RLHFDataset(str(shard), tokenizer=None, config=config, processor=object())
    by_source = {row["data_source"]: row for row in dataset}
    # verl leaves the messages of a row with an empty image list as text, and so the model sees no image.
    assert by_source["gsm8k"]["raw_prompt"][1]["content"] == "What is 3 + 3?"
    image, text = by_source["CLEVR-Math"]["raw_prompt"][1]["content"]
    assert (image["type"], image["image"].size) == ("image", (20, 16))
    assert isinstance(image["image"], Image.Image)
    assert text == {"type": "text", "text": "Take away 2 of the balls. How many things remain?"}
    assert by_source["CLEVR-Math"]["reward_model"] == {"style": "rule", "ground_truth": "5"}


def test_sft_takes_an_empty_image_list(shard: Path) -> None:
    import pandas as pd
    from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset

    dataset = MultiTurnSFTDataset.__new__(MultiTurnSFTDataset)
    dataset.image_key, dataset.video_key, dataset.messages_key = "images", "videos", "prompt"
    dataset.processor, dataset.image_patch_size = object(), 14
    frame = pd.read_parquet(shard, dtype_backend="pyarrow")
    built = {row["data_source"]: dataset._build_messages(row) for row in (frame.iloc[n].to_dict() for n in range(3))}
    assert built["gsm8k"][1]["content"] == [{"type": "text", "text": "What is 3 + 3?"}]
    assert [part["type"] for part in built["CLEVR-Math"][1]["content"]] == ["image", "text"]
