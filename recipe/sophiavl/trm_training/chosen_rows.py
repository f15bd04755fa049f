"""Chosen rows of large parquet files, with their images, in bounded memory: in the file's order, or in any order."""

from __future__ import annotations

import math
import pickle
import tempfile
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from recipe.sophiavl.trm_training.pairs import PairsError

_BATCH_ROWS = 64
_READ_BUFFER_BYTES = 2**20
# Rows that `in_order` holds at once, and the most temporary files that it has open.
_CHUNK_ROWS = 512
_MAX_CHUNKS = 400


def stream_rows(
    file: Path, numbers: Sequence[int], columns: Sequence[str] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows with these numbers (from 0, ascending), with their numbers; row groups without any are not read.

    Args:
        columns: read these only, where the file has them; None reads all.

    Raises:
        PairsError: the file can't be read.
    """
    try:
        # Without read-ahead and with a buffer: else Arrow holds what it has read, or whole columns of a row group.
        with pq.ParquetFile(file, pre_buffer=False, buffer_size=_READ_BUFFER_BYTES) as parquet:
            names = parquet.schema_arrow.names
            chosen = None if columns is None else [name for name in columns if name in names]
            start = 0
            for group in range(parquet.num_row_groups):
                end = start + parquet.metadata.row_group(group).num_rows
                inside = numbers[bisect_left(numbers, start) : bisect_left(numbers, end)]
                if inside:
                    batches = parquet.iter_batches(_BATCH_ROWS, row_groups=[group], columns=chosen)
                    yield from _rows_of(batches, start, inside)
                start = end
    except (OSError, pa.ArrowException) as error:
        raise PairsError(f"{file}: cannot be read as parquet: {error}") from error


def _rows_of(
    batches: Iterable[pa.RecordBatch], start: int, numbers: Sequence[int]
) -> Iterator[tuple[int, dict[str, Any]]]:
    for batch in batches:
        end = start + batch.num_rows
        inside = numbers[bisect_left(numbers, start) : bisect_left(numbers, end)]
        if inside:
            rows = batch.take(pa.array([number - start for number in inside], pa.int64())).to_pylist()
            yield from zip(inside, rows, strict=True)
        start = end
        if inside and inside[-1] == numbers[-1]:
            return


def in_order(
    placed: Iterable[tuple[Sequence[int], dict[str, Any]]], total: int, folder: Path
) -> Iterator[dict[str, Any]]:
    """Rows in the order of their places, though they come in another; a row with several places occurs several times.

    Every row goes into the temporary file of its stretch of places, and then one stretch at a time is read and sorted:
    memory holds one stretch (512 rows, or a 400th of all), the disk all rows once.

    Args:
        placed: the places of a row, and the row; all places together are 0 … total - 1, each once.
        folder: where the temporary files go; they are gone when the rows have been taken.
    """
    chunk = max(_CHUNK_ROWS, math.ceil(total / _MAX_CHUNKS))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".shuffle-", dir=folder) as temporary, ExitStack() as stack:
        files: list[BinaryIO] = [
            stack.enter_context((Path(temporary) / str(i)).open("w+b")) for i in range(math.ceil(total / chunk))
        ]
        counts = [0] * len(files)
        for places, row in placed:
            for place in places:
                pickle.dump((place, row), files[place // chunk], pickle.HIGHEST_PROTOCOL)
                counts[place // chunk] += 1
        for file, count in zip(files, counts, strict=True):
            file.seek(0)
            rows = sorted((pickle.load(file) for _ in range(count)), key=lambda item: item[0])
            yield from (row for _, row in rows)
            file.truncate(0)
