"""The rows that an evaluation asks about: everything but their texts and images, which are streamed when needed."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tqdm import tqdm

from recipe.sophiavl.trm.questions import digest_of
from recipe.sophiavl.trm_training.pairs import (
    PairsError,
    count_pairs,
    image_bytes,
    question_digest,
    read_pairs,
)

NEEDS = ("question", "images", "thinking", "score")
OPTIONAL = ("outcome", "group", "question_id", "pair_id")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """What is kept of a row. `images` is a digest of all its images, and `image_count` their number."""

    number: int
    pair_id: str | None
    question_id: str
    reference: float | None
    outcome: float | None
    group: str | None
    images: bytes
    image_count: int
    digest: bytes


@dataclass(frozen=True)
class EvaluationSet:
    """The chosen rows of a file, in its order.

    Attributes:
        file: the parquet file.
        total: rows in the file.
        columns: which of `OPTIONAL` the file has.
        rows: the chosen rows.
        question: number of each row's question, from 0, shape (rows,).
        reference: scores in [0, 1], NaN where the file has none, shape (rows,).
        outcome: outcome rewards in [0, 1], NaN where the file has none, shape (rows,).
    """

    file: Path
    total: int
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    question: npt.NDArray[np.intp]
    reference: Floats
    outcome: Floats

    @property
    def digest(self) -> str:
        """Digest of all rows: equal for evaluations of the same rows."""
        return digest_of(*(row.digest for row in self.rows)).hex()


def read_evaluation_set(file: Path, limit: int | None = None, seed: int = 0) -> EvaluationSet:
    """Check every row of `file`, and choose those to ask about.

    Args:
        limit: most rows; they are drawn by `seed`, whole questions at a time. None takes all.

    Raises:
        PairsError: the file cannot be used; the message names the row and the field.
    """
    read = []
    stream = tqdm(read_pairs(file, [*NEEDS, *OPTIONAL], NEEDS), desc="reading", unit="row", total=_total(file))
    names: tuple[str, ...] = ()
    try:
        for number, row in enumerate(stream):
            names = names or tuple(name for name in OPTIONAL if name in row)
            read.append(_read_row(file, number, row))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise PairsError(f"{file}: cannot be read on after row {len(read) - 1}: {error}") from error
    if not read:
        raise PairsError(f"{file}: holds no rows")
    rows = read if limit is None or limit >= len(read) else _draw(read, limit, seed)
    _, question = np.unique([row.question_id for row in rows], return_inverse=True)
    return EvaluationSet(
        file=file,
        total=len(read),
        columns=names,
        rows=tuple(rows),
        question=question.astype(np.intp),
        reference=_floats([row.reference for row in rows]),
        outcome=_floats([row.outcome for row in rows]),
    )


def stream_rows(file: Path, numbers: Collection[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows with these numbers, in the file's order, with texts and images; a few hundred in memory at a time."""
    wanted = frozenset(numbers)
    last = max(wanted, default=-1)
    for number, row in enumerate(read_pairs(file, [*NEEDS, *OPTIONAL], NEEDS)):
        if number in wanted:
            yield number, row
        if number >= last:
            return


def _total(file: Path) -> int | None:
    try:
        return count_pairs(file)
    except (OSError, ValueError):
        return None  # no parquet file: reading it says so, and how


def _read_row(file: Path, number: int, row: Mapping[str, Any]) -> Row:
    def fail(field: str, what: str) -> PairsError:
        return PairsError(f"{file}, row {number}, field {field}: {what}")

    def number_of(field: str) -> float | None:
        value = row.get(field)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise fail(field, f"{value!r} is no number in [0, 1]")
        return float(value)

    for field in ("question", "thinking"):
        if not isinstance(row[field], str):
            raise fail(field, f"must be text, not {type(row[field]).__name__}")
    try:
        images = image_bytes(row)
    except (PairsError, TypeError, KeyError) as error:
        raise fail("images", f"each must be a struct of bytes and path, with bytes embedded ({error})") from error
    question_id = row.get("question_id") or question_digest(row["question"], images)
    reference = number_of("score")
    content = (str(question_id).encode(), row["thinking"].encode("utf-8", "surrogatepass"), repr(reference).encode())
    return Row(
        number=number,
        pair_id=None if row.get("pair_id") is None else str(row["pair_id"]),
        question_id=str(question_id),
        reference=reference,
        outcome=number_of("outcome"),
        group=None if row.get("group") is None else str(row["group"]),
        images=digest_of(*images),
        image_count=len(images),
        digest=digest_of(*content),
    )


def _draw(rows: list[Row], limit: int, seed: int) -> list[Row]:
    """`limit` rows: all of one question, all of another … in the file's order; the last question may be cut."""
    by_question = sorted(rows, key=lambda row: (row.question_id, row.number))
    questions = [list(members) for _, members in groupby(by_question, key=lambda row: row.question_id)]
    random.Random(seed).shuffle(questions)
    drawn = [row for members in questions for row in members][:limit]
    return sorted(drawn, key=lambda row: row.number)


def _floats(values: list[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
