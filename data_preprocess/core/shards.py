"""From parts to the output: every row on its side, in parquet shards of bounded rows and bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from data_preprocess.core.files import replacing
from data_preprocess.core.parts import DATA_SOURCE, FIXED_SPLIT, KEYS, KIND, read_batches
from data_preprocess.core.splits import SplitAssigner
from data_preprocess.schema import with_split

SHARD_PATTERN = "*-[0-9][0-9][0-9][0-9][0-9].parquet"
_ROW_GROUP_ROWS = 1000
_ROW_GROUP_BYTES = 32 * 2**20


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
    own). A shard appears under its name only when it is complete; left with an error, the open one never does.
    """

    def __init__(self, folder: Path, split: str, schema: pa.Schema, *, max_rows: int, max_bytes: int) -> None:
        self.shards: list[Shard] = []
        self._folder, self._split, self._schema = folder, split, schema
        self._max_rows, self._max_bytes = max_rows, max_bytes
        self._writer: pq.ParquetWriter | None = None
        self._rows = self._bytes = 0  # of the open shard
        self._group: list[pa.RecordBatch] = []

    def __enter__(self) -> ShardWriter:
        self._open_shard = ExitStack().__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self._close()
        else:
            self._open_shard.__exit__(kind, *error)

    def add(self, batch: pa.RecordBatch) -> None:
        """Append rows, starting new shards as the limits demand."""
        for piece in self._pieces(batch):
            if self._writer is None:
                path = self._open_shard.enter_context(replacing(self._path()))
                options = {"compression": "zstd", "use_dictionary": False, "write_statistics": False}
                self._writer = self._open_shard.enter_context(pq.ParquetWriter(path, self._schema, **options))
            self._group.append(piece)
            self._rows += piece.num_rows
            self._bytes += piece.nbytes
            group = sum(batch.num_rows for batch in self._group), sum(batch.nbytes for batch in self._group)
            if group[0] >= _ROW_GROUP_ROWS or group[1] >= _ROW_GROUP_BYTES:
                self._flush()

    def _pieces(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """The batch cut so that each piece fits into the open shard; closes the shard that has no room for the next."""
        if batch.nbytes > self._max_bytes and batch.num_rows > 1:
            half = batch.num_rows // 2
            yield from self._pieces(batch.slice(0, half))
            yield from self._pieces(batch.slice(half))
            return
        if self._bytes + batch.nbytes > self._max_bytes:
            self._close()
        while batch.num_rows:
            room = self._max_rows - self._rows
            yield batch.slice(0, room)
            batch = batch.slice(room)
            if self._rows == self._max_rows:
                self._close()

    def _path(self) -> Path:
        return self._folder / f"{self._split}-{len(self.shards):05d}.parquet"

    def _flush(self) -> None:
        if self._group:
            self._writer.write_table(pa.Table.from_batches(self._group, self._schema))
        self._group = []

    def _close(self) -> None:
        if self._writer is not None:
            self._flush()
            self._open_shard.close()
            path = self._path()
            self.shards.append(Shard(path.name, self._split, self._rows, path.stat().st_size))
            self._writer, self._rows, self._bytes = None, 0, 0


@dataclass
class Assembled:
    """What became of the parts."""

    shards: list[Shard] = field(default_factory=list)
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)
    sources: Counter[tuple[str, str]] = field(default_factory=Counter)
    text_only: Counter[str] = field(default_factory=Counter)


def assemble(
    parts: Sequence[Path],
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
    return {side: with_split(rows.filter(pa.array([s == side for s in sides])), side) for side in sorted(set(sides))}
