"""What a GRPO run left: rollout dumps (``trainer.rollout_data_dir``, a JSON line for each response of a step), and the
rows of the RL parquet files that it was trained on, found again by what the dumps say of each response."""

from __future__ import annotations

import json
import logging
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from recipe.sophiavl.trm.questions import question_text
from recipe.sophiavl.trm_training.pairs import PairsError, count_pairs, image_bytes, question_digest, read_files

logger = logging.getLogger(__name__)

Key = tuple[str, str, int]
"""(data_source, split, index) of a question's row."""

_DATA_COLUMNS = ("data_source", "images", "reward_model", "extra_info")
# Those that the trainer adds to verl's.
_OWN_FIELDS = ("outcome_reward", "group", "data_source", "split", "index")


class Dumped(TypedDict):
    """What a dump line must hold; recipe/sophiavl/trainer.py writes it."""

    output: str
    gts: Any
    step: int
    outcome_reward: Annotated[float, Field(ge=0, le=1)]
    group: str
    data_source: str
    split: str
    index: int


_DUMPED = TypeAdapter(Dumped)


def dump_files(folder: Path) -> list[Path]:
    """The dumps of a run, by step; `folder` is the run's folder or its ``rollouts``.

    Raises:
        PairsError: there are none.
    """
    inside = folder / "rollouts" if (folder / "rollouts").is_dir() else folder
    files = sorted((file for file in inside.glob("*.jsonl") if file.stem.isdigit()), key=lambda file: int(file.stem))
    if not files:
        raise PairsError(f"{inside}: no rollout dumps (STEP.jsonl); train with trainer.rollout_data_dir set")
    return files


def read_dump(file: Path, *, newest: bool) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """The responses of a dump, each with file and line for messages, and the offset of its line in bytes.

    Lines that only fill verl's batch, and all outputs of a trajectory but its last, are passed over.

    Args:
        newest: the last dump of a run may end in a torn line where the run was killed; that line is left out.

    Raises:
        PairsError: a line is no JSON object, or a field is missing or has a value that it can't have.
    """
    offset = 0
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{file}:{number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                if newest and not line.endswith(b"\n"):
                    logger.warning("%s: torn line left out: the run was killed while it wrote", where)
                    return
                raise PairsError(f"{where}: no JSON: {error}") from error
            if not isinstance(row, dict):
                raise PairsError(f"{where}: no JSON object but {type(row).__name__}")
            if any(name not in row or row[name] is not None for name in _OWN_FIELDS):
                _check(row, where)
                yield where, offset, row
            offset += len(line)


def _check(row: Mapping[str, Any], where: str) -> None:
    missing = [name for name in Dumped.__annotations__ if row.get(name) is None]
    if missing:
        raise PairsError(
            f"{where}: lacks {', '.join(missing)}; dumps of older versions can't be joined with their data"
        )
    try:
        _DUMPED.validate_python(row, strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise PairsError(f"{where}, field {fault['loc'][0]}: {fault['input']!r}: {fault['msg']}") from error


class DataRows:
    """The rows of RL parquet files, numbered over all files; their keys and truths are held, their images are not.

    Raises:
        PairsError: no file, a file that can't be read or lacks a column or a field, or two rows with the same key.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.files = parquet_files(paths)
        self._starts = [0, *accumulate(map(count_pairs, self.files))][:-1]
        self._numbers: dict[Key, int] = {}
        self._truths: list[Any] = []
        light = [name for name in _DATA_COLUMNS if name != "images"]
        for number, _, row in read_files(self.files, "index", light, needs=_DATA_COLUMNS):
            self._add(number, row)

    def _add(self, number: int, row: Mapping[str, Any]) -> None:
        self._truths.append((row["reward_model"] or {}).get("ground_truth"))
        extra = row["extra_info"] or {}
        for name in ("split", "index", "question", "problem_type"):
            if extra.get(name) is None:
                raise PairsError(f"{self.where(number)}: extra_info.{name} is missing; give the RL parquet of the run")
        key = (str(row["data_source"]), str(extra["split"]), int(extra["index"]))
        if key in self._numbers:
            raise PairsError(
                f"{self.where(self._numbers[key])} and {self.where(number)} are both {key}; give only the files that "
                "the run was trained on"
            )
        self._numbers[key] = number

    def where(self, number: int) -> str:
        """File and row, for messages."""
        place = bisect_right(self._starts, number) - 1
        return f"{self.files[place]}, row {number - self._starts[place]}"

    def find(self, dumped: Mapping[str, Any], where: str) -> int:
        """Number of the row that a dumped response answers.

        Raises:
            PairsError: no file has the row, or its truth is not the one that was dumped.
        """
        key = (dumped["data_source"], dumped["split"], dumped["index"])
        number = self._numbers.get(key)
        if number is None:
            names = ", ".join(map(str, self.files))
            raise PairsError(
                f"{where}: (data_source, split, index) = {key} is in no row of {names}; give the files that the run "
                "was trained on"
            )
        truth = self._truths[number]
        if str(truth) != str(dumped["gts"]):
            raise PairsError(
                f"{where}: the ground truth is {dumped['gts']!r}, but {truth!r} in {self.where(number)}, which has "
                f"the same (data_source, split, index) = {key}: this is not the file that the run was trained on"
            )
        return number

    def stream(self, numbers: Sequence[int], label: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """The rows with these numbers (ascending), images included, with their numbers."""
        for number, _, row in read_files(self.files, label, _DATA_COLUMNS, numbers=numbers):
            yield number, row

    def question(self, number: int, row: Mapping[str, Any]) -> tuple[str, str, list[bytes]]:
        """Digest, text as the TRM is asked, and encoded images of a row.

        Raises:
            PairsError: an image has no bytes.
        """
        images = image_bytes(row, self.where(number))
        text = question_text(row["extra_info"])
        return question_digest(text, images), text, images


def parquet_files(paths: Sequence[Path]) -> list[Path]:
    """Files, and the parquet files in folders, sorted.

    Raises:
        PairsError: a path does not exist, or a folder holds no parquet file.
    """
    files: list[Path] = []
    for path in paths:
        found = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not found or not all(file.is_file() for file in found):
            raise PairsError(f"{path}: no parquet file there")
        files += found
    return files
