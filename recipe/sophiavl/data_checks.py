"""Checks of the data files before Ray or any model starts: every row must be one that the rewards can score."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import DictConfig

from data_preprocess.core.checks import RESULT_MARK
from data_preprocess.core.errors import SourceError
from data_preprocess.core.parquet import read_rows
from recipe.sophiavl.data_files import listed
from recipe.sophiavl.validation import SettingsError
from reward_score import PROBLEM_TYPES, score_outcome

_TRUTH = "reward_model.ground_truth"
_STRING_FIELDS = ("data_source", _TRUTH, "extra_info.problem_type", "extra_info.question")
_KNOWN_TYPES = {name.lower() for name in PROBLEM_TYPES}
_FULL_REWARD = 1 - 1e-9


def check_data_files(config: DictConfig) -> None:
    """Check that every training and validation file has what the rewards need, and that every truth can be met.

    Each row's truth, as the answer of a well-formed response, must earn the whole outcome reward.

    Raises:
        SettingsError: no file is given, a file is missing or unreadable, a column is missing, a problem type is
            unknown, no response to a row could be right, or there are fewer rows than needed; the message names the
            setting, the file, the row and the field.
    """
    data = config.data
    needed = {"train": max(data.train_batch_size, data.get("gen_batch_size") or 1), "val": 1}
    for key in needed:
        if not listed(data[f"{key}_files"]):
            raise SettingsError(
                f"data.{key}_files: no file is given. Give a parquet file, a pattern in quotes or a list of files; the "
                "scripts in data_preprocess/ make them"
            )
    for key, least in needed.items():
        files = [Path(file).expanduser() for file in listed(data[f"{key}_files"])]
        rows = sum(_check_file(f"data.{key}_files", file, data) for file in files)
        limit = data.get(f"{key}_max_samples", -1)
        used = min(rows, limit) if limit > 0 else rows
        if used < least:
            why = f"data.{key}_max_samples={limit}" if used < rows else f"data.{key}_files={data[f'{key}_files']}"
            wanted = f"a batch takes {least} (data.train_batch_size)" if key == "train" else "validation needs one"
            raise SettingsError(f"{why}: {used} rows, and {wanted}")


def _check_file(key: str, file: Path, data: DictConfig) -> int:
    """Returns the number of rows."""
    where = f"{key}={file}"
    if not file.is_file():
        raise SettingsError(f"{where}: no such file. Make it with one of the scripts in data_preprocess/")
    try:
        schema = pq.read_schema(file)
    except (OSError, pa.ArrowException) as error:  # OSError: a damaged footer
        raise SettingsError(f"{where}: not a parquet file ({error})") from error
    if missing := missing_fields(schema, data.prompt_key):
        raise SettingsError(
            f"{where}: the columns {', '.join(missing)} are missing (it has {', '.join(schema.names)}). "
            "data_preprocess/ writes files with all of them; data.prompt_key names the prompt column"
        )
    rows = 0
    try:
        for number, row in enumerate(read_rows(file, ["extra_info", "reward_model"])):
            info = row["extra_info"] or {}
            truth = (row["reward_model"] or {}).get("ground_truth")
            try:
                check_row(info.get("problem_type"), truth, info.get("options") or ())
            except ValueError as error:
                raise SettingsError(f"{where}: row {number}: {error}") from error
            rows += 1
    except SourceError as error:
        raise SettingsError(f"{key}={error}") from error
    return rows


def missing_fields(schema: pa.Schema, prompt_key: str = "prompt") -> list[str]:
    """The fields that the rewards need and a file of this schema lacks."""
    return [field for field in (prompt_key, *_STRING_FIELDS) if not _has_field(schema, field.split("."))]


def check_row(problem_type: Any, truth: Any, options: Sequence[str]) -> None:
    """Raises ValueError, with the field, if no response to this row could earn the whole outcome reward."""
    if not isinstance(problem_type, str) or problem_type.strip().lower() not in _KNOWN_TYPES:
        raise ValueError(f"extra_info.problem_type={problem_type!r}; known are {', '.join(PROBLEM_TYPES)}")
    if not isinstance(truth, str) or not truth.strip():
        raise ValueError(f"{_TRUTH}={truth!r}; it must be a text")
    if problem_type.strip().lower() == "numerical" and RESULT_MARK in truth:
        raise ValueError(f"{_TRUTH}={truth!r} is compared whole: give what stands behind {RESULT_MARK}")
    reward = _own_reward(problem_type, truth, tuple(options))
    if reward < _FULL_REWARD:
        raise ValueError(f"{_TRUTH}={truth!r}, given as the answer itself, earns {reward:.3g} and not 1")


@lru_cache(2**16)  # most truths of a data set are those of other rows too
def _own_reward(problem_type: str, truth: str, options: tuple[str, ...]) -> float:
    """The outcome reward of a well-formed response that gives the truth itself."""
    tagged = truth if truth.lstrip().startswith("<answer>") else f"<answer>{truth}</answer>"
    return score_outcome(problem_type, f"<think>.</think>{tagged}", truth, options).reward


def _has_field(schema: pa.Schema | pa.StructType, path: list[str]) -> bool:
    head, *rest = path
    index = schema.get_field_index(head)
    if index < 0:
        return False
    kind = schema.field(index).type
    return not rest or (pa.types.is_struct(kind) and _has_field(kind, rest))
