"""Checks of the data files before Ray or any model starts: every row must be one that the rewards can score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import DictConfig, ListConfig

from recipe.sophiavl.validation import SettingsError
from reward_score import PROBLEM_TYPES, score_outcome

_STRING_FIELDS = ("data_source", "reward_model.ground_truth", "extra_info.problem_type", "extra_info.question")


def check_data_files(config: DictConfig) -> None:
    """Check that every training and validation file has the columns and the problem types that the rewards need.

    Raises:
        SettingsError: a file is missing or unreadable, a column is missing, or a problem type is unknown; the message
            names the setting, the file, and the row.
    """
    for key in ("train_files", "val_files"):
        files = config.data[key]
        for file in files if isinstance(files, list | ListConfig) else [files]:
            _check_file(f"data.{key}", Path(str(file)).expanduser(), config.data)


def _check_file(key: str, file: Path, data: DictConfig) -> None:
    where = f"{key}={file}"
    if not file.is_file():
        raise SettingsError(f"{where}: no such file. Make it with one of the scripts in data_preprocess/")
    try:
        schema = pq.read_schema(file)
    except pa.ArrowInvalid as error:
        raise SettingsError(f"{where}: not a parquet file ({error})") from error
    missing = [field for field in (data.prompt_key, *_STRING_FIELDS) if not _has_field(schema, field.split("."))]
    if missing:
        raise SettingsError(
            f"{where}: the columns {', '.join(missing)} are missing (it has {', '.join(schema.names)}). "
            "data_preprocess/ writes files with all of them; data.prompt_key names the prompt column"
        )
    fields = ["extra_info.problem_type", "reward_model.ground_truth"]
    if _has_field(schema, ["extra_info", "options"]):
        fields.append("extra_info.options")
    for row, (problem_type, truth, *options) in enumerate(_rows(file, *fields)):
        try:
            _check_row(problem_type, truth, *options)
        except ValueError as error:
            raise SettingsError(f"{where}: row {row}: {error}") from error


def _check_row(problem_type: str | None, truth: str | None, options: Sequence[str] | None = None) -> None:
    """Raises ValueError if the outcome reward could not score any response to this row."""
    if problem_type is None or problem_type.strip().lower() not in _KNOWN_TYPES:
        raise ValueError(f"extra_info.problem_type={problem_type!r}; known are {', '.join(PROBLEM_TYPES)}")
    if not isinstance(truth, str) or not truth.strip():
        raise ValueError(f"reward_model.ground_truth={truth!r}; it must be a text")
    if problem_type.strip().lower() == "multiple choice":  # the truth must be one of the options
        score_outcome(problem_type, "<think>.</think><answer>.</answer>", truth, options)


_KNOWN_TYPES = {name.lower() for name in PROBLEM_TYPES}


def _rows(file: Path, *fields: str) -> Iterator[tuple[Any, ...]]:
    """The values of nested fields (``struct.name``), row by row, without reading the images beside them."""
    for batch in pq.ParquetFile(file).iter_batches(columns=list(fields)):
        columns = [batch.column(struct).field(name) for struct, name in (field.split(".") for field in fields)]
        yield from zip(*(column.to_pylist() for column in columns), strict=True)


def _has_field(schema: pa.Schema | pa.StructType, path: list[str]) -> bool:
    head, *rest = path
    index = schema.get_field_index(head)
    if index < 0:
        return False
    kind = schema.field(index).type
    return not rest or (pa.types.is_struct(kind) and _has_field(kind, rest))
