"""Patterns in the data settings become the shards that they match."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import DictConfig, OmegaConf

from recipe.sophiavl.data_files import expand_patterns, training_rows
from recipe.sophiavl.validation import SettingsError


def expanded(train: object, val: object = None) -> DictConfig:
    config = OmegaConf.create({"data": {"train_files": train, "val_files": val}})
    OmegaConf.set_struct(config, True)  # as Hydra does
    expand_patterns(config.data)
    return config.data


def shards(folder: Path, *names: str) -> list[str]:
    for name in names:
        (folder / name).touch()
    return [str(folder / name) for name in names]


def test_a_pattern_becomes_its_files_in_order(tmp_path: Path) -> None:
    first, second, other = shards(tmp_path, "train-00000.parquet", "train-00001.parquet", "val-00000.parquet")
    data = expanded(f"{tmp_path}/train-*.parquet", [other, f"{tmp_path}/train-0000?.parquet"])
    assert data.train_files == [first, second]
    assert data.val_files == [other, first, second]


def test_a_relative_pattern_starts_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    shards(tmp_path / "data", "b.parquet", "a.parquet")
    monkeypatch.chdir(tmp_path)
    assert expanded("data/*.parquet").train_files == ["data/a.parquet", "data/b.parquet"]


def test_one_file_stays_one_file(tmp_path: Path) -> None:
    (only,) = shards(tmp_path, "train-00000.parquet")
    assert expanded(f"{tmp_path}/train-*.parquet").train_files == only
    assert expanded(only).train_files == only
    assert expanded([only]).train_files == [only]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    odd, _ = shards(tmp_path, "what?.parquet", "whats.parquet")
    assert expanded(odd).train_files == odd


def test_names_without_a_pattern_are_left_to_the_checks_that_follow(tmp_path: Path) -> None:
    assert expanded("missing.parquet").train_files == "missing.parquet"


def test_a_pattern_without_files_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"data\.val_files=.*/val-\*\.parquet: no file matches"):
        expanded(None, f"{tmp_path}/val-*.parquet")


@pytest.mark.parametrize(
    ("files", "limit", "rows"),
    [
        ("train-*.parquet", -1, 7),
        (["train-0.parquet", "train-0.parquet"], -1, 6),
        ("train-*.parquet", 5, 5),
        (None, -1, None),
        ("other-*.parquet", -1, None),
        (["train-0.parquet", "other.parquet"], -1, None),
    ],
)
def test_rows_are_counted_in_the_footers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: object, limit: int, rows: int | None
) -> None:
    monkeypatch.chdir(tmp_path)
    for shard, size in enumerate((3, 4)):
        pq.write_table(pa.table({"answer": ["A"] * size}), f"train-{shard}.parquet")
    data = OmegaConf.create({"train_files": files, "val_files": "none-*.parquet", "train_max_samples": limit})
    assert training_rows(data) == rows
    assert data.train_files == files


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1 and no footer")
    data = OmegaConf.create({"train_files": f"{tmp_path}/*.parquet", "train_max_samples": -1})
    with pytest.raises(SettingsError, match=r"data\.train_files=.*train\.parquet: not a parquet file"):
        training_rows(data)
