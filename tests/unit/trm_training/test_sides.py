"""The split of scored reasoning: no image and no text-only question on two sides."""

from __future__ import annotations

import io
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from recipe.sophiavl.trm_training import sides as sides_module
from recipe.sophiavl.trm_training.pairs import PairsError
from recipe.sophiavl.trm_training.sides import sides_of
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


def test_shares(tmp_path: Path) -> None:
    rows = [row(f"Question {i}?") for i in range(5000)]
    counts = Counter(split(tmp_path, rows, test=0.2, val=0.1))
    assert counts["test"] == pytest.approx(1000, abs=150)
    assert counts["val"] == pytest.approx(500, abs=120)
    assert set(split(tmp_path, rows[:200], test=0.0)) == {"train"}


def test_a_larger_test_fraction_keeps_what_was_tested_and_the_seed_decides_about_it(tmp_path: Path) -> None:
    rows = [row(f"Question {i}?") for i in range(500)]
    tested = [
        {place for place, side in enumerate(split(tmp_path, rows, test=share, seed=seed)) if side == "test"}
        for share, seed in ((0.1, 0), (0.3, 0), (0.1, 0), (0.1, 1))
    ]
    assert tested[0] < tested[1]
    assert tested[0] == tested[2] != tested[3]


def encoded(number: int, kind: str, **options: Any) -> bytes:
    """One picture for each number, in any file format that keeps its pixels."""
    picture = Image.frombytes("RGB", (6, 4), random.Random(number).randbytes(6 * 4 * 3))
    if "turned" in options:
        # What EXIF orientation 6 turns back.
        exif = Image.Exif()
        exif[0x0112] = 6
        picture, options = picture.transpose(Image.Transpose.ROTATE_90), {"exif": exif.tobytes()}
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def test_one_picture_in_two_encodings_is_on_one_side(tmp_path: Path) -> None:
    ways = [
        ("PNG", {}),
        ("PNG", {"compress_level": 0}),
        ("BMP", {}),
        ("WEBP", {"lossless": True}),
        ("PNG", {"turned": True}),
    ]
    rows = [row(f"Question {kind}?", encoded(i, kind, **options)) for i in range(30) for kind, options in ways]
    assert len({image["bytes"] for made in rows for image in made["images"]}) == len(rows)
    sides = split(tmp_path, rows)
    assert all(len(set(sides[len(ways) * i : len(ways) * (i + 1)])) == 1 for i in range(30))
    assert set(sides) == {"train", "test"}


def test_processes_find_the_same_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row("What?", encoded(i % 40, "PNG", compress_level=i % 9)) for i in range(300)]
    alone = split(tmp_path, rows)
    asked = []
    monkeypatch.setattr(sides_module, "_ROWS_FOR_PROCESSES", 300)
    monkeypatch.setattr(sides_module, "default_workers", lambda: asked.append(2) or 2)
    assert split(tmp_path, rows) == alone
    assert asked


def test_images_without_bytes_are_named(tmp_path: Path) -> None:
    rows = [row("What?", b"1"), row("What?") | {"images": [{"bytes": None, "path": "a.png"}]}]
    with pytest.raises(PairsError, match=r"a\.parquet, row 1, field images: "):
        split(tmp_path, rows)
