"""The rows that an evaluation asks about: everything but their texts and images, which are streamed when needed."""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from networkx.utils import UnionFind
from tqdm import tqdm

from data_preprocess.core.errors import RowError
from data_preprocess.core.images import pixel_digest
from data_preprocess.core.splits import leak_keys
from recipe.sophiavl.trm.questions import digest_of
from recipe.sophiavl.trm_training.evaluate.statistics import Floats, Rows
from recipe.sophiavl.trm_training.pairs import PairsError, count_pairs, image_bytes, question_digest, read_pairs
from reward_score.format import parse_response

NEEDS = ("question", "images", "thinking", "score")
OPTIONAL = ("outcome", "group", "question_id", "pair_id", "response")


@dataclass(frozen=True)
class Row:
    """What is kept of a row.

    Attributes:
        answer: what its response answers, without differences of case and spacing; None where that is not known.
        keys: what ties it to other rows: a digest of each image's pixels, or, of a text-only row, of its question.
        image_count: number of its images.
    """

    number: int
    pair_id: str | None
    question_id: str
    reference: float | None
    outcome: float | None
    group: str | None
    answer: str | None
    keys: tuple[bytes, ...]
    image_count: int
    digest: bytes

    @property
    def images(self) -> tuple[bytes, ...]:
        """Digests of its different images."""
        return self.keys if self.image_count else ()


@dataclass(frozen=True)
class EvaluationSet:
    """The chosen rows of a file, in its order.

    Attributes:
        file: the parquet file.
        total: rows in the file.
        columns: which of `OPTIONAL` the file has.
        rows: the chosen rows.
        cluster: number of each row's set of tied images, from 0, shape (rows,): rows that share an image or a question
            are in one, and so are rows that share one with a third.
        reference: scores in [0, 1], NaN where the file has none, shape (rows,).
        outcome: outcome rewards in [0, 1], NaN where the file has none, shape (rows,).
    """

    file: Path
    total: int
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    cluster: Rows
    reference: Floats
    outcome: Floats

    @classmethod
    def of(cls, file: Path, total: int, columns: Sequence[str], rows: Sequence[Row]) -> EvaluationSet:
        """The set of these rows, with what is computed from them."""
        return cls(
            file=file,
            total=total,
            columns=tuple(columns),
            rows=tuple(rows),
            cluster=tied([(row.question_id, *row.keys) for row in rows]),
            reference=_floats([row.reference for row in rows]),
            outcome=_floats([row.outcome for row in rows]),
        )

    @property
    def digest(self) -> str:
        """Digest of all rows: equal for evaluations of the same rows."""
        return digest_of(*(row.digest for row in self.rows)).hex()

    def counts(self, rows: Rows) -> dict[str, int]:
        """How many questions and images these rows are about."""
        chosen = [self.rows[row] for row in np.unique(rows)]
        return {
            "questions": len({row.question_id for row in chosen}),
            "images": len({image for row in chosen for image in row.images}),
        }


def tied(keys: Sequence[Sequence[Hashable]]) -> Rows:
    """Number of each row's connected component, from 0: rows with a key in common are tied, transitively."""
    components = UnionFind()
    for mine in keys:
        components.union(*mine)
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(components[mine[0]], len(numbers)) for mine in keys], dtype=np.intp)


def tying_keys(question: str, images: Sequence[bytes], known: dict[bytes, bytes]) -> tuple[bytes, ...]:
    """Digests of the pixels of the images, in any encoding, or, without images, of the question.

    Args:
        known: pixel digests by the digest of a file, which takes new ones; a file that does not decode keeps its own.
    """
    digests = []
    for data in images:
        key = digest_of(data)
        if key not in known:
            try:
                known[key] = pixel_digest(data)
            except RowError:
                known[key] = key
        digests.append(known[key])
    return tuple(leak_keys(question, digests))


def read_evaluation_set(file: Path, limit: int | None = None, seed: int = 0) -> EvaluationSet:
    """Check every row of `file`, and choose those to ask about.

    Args:
        limit: most rows; they are drawn by `seed`, whole questions at a time. None takes all.

    Raises:
        PairsError: the file cannot be used; the message names the row and the field.
    """
    read: list[Row] = []
    columns: list[str] = []
    known: dict[bytes, bytes] = {}
    stream = read_pairs(file, [*NEEDS, *OPTIONAL], NEEDS)
    try:
        for number, row in enumerate(tqdm(stream, desc="reading", unit="row", total=count_pairs(file))):
            columns = columns or [name for name in OPTIONAL if name in row]
            read.append(_read_row(file, number, row, known))
    except UnicodeDecodeError as error:
        raise PairsError(f"{file}: cannot be read on after row {len(read) - 1}: {error}") from error
    if not read:
        raise PairsError(f"{file}: holds no rows")
    rows = read if limit is None or limit >= len(read) else _draw(read, limit, seed)
    return EvaluationSet.of(file, len(read), columns, rows)


def stream_rows(
    file: Path, numbers: Sequence[int], columns: Sequence[str] = (*NEEDS, *OPTIONAL)
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows with these numbers, ascending, with their numbers, texts and images; a few in memory at a time."""
    yield from zip(numbers, read_pairs(file, columns, numbers=numbers), strict=True)


def _read_row(file: Path, number: int, row: Mapping[str, Any], known: dict[bytes, bytes]) -> Row:
    def fail(field: str, what: object) -> PairsError:
        return PairsError(f"{file}, row {number}, field {field}: {what}")

    def number_of(field: str) -> float | None:
        value = row.get(field)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise fail(field, f"{value!r} is no number in [0, 1]")
        return float(value)

    def text_of(field: str) -> str | None:
        return None if row.get(field) is None else str(row[field])

    for field in ("question", "thinking"):
        if not isinstance(row[field], str):
            raise fail(field, f"must be text, not {type(row[field]).__name__}")
    try:
        images = image_bytes(row)
    except (PairsError, TypeError, KeyError) as error:
        raise fail("images", f"each must be a struct of bytes and path, with bytes embedded ({error})") from error
    question_id = text_of("question_id") or question_digest(row["question"], images)
    response = parse_response(text_of("response") or "")
    reference = number_of("score")
    content = (question_id.encode(), row["thinking"].encode("utf-8", "surrogatepass"), repr(reference).encode())
    return Row(
        number=number,
        pair_id=text_of("pair_id"),
        question_id=question_id,
        reference=reference,
        outcome=number_of("outcome"),
        group=text_of("group"),
        answer=" ".join(response.answer.casefold().split()) if response else None,
        keys=tying_keys(row["question"], images, known),
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
