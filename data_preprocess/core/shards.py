"""From parts to the output: every row on its side, in parquet shards of bounded rows and bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from data_preprocess.core.files import replacing
from data_preprocess.core.parts import DATA_SOURCE, FIXED_SPLIT, KEYS, KIND, Part, read_batches
from data_preprocess.core.splits import SplitAssigner
from data_preprocess.schema import with_split

SHARD_PATTERN = "*-[0-9][0-9][0-9][0-9][0-9].parquet"
_ROW_GROUP_ROWS = 1000
_ROW_GROUP_BYTES = 32 * 2**20
_IMAGE_BYTES = "images.list.element.bytes"


@dataclass(frozen=True)
class Shard:
    """One parquet file of the output; `bytes` is its size on disk."""

    file: str
    split: str
    rows: int
    bytes: int


class ShardWriter:
    """Writes the rows of one side into ``SPLIT-00000.parquet``, ``SPLIT-00001.parquet`` ...

    A shard holds at most `max_rows` rows and `max_bytes` bytes of Arrow data (a single larger row has a shard of its
    own). A shard appears under its name only when it is complete.
    """

    def __init__(self, folder: Path, split: str, schema: pa.Schema, *, max_rows: int, max_bytes: int) -> None:
        self.shards: list[Shard] = []
        self._folder, self._split, self._schema = folder, split, schema
        self._max_rows, self._max_bytes = max_rows, max_bytes
        self._open: _OpenShard | None = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._close()
        elif self._open is not None:
            self._open.resources.__exit__(kind, error, trace)

    def add(self, batch: pa.RecordBatch) -> None:
        """Append rows, starting new shards as the limits demand."""
        if batch.num_rows == 0:
            return
        if batch.nbytes > self._max_bytes and batch.num_rows > 1:
            half = batch.num_rows // 2
            self.add(batch.slice(0, half))
            self.add(batch.slice(half))
            return
        if self._open is not None and self._open.bytes + batch.nbytes > self._max_bytes:
            self._close()
        if self._open is None:
            path = self._folder / f"{self._split}-{len(self.shards):05d}.parquet"
            self._open = _OpenShard(path, self._schema)
        room = self._max_rows - self._open.rows
        self._open.add(batch.slice(0, room))
        if self._open.rows == self._max_rows:
            self._close()
        self.add(batch.slice(room))

    def _close(self) -> None:
        if self._open is not None:
            path, rows = self._open.path, self._open.rows
            self._open.finish()
            self.shards.append(Shard(path.name, self._split, rows, path.stat().st_size))
            self._open = None


class _OpenShard:
    """A parquet file being written, one row group at a time."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self.rows = self.bytes = 0
        self._schema = schema
        self._group: list[pa.RecordBatch] = []
        self._group_rows = self._group_bytes = 0
        # Left with an error, the file never gets its name.
        self.resources = ExitStack()
        temporary = self.resources.enter_context(replacing(path))
        self._writer = self.resources.enter_context(pq.ParquetWriter(temporary, schema, **_parquet_options(schema)))

    def add(self, batch: pa.RecordBatch) -> None:
        self._group.append(batch)
        self._group_rows += batch.num_rows
        self._group_bytes += batch.nbytes
        self.rows += batch.num_rows
        self.bytes += batch.nbytes
        if self._group_rows >= _ROW_GROUP_ROWS or self._group_bytes >= _ROW_GROUP_BYTES:
            self._flush()

    def finish(self) -> None:
        self._flush()
        self.resources.close()

    def _flush(self) -> None:
        if self._group:
            self._writer.write_table(pa.Table.from_batches(self._group, self._schema))
        self._group, self._group_rows, self._group_bytes = [], 0, 0


def _parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """Compression for the text; none for images, which are compressed already."""
    probe = pa.BufferOutputStream()
    pq.ParquetWriter(probe, schema).close()
    leaves = pq.read_metadata(pa.BufferReader(probe.getvalue())).schema
    columns = [leaves.column(number).path for number in range(len(leaves))]
    return {
        "compression": {column: "none" if column == _IMAGE_BYTES else "zstd" for column in columns},
        "use_dictionary": [column for column in columns if column != _IMAGE_BYTES],
        "write_statistics": False,
    }


@dataclass
class Assembled:
    """What became of the parts."""

    shards: list[Shard] = field(default_factory=list)
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)
    sources: Counter[tuple[str, str]] = field(default_factory=Counter)
    text_only: Counter[str] = field(default_factory=Counter)


def assemble(
    parts: Sequence[Part],
    schema: pa.Schema,
    assigner: SplitAssigner,
    folder: Path,
    *,
    max_rows: int,
    max_bytes: int,
    tied: bool,
    progress: bool = False,
) -> Assembled:
    """Write all shards anew from parts that are all done; the same parts give the same bytes.

    Args:
        tied: some row has several images, so that sides can be told only after all parts have been seen.
        progress: show a progress bar.
    """
    for stale in folder.glob(SHARD_PATTERN):
        stale.unlink()
    if tied:
        for part in parts:
            for batch in read_batches(part, [KEYS]):
                for keys in batch.column(KEYS).to_pylist():
                    assigner.tie(keys)
    result = Assembled()
    writers: dict[str, ShardWriter] = {}
    with ExitStack() as open_shards:
        for part in tqdm(parts, unit="part", desc="shards", disable=not progress):
            for batch in read_batches(part):
                for split, rows in _by_split(batch, schema, assigner, result).items():
                    if split not in writers:
                        writer = ShardWriter(folder, split, schema, max_rows=max_rows, max_bytes=max_bytes)
                        writers[split] = open_shards.enter_context(writer)
                    writers[split].add(rows)
    for writer in writers.values():
        result.shards += writer.shards
    result.shards.sort(key=lambda shard: shard.file)
    return result


def _by_split(
    batch: pa.RecordBatch, schema: pa.Schema, assigner: SplitAssigner, result: Assembled
) -> dict[str, pa.RecordBatch]:
    extra = batch.select([KEYS, FIXED_SPLIT, KIND, DATA_SOURCE]).to_pydict()
    sides = [fixed or assigner.side(keys) for fixed, keys in zip(extra[FIXED_SPLIT], extra[KEYS], strict=True)]
    result.kinds.update(zip(sides, extra[KIND], strict=True))
    result.sources.update(zip(sides, extra[DATA_SOURCE], strict=True))
    images = batch.column("images").value_lengths().to_pylist()
    result.text_only.update(side for side, count in zip(sides, images, strict=True) if not count)
    rows = batch.select(schema.names)
    if len(set(sides)) == 1:
        return {sides[0]: with_split(rows, sides[0])}
    return {side: with_split(rows.filter(pa.array([s == side for s in sides])), side) for side in sorted(set(sides))}
