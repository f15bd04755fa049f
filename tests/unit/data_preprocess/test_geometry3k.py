"""Geometry3K: the published parquet files come out as RL rows on their published sides."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from preprocess_builders import output_rows, png, rejected_rows

from data_preprocess import geometry3k
from data_preprocess.core.errors import SourceError
from data_preprocess.core.sources import HubSource

IMAGES = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
SCHEMA = pa.schema([("images", IMAGES), ("problem", pa.string()), ("answer", pa.string())])


def write(root: Path, **counts: int) -> Path:
    """``data/{split}-00000-of-00001.parquet`` with so many rows; every split has images of its own."""
    (root / "data").mkdir(parents=True)
    for place, (split, count) in enumerate(counts.items()):
        rows = [
            {
                "images": [{"bytes": png(1000 * place + number), "path": None}],
                "problem": "<image>Find x.",
                "answer": f"{number} \\sqrt {{ 2 }}",
            }
            for number in range(count)
        ]
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), root / "data" / f"{split}-00000-of-00001.parquet")
    return root


def convert(source: Path, out: Path, *options: str) -> int:
    return geometry3k.main([str(source), "--out", str(out), "--workers", "1", *options])


def test_published_sides_are_kept(tmp_path: Path) -> None:
    assert convert(write(tmp_path / "in", train=7, validation=3, test=4), tmp_path / "out") == 0
    counts = {side: len(output_rows(tmp_path / "out", side)) for side in ("train", "val", "test")}
    assert counts == {"train": 7, "val": 3, "test": 4}
    row = output_rows(tmp_path / "out", "train")[2]
    assert row["prompt"][1]["content"] == "<image>Find x."
    assert row["reward_model"] == {"style": "rule", "ground_truth": "2 \\sqrt { 2 }"}
    assert row["images"] == [{"bytes": png(2), "path": None}]
    assert (row["data_source"], row["ability"]) == ("hiyouga/geometry3k", "geometry")
    assert row["extra_info"]["problem_type"] == "numerical"


def test_val_fraction_takes_rows_of_train_only(tmp_path: Path) -> None:
    convert(write(tmp_path / "in", train=60, validation=3, test=4), tmp_path / "out", "--val-fraction", "0.3")
    counts = {side: len(output_rows(tmp_path / "out", side)) for side in ("train", "val", "test")}
    assert counts["train"] + counts["val"] == 63
    assert counts["val"] > 3
    assert counts["test"] == 4


def test_bad_rows_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "in/data").mkdir(parents=True)
    good = {"images": [{"bytes": png(1), "path": None}], "problem": "<image>Find x.", "answer": "3"}
    rows = [
        good,
        good | {"images": [{"bytes": png(1)[:40], "path": None}]},
        good | {"images": []},
        good | {"images": [{"bytes": None, "path": "/etc/passwd"}]},
        good | {"answer": ""},
        good | {"problem": "<image><image>Find x."},
        good,
    ]
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), tmp_path / "in/data/train-00000-of-00001.parquet")
    convert(tmp_path / "in", tmp_path / "out")
    assert [row["extra_info"]["index"] for row in output_rows(tmp_path / "out")] == [0, 6]
    assert [(row["row"], row["field"], row["fault"]) for row in rejected_rows(tmp_path / "out")] == [
        (1, "images", "unreadable_image"),
        (2, "problem", "image_marks"),
        (3, "images", "outside_image_root"),
        (4, "answer", "empty_truth"),
        (5, "problem", "image_marks"),
    ]


def test_a_hub_name_is_streamed() -> None:
    source = geometry3k.open_source("hiyouga/geometry3k")
    assert source == HubSource("hiyouga/geometry3k", (("train", None), ("validation", "val"), ("test", "test")))


def test_a_folder_without_the_files(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="train"):
        geometry3k.open_source(str(tmp_path))
