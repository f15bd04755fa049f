"""Data files that the rewards can't use are refused with file, row and field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from data_preprocess.schema import RL_SCHEMA, rl_row
from recipe.sophiavl.data_checks import check_data_files
from recipe.sophiavl.validation import SettingsError


def row(**changes: Any) -> dict[str, Any]:
    return rl_row(
        **{
            "data_source": "s",
            "question": "which?",
            "problem_type": "multiple choice",
            "answer": "B",
            "options": ("A. 1", "B. 2"),
            "split": "train",
            "index": 0,
        }
        | changes
    )


def check(folder: Path, *rows: dict[str, Any], drop: str | None = None) -> None:
    table = pa.Table.from_pylist(list(rows), schema=RL_SCHEMA)
    file = folder / "rows.parquet"
    pq.write_table(table.drop_columns([drop]) if drop else table, file)
    check_data_files(
        OmegaConf.create({"data": {"train_files": str(file), "val_files": [str(file)], "prompt_key": "prompt"}})
    )


def test_good_rows_pass(tmp_path: Path) -> None:
    check(tmp_path, row(), row(problem_type="numerical", answer="3", options=()))


@pytest.mark.parametrize(
    ("bad", "part"),
    [
        (row(problem_type="essay"), "extra_info.problem_type='essay'"),
        (row(answer=" "), "reward_model.ground_truth=' '"),
        (row(answer="E"), "E"),
    ],
    ids=["unknown type", "empty truth", "truth that is no option"],
)
def test_bad_rows_are_named(tmp_path: Path, bad: dict[str, Any], part: str) -> None:
    with pytest.raises(SettingsError) as error:
        check(tmp_path, row(), bad)
    assert f"data.train_files={tmp_path}/rows.parquet: row 1" in str(error.value)
    assert part in str(error.value)


def test_missing_columns_and_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"extra_info\.problem_type, extra_info\.question"):
        check(tmp_path, row(), drop="extra_info")
    missing = OmegaConf.create(
        {"data": {"train_files": "no.parquet", "val_files": "no.parquet", "prompt_key": "prompt"}}
    )
    with pytest.raises(SettingsError, match=r"data\.train_files=no\.parquet: no such file"):
        check_data_files(missing)
