"""Data files that the rewards can't use are refused with file, row and field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import DictConfig, OmegaConf

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


def settings(train: Any, val: Any, **others: Any) -> DictConfig:
    data = {"train_files": train, "val_files": val, "prompt_key": "prompt", "train_batch_size": 1}
    return OmegaConf.create({"data": data | others})


def check(folder: Path, *rows: dict[str, Any], drop: str | None = None) -> None:
    table = pa.Table.from_pylist(list(rows), schema=RL_SCHEMA)
    file = folder / "rows.parquet"
    pq.write_table(table.drop_columns([drop]) if drop else table, file)
    check_data_files(settings(str(file), [str(file)]))


def test_good_rows_pass(tmp_path: Path) -> None:
    others = [
        row(problem_type=kind, answer=answer, options=())
        for kind, answer in [
            ("numerical", "3"),
            ("numerical", " <answer> 3 </answer>"),
            ("Numerical", "$3$"),
            ("numerical", "2\\sqrt{3} cm"),
            ("OCR", "#### <b> STOP"),
            ("free-form", "C#"),
        ]
    ]
    check(tmp_path, row(), *others)


@pytest.mark.parametrize(
    ("place", "message"), [("pages", "cannot be read as parquet"), ("footer", "not a parquet file")]
)
def test_a_damaged_file_is_named(tmp_path: Path, place: str, message: str) -> None:
    check(tmp_path, *[row(answer="A")] * 100)
    file = tmp_path / "rows.parquet"
    data = bytearray(file.read_bytes())
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    start, end = (4, footer) if place == "pages" else (footer, len(data) - 8)
    data[start:end] = bytes(end - start)
    file.write_bytes(data)
    with pytest.raises(SettingsError, match=rf"data\.train_files=.*rows\.parquet: {message}"):
        check_data_files(settings(str(file), str(file)))


@pytest.mark.parametrize(
    ("bad", "part"),
    [
        (row(problem_type="essay"), "extra_info.problem_type='essay'"),
        (row(answer=" "), "reward_model.ground_truth=' '"),
        (row(answer="E"), "'E'"),
        (row(problem_type="numerical", answer="$ $"), "ground_truth='$ $'"),
        (row(problem_type="OCR", answer="<answer></answer>"), "ground_truth='<answer></answer>'"),
        (row(problem_type="Numerical", answer="#### 5"), "give what stands behind ####"),
        (row(problem_type="free-form", answer="red</answer>"), "earns 0 and not 1"),
        (row(problem_type="numerical", answer="nan"), "earns 0 and not 1"),
    ],
    ids=[
        "unknown type",
        "empty truth",
        "truth that is no option",
        "empty mathematics",
        "empty tags",
        "the mark of GSM8K",
        "half a tag",
        "not a number",
    ],
)
def test_bad_rows_are_named(tmp_path: Path, bad: dict[str, Any], part: str) -> None:
    with pytest.raises(SettingsError) as error:
        check(tmp_path, row(), bad)
    assert f"data.train_files={tmp_path}/rows.parquet: row 1" in str(error.value)
    assert part in str(error.value)


def test_missing_columns_and_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"extra_info\.problem_type, extra_info\.question"):
        check(tmp_path, row(), drop="extra_info")
    with pytest.raises(SettingsError, match=r"data\.train_files=no\.parquet: no such file"):
        check_data_files(settings("no.parquet", "no.parquet"))


@pytest.mark.parametrize(
    ("train", "val", "key"), [(None, "a.parquet", "train"), ([], "a.parquet", "train"), ("a.parquet", None, "val")]
)
def test_files_that_nobody_gave_are_told_before_any_file_is_read(train: Any, val: Any, key: str) -> None:
    with pytest.raises(SettingsError, match=rf"data\.{key}_files: no file is given"):
        check_data_files(settings(train, val))


def shards(folder: Path, *sizes: int) -> list[str]:
    """Files of so many rows."""
    files = [folder / f"{number}.parquet" for number in range(len(sizes))]
    for file, size in zip(files, sizes, strict=True):
        pq.write_table(pa.Table.from_pylist([row()] * size, schema=RL_SCHEMA), file)
    return [str(file) for file in files]


@pytest.mark.parametrize(
    ("others", "says"),
    [
        ({"train_batch_size": 6}, r"data\.train_files=\[.*\]: 5 rows, and a batch takes 6 \(data\.train_batch_size\)"),
        ({"train_batch_size": 5, "train_max_samples": 4}, r"data\.train_max_samples=4: 4 rows, and a batch takes 5"),
        ({"train_batch_size": 5}, None),
        ({"train_batch_size": 8, "gen_batch_size": 1}, r"5 rows, and a batch takes 8"),
    ],
    ids=["fewer rows than a batch", "fewer by a limit", "as many as a batch", "generated one by one"],
)
def test_a_batch_needs_its_rows(tmp_path: Path, others: dict[str, int], says: str | None) -> None:
    files = shards(tmp_path, 2, 3)
    if says is None:
        return check_data_files(settings(files, files[0], **others))
    with pytest.raises(SettingsError, match=says):
        check_data_files(settings(files, files[0], **others))


def test_a_validation_without_rows_is_told(tmp_path: Path) -> None:
    train, val = shards(tmp_path, 1, 0)
    with pytest.raises(SettingsError, match=r"data\.val_files=.*1\.parquet: 0 rows, and validation needs one"):
        check_data_files(settings(train, val))
