"""easy-VQA rows: real pictures and truths of the package, no picture on both sides, the same for the same seed."""

from __future__ import annotations

import io
import random
from collections import Counter
from pathlib import Path

import easy_vqa as package
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_preprocess import easy_vqa
from data_preprocess.easy_vqa import (
    FRAME,
    PICTURE_SIDE,
    TYPES,
    Ask,
    Scene,
    ShapeImage,
    deduce,
    load_images,
    make_question,
)
from data_preprocess.schema import RL_SCHEMA
from reward_score import score_outcome
from reward_score.option_labels import option_texts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("easy_vqa")
    assert easy_vqa.main(["--out", str(out), "--train-size", "90", "--val-size", "30"]) == 0
    return out


@pytest.fixture(scope="module")
def asked() -> list[tuple[Scene, easy_vqa.Question]]:
    rng, images = random.Random(0), load_images("train")
    return [make_question(images, TYPES[i % 3], rng) for i in range(1800)]


def rows(file: Path) -> list[dict]:
    return pq.read_table(file).to_pylist()


def thirds(row: dict) -> list[bytes]:
    with Image.open(io.BytesIO(row["images"][0]["bytes"])) as scene:
        assert scene.size == (3 * PICTURE_SIDE, PICTURE_SIDE)
        corners = (0, PICTURE_SIDE, 2 * PICTURE_SIDE)
        return [inside(scene.crop((x, 0, x + PICTURE_SIDE, PICTURE_SIDE))) for x in corners]


def inside(picture: Image.Image) -> bytes:
    """The pixels of a picture that no frame covers."""
    return picture.crop((FRAME, FRAME, PICTURE_SIDE - FRAME, PICTURE_SIDE - FRAME)).tobytes()


def pixels(images: list[ShapeImage]) -> set[bytes]:
    return {inside(image.picture()) for image in images}


def test_schema_sizes_and_types(folder: Path) -> None:
    for split, size in (("train", 90), ("val", 30)):
        table = pq.read_table(folder / f"{split}.parquet")
        assert table.schema.equals(RL_SCHEMA)
        types = [row["extra_info"]["problem_type"] for row in table.to_pylist()]
        assert Counter(types) == dict.fromkeys(TYPES, size // 3)


def test_scenes_are_rows_of_the_packages_own_pictures_and_rl_never_sees_those_of_another_split(folder: Path) -> None:
    images = load_images("train")
    seen, rl = (pixels([image for image in images if (image.image_id < 3000) == old]) for old in (True, False))
    shown = {
        split: {third for row in rows(folder / f"{split}.parquet") for third in thirds(row)}
        for split in ("train", "val")
    }
    assert shown["train"] <= rl
    assert not shown["train"] & seen, "the quickstart's models saw these"
    assert shown["val"] <= pixels(load_images("test"))
    assert not shown["val"] & (seen | rl)


def test_truths_are_the_packages_annotations() -> None:
    named = {}
    for text, answer, image in zip(*package.get_train_questions(), strict=True):
        if text.startswith("what"):
            named.setdefault(image, set()).add(answer)
    images = {image.image_id: image for image in load_images("train")}
    assert len(images) > 2500
    assert all(words <= set(images[i].look) for i, words in named.items() if i in images)


def test_every_question_has_the_one_answer_that_the_pictures_give(asked: list) -> None:
    for scene, question in asked:
        looks, ask = list(scene.looks.values()), question.ask
        answer = option_texts(question.options)[question.answer] if question.options else question.answer
        showing = [i for i, look in enumerate(looks) if ask.thing in look]
        if ask.wanted == "number":
            assert answer == str(len(showing))
            continue
        if ask.thing:
            (start,) = showing  # or the question would be about several pictures
            at = start + {"left": -1, "right": 1}[ask.place]
            assert at in (0, 1, 2)
        else:
            at = ("left", "middle", "right").index(ask.place)
        assert answer == looks[at][ask.wanted == "shape"]


def test_questions_of_every_kind_are_asked_and_no_answer_is_favoured(asked: list) -> None:
    assert {question.text for _, question in asked} == set(easy_vqa.ASKS)
    numbers = Counter(question.answer for _, question in asked if question.problem_type == "numerical")
    assert set(numbers) == set("0123")
    assert max(numbers.values()) < 1.4 * min(numbers.values())
    letters = Counter(question.answer for _, question in asked if len(question.options) == 4)
    assert set(letters) == set("ABCD")
    assert max(letters.values()) < 1.6 * min(letters.values())


def test_options_hold_what_the_other_pictures_show(asked: list) -> None:
    choices = [(scene, question) for scene, question in asked if question.options]
    assert choices
    for scene, question in choices:
        assert len(set(question.words)) == len(question.options) == (4 if question.ask.wanted == "color" else 3)
        assert {look[question.ask.wanted == "shape"] for look in scene.looks.values()} <= set(question.words)
        assert question.given(option_texts(question.options)[question.answer]) == question.answer


def test_nothing_is_deduced_from_too_little() -> None:
    beside = Ask("color", "triangle", "left")
    assert deduce(beside, {"left": ("red", None), "middle": (None, "triangle")}) == ("left", "red")
    assert deduce(beside, {"left": ("red", "triangle")}) == (None, None), "nothing is left of it"
    assert deduce(beside, {"left": ("red", "circle")}) == (None, None)
    assert deduce(Ask("shape", "", "right"), {"left": ("red", "circle")}) == (None, None)
    assert deduce(Ask("number", "red"), {"left": ("red", "circle"), "right": ("teal", None)}) == (None, "1")


def test_images_that_lack_a_thing_are_named() -> None:
    circles = [image for image in load_images("train") if image.look == ("red", "circle")]

    def ask(times: int) -> None:
        for seed in range(times):
            make_question(circles, "numerical", random.Random(seed))

    with pytest.raises(ValueError, match=f"none of {len(circles)} images was found that shows"):
        ask(50)


def test_every_truth_scores_full_marks(folder: Path) -> None:
    for row in rows(folder / "train.parquet"):
        info = row["extra_info"]
        response = f"<think>because</think><answer>{info['answer']}</answer>"
        score = score_outcome(info["problem_type"], response, row["reward_model"]["ground_truth"], info["options"])
        assert score.reward == pytest.approx(1.0), info


def test_same_seed_same_file(folder: Path, tmp_path: Path) -> None:
    easy_vqa.main(["--out", str(tmp_path), "--train-size", "90", "--val-size", "30"])
    assert rows(tmp_path / "train.parquet") == rows(folder / "train.parquet")
    easy_vqa.main(["--out", str(tmp_path), "--train-size", "90", "--val-size", "30", "--seed", "1"])
    assert rows(tmp_path / "train.parquet") != rows(folder / "train.parquet")
