"""The split of scored reasoning: no image and no text-only question on two sides."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.sophiavl.trm_training.pairs import PairsError
from recipe.sophiavl.trm_training.sides import side, sides_of, split_keys
from tests.support.scored_rows import make_row, write_rows


def row(question: str, *images: bytes) -> dict[str, Any]:
    return make_row(question=0) | {"question": question, "images": [{"bytes": data, "path": None} for data in images]}


def split(folder: Path, rows: list[dict[str, Any]], *, test: float = 0.5, val: float = 0.0, seed: int = 0) -> list[str]:
    return sides_of([write_rows(folder / "a.parquet", rows)], test, val, seed)


def test_questions_about_one_image_are_on_one_side(tmp_path: Path) -> None:
    rows = [row(question, f"image {i}".encode()) for i in range(40) for question in ("What is it?", "Which colour?")]
    sides = split(tmp_path, rows)
    assert sides[::2] == sides[1::2]
    assert set(sides) == {"train", "test"}


def test_rows_that_share_any_image_are_on_one_side_however_long_the_chain(tmp_path: Path) -> None:
    chains = [[row("Same?", f"{c} {i}".encode(), f"{c} {i + 1}".encode()) for i in range(5)] for c in range(30)]
    sides = split(tmp_path, [part for chain in chains for part in chain])
    assert all(len(set(sides[5 * c : 5 * c + 5])) == 1 for c in range(30))
    assert set(sides) == {"train", "test"}


def test_one_question_without_an_image_is_on_one_side_however_it_is_written(tmp_path: Path) -> None:
    written = ("How many are {}?", "how many  are {}? ", "HOW MANY ARE {}?")
    sides = split(tmp_path, [row(text.format(i)) for i in range(40) for text in written])
    assert sides[::3] == sides[1::3] == sides[2::3]
    assert set(sides) == {"train", "test"}


def test_one_question_about_different_images_may_be_on_both_sides(tmp_path: Path) -> None:
    assert set(split(tmp_path, [row("What is it?", f"{i}".encode()) for i in range(40)])) == {"train", "test"}


@settings(max_examples=20, deadline=None)
@given(
    shared=st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=3), min_size=1, max_size=25),
    order=st.randoms(use_true_random=False),
    seed=st.integers(0, 9),
)
def test_the_order_of_rows_and_files_changes_no_side(
    tmp_path_factory: pytest.TempPathFactory, shared: list[list[int]], order: random.Random, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("sides")
    rows = [row(f"Question {n}?", *(f"{i}".encode() for i in images)) for n, images in enumerate(shared)]
    places = order.sample(range(len(rows)), len(rows))
    at = len(rows) // 2
    files = [
        write_rows(folder / f"{name}.parquet", [rows[place] for place in part])
        for name, part in (("b", places[:at]), ("c", places[at:]))
    ]
    shuffled = sides_of(files, 0.4, 0.3, seed)
    assert split(folder, rows, test=0.4, val=0.3, seed=seed) == [shuffled[places.index(n)] for n in range(len(rows))]


def test_shares_of_the_keys() -> None:
    counts = Counter(side(f"key {i}", 0.2, 0.1, 0) for i in range(20_000))
    assert counts["test"] == pytest.approx(4000, abs=300)
    assert counts["val"] == pytest.approx(2000, abs=250)
    assert {side(f"key {i}", 0.0, 0.0, 0) for i in range(200)} == {"train"}


@settings(deadline=None)
@given(st.text(), st.integers(0, 5))
def test_a_larger_test_fraction_keeps_what_was_tested(key: str, seed: int) -> None:
    if side(key, 0.1, 0.0, seed) == "test":
        assert side(key, 0.3, 0.0, seed) == "test"


def test_the_seed_decides_what_is_tested() -> None:
    first, again, other = ({i for i in range(500) if side(f"k{i}", 0.1, 0.0, seed) == "test"} for seed in (0, 0, 1))
    assert first == again != other


def test_images_without_bytes_are_named(tmp_path: Path) -> None:
    rows = [row("What?", b"1"), row("What?") | {"images": [{"bytes": None, "path": "a.png"}]}]
    with pytest.raises(PairsError, match=r"a\.parquet, row 1, field images: "):
        split(tmp_path, rows)


def test_keys_of_a_row() -> None:
    assert len(split_keys("What?", [b"1", b"2"])) == 2
    assert split_keys("What?", [b"1"]) == split_keys("Else?", [b"1"])
    assert split_keys("What?", []) != split_keys("Else?", [])
