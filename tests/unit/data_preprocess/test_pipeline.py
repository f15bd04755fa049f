"""The whole run: bounded shards, sides without leaks, the same output for the same input."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image
from preprocess_builders import (
    contents,
    encoded,
    good_rows,
    image_row,
    output_rows,
    png,
    rejected_rows,
    text_row,
    write_dataset,
)

from data_preprocess.core import pipeline
from data_preprocess.core.errors import SourceError, WorkError
from data_preprocess.core.files import locked
from data_preprocess.core.pipeline import Settings, run
from data_preprocess.core.published import published_source
from data_preprocess.generic import Constants, MappedRows, read_mapping
from data_preprocess.sophiavl_130k import Sophia130k


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "PART_ROWS", 16)


def convert(source: Path, out: Path, **settings: Any) -> dict[str, Any]:
    return run(published_source(str(source), out), Sophia130k(), Settings(**settings), out)


def test_the_output_does_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    rows = good_rows(120)
    rows[50]["solution"] = ""
    source = write_dataset(tmp_path / "in", rows)
    for workers in (1, 3):
        convert(source, tmp_path / f"out{workers}", workers=workers, val_fraction=0.3, shard_rows=20)
    one, three = contents(tmp_path / "out1"), contents(tmp_path / "out3")
    assert one == three
    assert {"manifest.json", "rejected.jsonl", "train-00000.parquet", "val-00000.parquet"} <= set(one)
    assert not any(name.startswith(".work") or name.endswith(".tmp") for name in one)


def test_shards_are_bounded_in_rows(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "in", good_rows(100))
    manifest = convert(source, tmp_path / "out", shard_rows=30)
    assert [shard["rows"] for shard in manifest["shards"]] == [30, 30, 30, 10]
    for shard in manifest["shards"]:
        path = tmp_path / "out" / shard["file"]
        assert pq.read_metadata(path).num_rows == shard["rows"]
        assert path.stat().st_size == shard["bytes"]
    assert [row["extra_info"]["index"] for row in output_rows(tmp_path / "out")] == list(range(100))


def test_shards_are_bounded_in_bytes(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "in", [image_row(number) for number in range(60)])
    for number in range(60):
        size = 400_000 if number == 30 else 10_000
        image = png(number) + bytes(size)  # what follows the end of a PNG is not read
        (source / f"Math/CLEVR-Math/images/{number}.png").write_bytes(image)
    manifest = convert(source, tmp_path / "out", shard_bytes=100_000)
    sizes = {shard["file"]: shard["rows"] for shard in manifest["shards"]}
    assert sum(sizes.values()) == 60
    tables = {name: pq.read_table(tmp_path / "out" / name) for name in sizes}
    over = [name for name, table in tables.items() if table.nbytes > 100_000]
    assert [sizes[name] for name in over] == [1]  # the row that is larger than a shard, alone
    assert len(sizes) < 12
    assert [row["extra_info"]["index"] for row in output_rows(tmp_path / "out")] == list(range(60))


def test_no_image_is_on_both_sides(tmp_path: Path) -> None:
    rows = [image_row(number) for number in range(200)]
    source = write_dataset(tmp_path / "in", rows)
    for number in range(200):  # every image under four names
        (source / f"Math/CLEVR-Math/images/{number}.png").write_bytes(png(number // 4))
    convert(source, tmp_path / "out", val_fraction=0.4)
    images = {
        side: {row["images"][0]["bytes"] for row in output_rows(tmp_path / "out", side)} for side in ("train", "val")
    }
    assert len(images["train"]) + len(images["val"]) == 50
    assert images["train"]
    assert images["val"]
    assert not images["train"] & images["val"]


def test_one_picture_in_two_encodings_is_on_one_side(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "in", [image_row(number) for number in range(120)])
    for number in range(120):
        picture = Image.new("RGB", (20, 16), (number // 3, 7, 90))
        kind, options = (("PNG", {"compress_level": 0}), ("PNG", {}), ("BMP", {}))[number % 3]
        (source / f"Math/CLEVR-Math/images/{number}.png").write_bytes(encoded(picture, kind, **options))
    convert(source, tmp_path / "out", val_fraction=0.5)
    sides = [
        {row["extra_info"]["index"] // 3 for row in output_rows(tmp_path / "out", side)} for side in ("train", "val")
    ]
    assert len(sides[0]) + len(sides[1]) == 40
    assert not sides[0] & sides[1]


def test_no_text_only_question_is_on_both_sides(tmp_path: Path) -> None:
    rows = [text_row(number, problem=f"What is  {'x' * (number // 2)}?".replace(" ", " " * (number % 2 + 1)))
            for number in range(100)]  # fmt: skip
    convert(write_dataset(tmp_path / "in", rows), tmp_path / "out", val_fraction=0.4)
    questions = {
        side: {" ".join(row["extra_info"]["question"].split()) for row in output_rows(tmp_path / "out", side)}
        for side in ("train", "val")
    }
    assert questions["train"]
    assert questions["val"]
    assert not questions["train"] & questions["val"]


def test_rows_of_several_images_are_tied_by_any_image_they_share(tmp_path: Path) -> None:
    rows = []
    for number in range(90):  # chains of three rows: (a b), (b c), (c)
        first = number // 3 * 10
        pictures = [[first, first + 1], [first + 1, first + 2], [first + 2]][number % 3]
        rows.append(image_row(number, path=[f"{picture}.png" for picture in pictures]))
        for picture in pictures:
            (tmp_path / f"{picture}.png").write_bytes(png(picture))
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    convert(tmp_path, tmp_path / "out", val_fraction=0.5)
    images = {
        side: {image["bytes"] for row in output_rows(tmp_path / "out", side) for image in row["images"]}
        for side in ("train", "val")
    }
    assert images["train"]
    assert images["val"]
    assert not images["train"] & images["val"]
    assert [len(row["images"]) for row in output_rows(tmp_path / "out")].count(2) == 60


def test_the_side_is_written_into_the_row(tmp_path: Path) -> None:
    convert(write_dataset(tmp_path / "in", good_rows(80)), tmp_path / "out", val_fraction=0.3)
    for side in ("train", "val"):
        assert {row["extra_info"]["split"] for row in output_rows(tmp_path / "out", side)} == {side}


def test_seed_changes_the_split_and_nothing_else(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "in", good_rows(80))
    validation = []
    for seed in (1, 2):
        convert(source, tmp_path / f"out{seed}", val_fraction=0.3, seed=seed)
        validation.append([row["extra_info"]["index"] for row in output_rows(tmp_path / f"out{seed}", "val")])
        assert len(output_rows(tmp_path / f"out{seed}")) == 80
    assert validation[0] != validation[1]


def test_limit_takes_rows_of_every_file(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "in", good_rows(100))
    manifest = convert(source, tmp_path / "out", limit=12)
    assert manifest["rows"] == {"read": 12, "kept": 12, "rejected": 0}
    assert len({row["data_source"] for row in output_rows(tmp_path / "out")}) == 6


def test_max_pixels_shrinks_only_what_is_larger(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "in", [image_row(1), image_row(2)])
    (source / "Math/CLEVR-Math/images/2.png").write_bytes(png(2, (100, 100)))
    convert(source, tmp_path / "out", max_pixels=400)
    small, shrunk = (row["images"][0]["bytes"] for row in output_rows(tmp_path / "out"))
    assert small == png(1)
    assert len(shrunk) < len(png(2, (100, 100)))


def test_a_finished_output_is_returned_and_not_made_again(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "in", good_rows(20))
    first = convert(source, tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir() if path.name != ".lock"}
    assert convert(source, tmp_path / "out") == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir() if path.name != ".lock"} == times


@pytest.mark.parametrize("changed", [{"seed": 1}, {"limit": 10}, {"max_pixels": 100}, {"shard_rows": 7}])
def test_other_settings_are_refused_until_overwritten(tmp_path: Path, changed: dict[str, Any]) -> None:
    source = write_dataset(tmp_path / "in", good_rows(40))
    convert(source, tmp_path / "out", val_fraction=0.2)
    with pytest.raises(WorkError, match="different: settings"):
        convert(source, tmp_path / "out", val_fraction=0.2, **changed)
    convert(source, tmp_path / "out", val_fraction=0.2, overwrite=True, **changed)
    convert(source, tmp_path / "fresh", val_fraction=0.2, **changed)
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_another_source_or_adapter_is_refused(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "in", good_rows(20))
    convert(source, tmp_path / "out")
    with pytest.raises(WorkError, match="different: adapter"):
        run(published_source(str(source), tmp_path), Sophia130k(100), Settings(), tmp_path / "out")
    write_dataset(source, good_rows(21))
    with pytest.raises(WorkError, match="different: source"):
        convert(source, tmp_path / "out")


def test_parquet_of_somebody_else_is_not_overwritten(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "in", good_rows(5))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "train-00000.parquet").write_bytes(b"precious")
    with pytest.raises(WorkError, match=r"train-00000\.parquet is there"):
        convert(source, tmp_path / "out")
    assert (tmp_path / "out" / "train-00000.parquet").read_bytes() == b"precious"


def test_not_even_where_a_run_kept_nothing(tmp_path: Path) -> None:
    convert(write_dataset(tmp_path / "in", [text_row(1, solution="")]), tmp_path / "out")
    (tmp_path / "out" / "train-00000.parquet").write_bytes(b"precious")
    with pytest.raises(WorkError, match=r"train-00000\.parquet is there"):
        convert(tmp_path / "in", tmp_path / "out", seed=1)
    assert (tmp_path / "out" / "train-00000.parquet").read_bytes() == b"precious"


def test_two_runs_do_not_write_to_one_folder(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "in", good_rows(5))
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out"), pytest.raises(WorkError, match="another preprocessing run"):
        convert(source, tmp_path / "out")
    assert convert(source, tmp_path / "out")["rows"]["kept"] == 5


@pytest.mark.parametrize("name", ["limit", "max_pixels", "shard_rows", "shard_bytes", "workers"])
def test_settings_out_of_range(name: str) -> None:
    with pytest.raises(WorkError, match=name.replace("_", "-")):
        Settings(**{name: 0})


def test_no_good_row_at_all_still_finishes(tmp_path: Path) -> None:
    manifest = convert(write_dataset(tmp_path / "in", [text_row(1, solution="")]), tmp_path / "out", val_fraction=0.5)
    assert (manifest["shards"], manifest["faults"]) == ([], {"empty_truth": 1})
    assert len(rejected_rows(tmp_path / "out")) == 1


def test_a_run_that_kept_nothing_is_made_again_by_whatever_arguments(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "in", [image_row(1)])
    image = source / "Math/CLEVR-Math/images/1.png"
    good = image.read_bytes()
    image.write_bytes(b"no image")
    assert convert(source, tmp_path / "out")["rows"]["kept"] == 0
    assert convert(source, tmp_path / "out", seed=3)["rows"]["kept"] == 0
    image.write_bytes(good)  # which the run's identity does not show
    assert convert(source, tmp_path / "out", seed=3)["rows"]["kept"] == 1


def test_a_run_that_failed_before_it_kept_a_row_is_in_nobodys_way(tmp_path: Path) -> None:
    file = write_dataset(tmp_path / "in", []) / "json" / "text.json"
    bad = [text_row(number, solution="") for number in range(40)]  # two parts of 16 rows are done, and a third is not
    file.write_text(json.dumps(bad)[:-2])
    with pytest.raises(SourceError):
        convert(tmp_path / "in", tmp_path / "out")
    file.write_text(json.dumps([text_row(number) for number in range(40)]))
    assert convert(tmp_path / "in", tmp_path / "out")["rows"]["kept"] == 40


def test_a_run_that_failed_after_it_kept_rows_is_not_thrown_away(tmp_path: Path) -> None:
    file = write_dataset(tmp_path / "in", []) / "json" / "text.json"
    file.write_text(json.dumps([text_row(number) for number in range(40)])[:-2])
    with pytest.raises(SourceError):
        convert(tmp_path / "in", tmp_path / "out")
    file.write_text(json.dumps([text_row(number) for number in range(40)]))
    with pytest.raises(WorkError, match=r"different: source.*--overwrite"):
        convert(tmp_path / "in", tmp_path / "out")


class DyingAdapter(MappedRows):
    """Kills the worker process at a certain row."""

    def draft(self, fields: Any, file: str) -> Any:
        if fields["problem_id"] == 30 and multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().draft(fields, file)


def test_a_worker_that_dies_is_an_error_and_the_run_can_go_on(tmp_path: Path) -> None:
    source = published_source(str(write_dataset(tmp_path / "in", good_rows(60))), tmp_path)
    names, *_ = read_mapping(None, ["question=problem", "answer=solution", "images=path"], [])
    adapter = DyingAdapter(names, Constants())
    with pytest.raises(WorkError, match="a worker process died"):
        run(source, adapter, Settings(workers=2), tmp_path / "out")
    assert run(source, adapter, Settings(workers=1), tmp_path / "out")["rows"]["kept"] == 60


def test_settings_identity_leaves_out_what_the_output_does_not_depend_on() -> None:
    base = Settings()
    for same in ({"workers": 5}, {"strict": True}, {"overwrite": True}, {"progress": True}):
        assert replace(base, **same).identity() == base.identity()
