"""easy-VQA rows: real images and truths of the package, no image on both sides, the same for the same seed."""

from __future__ import annotations

import random
from pathlib import Path

import easy_vqa as package
import pyarrow.parquet as pq
import pytest

from data_preprocess import easy_vqa
from data_preprocess.schema import RL_SCHEMA
from reward_score import score_outcome


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("easy_vqa")
    assert easy_vqa.main(["--out", str(out), "--train-size", "90", "--val-size", "30"]) == 0
    return out


def rows(file: Path) -> list[dict]:
    return pq.read_table(file).to_pylist()


def test_schema_sizes_and_types(folder: Path) -> None:
    for split, size in (("train", 90), ("val", 30)):
        table = pq.read_table(folder / f"{split}.parquet")
        assert table.schema.equals(RL_SCHEMA)
        types = [row["extra_info"]["problem_type"] for row in table.to_pylist()]
        assert len(types) == size
        assert {kind: types.count(kind) for kind in set(types)} == dict.fromkeys(
            ("numerical", "multiple choice", "free-form"), size // 3
        )


def test_images_are_the_packages_own_files_and_on_one_side_only(folder: Path) -> None:
    sides = [{row["images"][0]["bytes"] for row in rows(folder / f"{split}.parquet")} for split in ("train", "val")]
    assert not sides[0] & sides[1]
    known = {Path(path).read_bytes() for path in package.get_train_image_paths().values()}
    assert sides[0] <= known


def test_truths_are_the_packages_annotations() -> None:
    texts, answers, ids = package.get_train_questions()
    annotated = {(image, text): answer for text, answer, image in zip(texts, answers, ids, strict=True)}
    rng = random.Random(0)
    for image in easy_vqa.load_images("train")[:200]:
        free = easy_vqa.make_question(image, "free-form", rng)
        if free is not None:
            assert free.answer == annotated[image.image_id, free.text]
        choice = easy_vqa.make_question(image, "multiple choice", rng)
        if choice is not None:
            letters = {option[0]: option[3:] for option in choice.options}
            assert letters[choice.answer] == annotated[image.image_id, choice.text]
            assert len(set(letters.values())) == len(letters)
        count = easy_vqa.make_question(image, "numerical", rng)
        if count is not None:
            thing = count.text.removeprefix("how many ").removesuffix("s are there?")
            shown = {image.color, f"{image.color} shape", image.shape}
            assert count.answer == ("1" if thing in shown else "0")


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


def test_the_quickstart_models_never_saw_the_rl_images(folder: Path) -> None:
    seen = {image.path.read_bytes() for image in easy_vqa.load_images("train") if image.image_id < 3000}
    assert not seen & {row["images"][0]["bytes"] for row in rows(folder / "train.parquet")}
