"""The rows that the thinking reward model's own data pipeline works on: a question, a response, and what it is worth.

Every stage (collect, annotate, balance, train, evaluate) reads and writes parquet files of `PAIR_SCHEMA`; what a stage
does not know yet is null. Training needs the columns of `data_preprocess.schema.THINKING_SCHEMA` alone, so that
the published 156k set and a set of your own are trained on alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from data_preprocess.core.errors import SourceError
from data_preprocess.core.files import replacing
from data_preprocess.core.parquet import IMAGE, read_rows
from recipe.sophiavl.trm.questions import digest_of

PAIR_SCHEMA = pa.schema(
    [
        # digest of question, images and thinking: equal pairs have equal ids
        ("pair_id", pa.string()),
        # digest of question and images: what splits and bootstraps keep together
        ("question_id", pa.string()),
        ("data_source", pa.string()),
        # as the TRM is asked: the question, then its options, one a line
        ("question", pa.string()),
        ("images", pa.list_(IMAGE)),
        ("problem_type", pa.string()),
        ("response", pa.string()),
        # the text inside <think>
        ("thinking", pa.string()),
        # outcome reward in [0, 1]
        ("outcome", pa.float64()),
        # GRPO group: "{step}/{uid}"; the responses of one question at one step
        ("group", pa.string()),
        ("step", pa.int64()),
        ("split", pa.string()),
        # of the question in its RL parquet
        ("index", pa.int64()),
        # the judge's score in [0, 1], a mean over its samples; null until annotated, or where it gave none
        ("score", pa.float64()),
        # largest minus smallest score over the judge's samples; 0 for one sample
        ("spread", pa.float64()),
        # scores that the judge gave
        ("samples", pa.int64()),
        # the judge's first reply that held a score
        ("reply", pa.string()),
    ]
)
LIGHT_COLUMNS = tuple(name for name in PAIR_SCHEMA.names if name != "images")
"""All columns but the images, which are most of a file."""

_BATCH_ROWS = 256


class PairsError(ValueError):
    """A file of pairs that cannot be used; the message names it and says what is wrong."""


def question_digest(question: str, images: Sequence[bytes]) -> str:
    """`question_id`: hexadecimal digest of the question's text and its encoded images."""
    return digest_of(question.encode("utf-8", "surrogatepass"), *images).hex()


def pair_digest(question_id: str, thinking: str) -> str:
    """`pair_id`: hexadecimal digest of a question and one reasoning about it."""
    return digest_of(question_id.encode(), thinking.encode("utf-8", "surrogatepass")).hex()


def read_pairs(
    file: Path, columns: Sequence[str] | None = None, needs: Sequence[str] = (), numbers: Sequence[int] | None = None
) -> Iterator[dict[str, Any]]:
    """Stream the rows of a parquet file; memory does not grow with their number.

    Args:
        columns: read these only; None reads all.
        needs: columns that the file must have.
        numbers: the rows with these numbers only (from 0, ascending); None reads all.

    Raises:
        PairsError: the file is missing, no parquet file, or lacks one of `needs`.
    """
    names = _footer(file).schema.to_arrow_schema().names
    missing = [name for name in needs if name not in names]
    if missing:
        raise PairsError(f"{file}: lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}")
    try:
        yield from read_rows(file, columns, numbers)
    except SourceError as error:
        raise PairsError(str(error)) from error


def read_files(
    files: Sequence[Path],
    label: str,
    columns: Sequence[str] | None = None,
    needs: Sequence[str] = (),
    numbers: Sequence[int] | None = None,
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Stream the rows of several files, numbered over all of them, with file and row for messages.

    Args:
        label: what the progress bars call it.
        columns, needs, numbers: as for `read_pairs`; `numbers` over all files.

    Raises:
        PairsError: see `read_pairs`.
    """
    start = 0
    for file in files:
        end = start + count_pairs(file)
        inside = range(end - start) if numbers is None else [n - start for n in numbers if start <= n < end]
        rows = tqdm(read_pairs(file, columns, needs, inside), f"{label} {file.name}", len(inside), unit="row")
        for number, row in zip(inside, rows, strict=True):
            yield start + number, f"{file}, row {number}", row
        start = end


def count_pairs(file: Path) -> int:
    """Number of rows of a parquet file, from its footer.

    Raises:
        PairsError: the file is missing or no parquet file.
    """
    return _footer(file).num_rows


def _footer(file: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(file)
    except (OSError, pa.ArrowException) as error:
        raise PairsError(f"{file}: cannot be read as parquet: {error}") from error


def write_pairs(file: Path, rows: Iterable[Mapping[str, Any]], schema: pa.Schema = PAIR_SCHEMA) -> int:
    """Write rows as parquet, streaming; the file appears whole or not at all. Returns the number of rows."""
    file.parent.mkdir(parents=True, exist_ok=True)
    left = iter(rows)
    written = 0
    with replacing(file) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        while batch := list(islice(left, _BATCH_ROWS)):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))
            written += len(batch)
    return written


def image_bytes(row: Mapping[str, Any], where: str = "") -> list[bytes]:
    """The encoded images of a row.

    Args:
        where: file and row, for the message.

    Raises:
        PairsError: an image has no bytes.
    """
    images = [(image or {}).get("bytes") for image in row.get("images") or ()]
    if not all(images):
        start = f"{where}, field images: " if where else ""
        raise PairsError(f"{start}an image without bytes; preprocess with images embedded")
    return images
