"""The rollout dumps of a run, one step's file at a time, as columns; texts stay in the file, found again by offset."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from recipe.sophiavl.report.problems import Problems, excerpt
from recipe.sophiavl.report.texts import readable

Floats = npt.NDArray[np.float64]
Row = dict[str, Any]

_NUMBERS = ("outcome_reward", "thinking_reward", "gamma", "mu_correct", "mu_wrong")  # all in [0, 1]
_FLAGS = ("format_ok", "thinking_asked", "thinking_used")
_OWN = (*_NUMBERS, *_FLAGS, "thinking_error", "group", "data_source", "split", "index", "problem_type")


@dataclass(frozen=True)
class StepDump:
    """The responses of a training step; arrays of length B >= 1 in the order of the file.

    Attributes:
        offsets: where each response's line begins in the file, in bytes.
        group: number of each response's group, from 0.
        names: of the groups, length G.
        questions: a digest of each group's question, uint64 of shape (G,): equal for the same row of the data.
        numbers: ``outcome_reward``, ``thinking_reward``, ``gamma``, ``mu_correct``, ``mu_wrong``; in [0, 1], NaN: none.
        flags: ``format_ok``, ``thinking_asked``, ``thinking_used``; 1, 0, NaN: unknown.
        types: answer types, lower case; "" where unknown.
        errors: why a score is missing, as the client told; "" = none.
    """

    step: int
    file: Path
    offsets: npt.NDArray[np.int64]
    group: npt.NDArray[np.intp]
    names: Sequence[str]
    questions: npt.NDArray[np.uint64]
    numbers: dict[str, Floats]
    flags: dict[str, Floats]
    types: Sequence[str]
    errors: Sequence[str]

    @property
    def asked(self) -> npt.NDArray[np.bool_]:
        """Responses that the TRM was asked about; where the dump does not say, those that have a score."""
        known = self.flags["thinking_asked"]
        scored = np.isfinite(self.numbers["thinking_reward"]) & (self.flags["format_ok"] != 0)
        return np.where(np.isnan(known), scored, known == 1).astype(bool)

    @property
    def used(self) -> npt.NDArray[np.bool_]:
        """Responses with a thinking term in their reward; where the dump does not say, those that have a score."""
        known = self.flags["thinking_used"]
        return np.where(np.isnan(known), np.isfinite(self.numbers["thinking_reward"]), known == 1).astype(bool)


def dump_files(folder: Path) -> dict[int, Path]:
    """The file of each step, by step."""
    found = {int(file.stem): file for file in folder.glob("*.jsonl") if file.stem.isascii() and file.stem.isdigit()}
    return dict(sorted(found.items()))


def decode(line: bytes) -> Any:
    """A line of JSON; NaN and Infinity, which Python writes, and halves of surrogate pairs (`readable`) are read too.

    Raises:
        ValueError: not JSON.
    """
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        try:
            return _mended(json.loads(line))
        except RecursionError as error:
            raise ValueError("nested too deeply") from error


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, list):
        return [_mended(inner) for inner in value]
    if isinstance(value, dict):
        return {readable(key): _mended(inner) for key, inner in value.items()}
    return value


def read_rows(file: Path, problems: Problems) -> Iterator[tuple[int, int, Row]]:
    """The objects of a JSON-lines file, each with its line's number, from 1, and its offset in bytes.

    What is no object is told and passed over; so is a last line without an end: it is being written, or the run was
    killed while it was.
    """
    offset = 0
    name = f"{file.parent.name}/{file.name}"
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    problems.add("A last line is half written and left out", f"{name}, line {number}")
                    return
                try:
                    row = decode(line)
                except ValueError as error:
                    problems.add("A line is no JSON and left out", f"{name}, line {number}: {error}")
                else:
                    if isinstance(row, dict):
                        yield number, offset, row
                    else:
                        problems.add("A line is no JSON object and left out", f"{name}, line {number}: {excerpt(row)}")
                offset += len(line)
    except OSError as error:
        problems.add("A file can't be read", f"{name}: {error.strerror}")


def read_step(step: int, file: Path, problems: Problems) -> StepDump | None:
    """A step's dump; None where it holds no response.

    Lines that only fill verl's batch, and all outputs of a trajectory but its last, are passed over.
    """
    rows, places, lines = [], [], []
    for number, offset, row in read_rows(file, problems):
        if row.get("outcome_reward") is None and "group" in row and row["group"] is None:
            continue
        row["question"] = _question(row)
        for text in ("input", "output"):
            row.pop(text, None)
        rows.append(row)
        places.append(offset)
        lines.append(number)
    if not rows:
        return None
    name = f"{file.parent.name}/{file.name}"
    for field in _OWN:
        if field not in rows[0]:
            problems.add(f"The dumps of an older version hold no {field}", name)
    codes: dict[str, int] = {}
    group = np.array([codes.setdefault(_group(row), len(codes)) for row in rows], dtype=np.intp)
    questions = np.zeros(len(codes), dtype=np.uint64)
    questions[group] = [row["question"] for row in rows]

    def column(field: str) -> list[Any]:
        return [row.get(field) for row in rows]

    return StepDump(
        step=step,
        file=file,
        offsets=np.array(places, dtype=np.int64),
        group=group,
        names=list(codes),
        questions=questions,
        numbers={field: _numbers(column(field), field, name, lines, problems) for field in _NUMBERS},
        flags={field: _truths(column(field), field, name, lines, problems) for field in _FLAGS},
        types=[value.strip().lower() if isinstance(value, str) else "" for value in column("problem_type")],
        errors=[value if isinstance(value, str) else "" for value in column("thinking_error")],
    )


def group_name(row: Row) -> str:
    """The group of a dumped response. Older dumps tell it as a part of verl's id of the response."""
    name = row.get("group")
    return str(name) if name is not None else str(row.get("uid", row.get("index"))).rsplit("_", 2)[0]


_group = group_name


def _question(row: Row) -> int:
    parts = [row.get(name) for name in ("data_source", "split", "index")]
    text = repr(parts if parts[2] is not None else row.get("input"))
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _numbers(values: list[Any], field: str, name: str, lines: Sequence[int], problems: Problems) -> Floats:
    """Numbers in [0, 1]; NaN for None and, which is told, for anything else."""
    if set(map(type, values)) <= {float, type(None)}:
        array = np.array(values, dtype=np.float64)
    else:
        array = np.array([number(value) for value in values])
    with np.errstate(invalid="ignore"):
        inside = (array >= 0) & (array <= 1)
    for place in np.flatnonzero(~inside):
        if values[place] is not None:
            told = f"{name}, line {lines[place]}: {excerpt(values[place])}"
            problems.add(f"{field} is no number from 0 to 1 and left out", told)
    return np.where(inside, array, np.nan)


def number(value: Any) -> float:
    """A number as a float; NaN for anything else, text and booleans included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return np.nan
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return np.nan


def _truths(values: list[Any], field: str, name: str, lines: Sequence[int], problems: Problems) -> Floats:
    """1 and 0; NaN for None and, which is told, for anything else."""
    array = np.array([1.0 if value is True else 0.0 if value is False else np.nan for value in values])
    for place in np.flatnonzero(np.isnan(array)):
        if values[place] is not None:
            told = f"{name}, line {lines[place]}: {excerpt(values[place])}"
            problems.add(f"{field} is neither true nor false and left out", told)
    return array
