"""Rows of parquet files of any size, a batch of them in memory at a time."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_preprocess.core.errors import SourceError

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""An encoded image in a row: its file's content; a path only where that is null."""
_BATCH_ROWS = 64
_READ_BUFFER_BYTES = 2**20


def read_rows(
    path: Path, columns: Sequence[str] | None = None, numbers: Sequence[int] | None = None
) -> Iterator[dict[str, Any]]:
    """Rows of a parquet file in its order; memory does not grow with their number.

    Args:
        columns: read these only, where the file has them; None reads all.
        numbers: the rows with these numbers only (from 0, ascending); row groups without any are not read.

    Raises:
        SourceError: not a readable parquet file.
    """
    try:
        # Without read-ahead and with a buffer: else Arrow holds what it has read, or whole columns of a row group.
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=_READ_BUFFER_BYTES) as parquet:
            names = parquet.schema_arrow.names
            chosen = None if columns is None else [name for name in columns if name in names]
            wanted = range(parquet.metadata.num_rows) if numbers is None else numbers
            start = 0
            for group in range(parquet.num_row_groups):
                end = start + parquet.metadata.row_group(group).num_rows
                inside = wanted[bisect_left(wanted, start) : bisect_left(wanted, end)]
                if inside:
                    batches = parquet.iter_batches(_BATCH_ROWS, row_groups=[group], columns=chosen, use_threads=False)
                    yield from _rows_of(batches, start, inside)
                start = end
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{path}: cannot be read as parquet: {error}") from error


def _rows_of(batches: Iterator[pa.RecordBatch], start: int, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
    for batch in batches:
        end = start + batch.num_rows
        inside = numbers[bisect_left(numbers, start) : bisect_left(numbers, end)]
        if inside:
            yield from batch.take(pa.array([number - start for number in inside], pa.int64())).to_pylist()
        if end > numbers[-1]:
            return
        start = end
