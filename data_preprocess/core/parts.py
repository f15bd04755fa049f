"""Parts: the unit of parallel work and of resuming.

A part is what became of a fixed range of source rows: the good rows as an Arrow file (not yet split), the bad ones as
JSON lines, and a manifest that is written last. It depends on nothing but those rows and the settings, so parts may be
made in any order, by any number of processes, in as many attempts as it takes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_preprocess.core.adapter import Adapter, Draft
from data_preprocess.core.errors import Fault, RowError
from data_preprocess.core.files import read_json, replacing, write_json
from data_preprocess.core.images import load_image
from data_preprocess.core.sources import RawRow
from data_preprocess.core.splits import leak_keys

BATCH_ROWS = 64
BATCH_BYTES = 8 * 2**20
# Columns that travel with a row until it is split.
KEYS, FIXED_SPLIT, KIND, DATA_SOURCE = ("_keys", "_fixed_split", "_kind", "_data_source")
_EXTRA_FIELDS = [
    pa.field(KEYS, pa.list_(pa.binary())),
    pa.field(FIXED_SPLIT, pa.string()),
    pa.field(KIND, pa.string()),
    pa.field(DATA_SOURCE, pa.string()),
]


@dataclass(frozen=True)
class Part:
    """The files of one part."""

    folder: Path
    number: int

    @property
    def rows_path(self) -> Path:
        """Good rows (Arrow IPC file)."""
        return self.folder / f"{self.number:06d}.arrow"

    @property
    def rejected_path(self) -> Path:
        """Bad rows (JSON lines)."""
        return self.folder / f"{self.number:06d}.rejected.jsonl"

    @property
    def manifest_path(self) -> Path:
        """Written last: its presence makes the part done."""
        return self.folder / f"{self.number:06d}.json"

    def done(self, rows_read: int) -> dict[str, Any] | None:
        """The manifest, if the part is complete and holds exactly this many source rows; else None."""
        manifest = read_json(self.manifest_path)
        if manifest is None or manifest["read"] != rows_read:
            return None
        for path, size in ((self.rows_path, manifest["bytes"]), (self.rejected_path, manifest["rejected_bytes"])):
            if not path.is_file() or path.stat().st_size != size:
                return None
        return manifest

    def rejections(self) -> Iterator[dict[str, Any]]:
        """The bad rows of a part that is done, in source order."""
        with self.rejected_path.open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)


@dataclass(frozen=True)
class PartJob:
    """Everything that a worker needs to make one part.

    Attributes:
        first: index of `rows[0]` among all source rows.
        retry_rejected: make a part that is done again where it has bad rows: somebody may have repaired them.
    """

    part: Part
    first: int
    rows: Sequence[RawRow]
    adapter: Adapter
    image_root: Path | None
    max_pixels: int | None
    retry_rejected: bool = False


def make_part(job: PartJob) -> dict[str, Any]:
    """Make the part on disk, unless it is done already, and return its manifest. Bad rows are recorded, not raised."""
    part = job.part
    done = part.done(len(job.rows))
    if done is not None and not (job.retry_rejected and done["rejected"]):
        return done
    rejected: list[str] = []
    schema = pa.schema([*job.adapter.schema, *_EXTRA_FIELDS])
    with replacing(part.rows_path) as temporary, pa.ipc.new_file(str(temporary), schema) as sink:
        buffer = _Buffer(sink, schema)
        for index, row in enumerate(job.rows, start=job.first):
            try:
                buffer.add(*_good_row(row, index, job))
            except RowError as error:
                rejected.append(_rejection(row, index, error))
        buffer.flush()
    with replacing(part.rejected_path) as temporary:
        temporary.write_text("".join(rejected), encoding="utf-8")
    manifest = {
        "read": len(job.rows),
        "kept": buffer.rows,
        "rejected": len(rejected),
        "tied": buffer.tied,
        "bytes": part.rows_path.stat().st_size,
        "rejected_bytes": part.rejected_path.stat().st_size,
    }
    write_json(part.manifest_path, manifest)
    return manifest


def _good_row(row: RawRow, index: int, job: PartJob) -> tuple[dict[str, Any], int]:
    """The output row with the extra columns, and about how many bytes it holds."""
    if row.fields is None:
        raise RowError(Fault.BAD_ROW, "", row.error or "no row")
    draft: Draft = job.adapter.draft(row.fields, row.file)
    base = job.adapter.image_base(job.image_root, row.file) if job.image_root is not None else None
    images = [
        load_image(ref, field=draft.image_field, root=job.image_root, extra_base=base, max_pixels=job.max_pixels)
        for ref in draft.images
    ]
    made = draft.make_row([image.data for image in images], index)
    made[KEYS] = leak_keys(draft.question, [image.digest for image in images])
    made[FIXED_SPLIT], made[KIND], made[DATA_SOURCE] = row.split, draft.kind, draft.data_source
    return made, sum(len(image.data) for image in images)


def _rejection(row: RawRow, index: int, error: RowError) -> str:
    entry = {
        "file": row.file,
        "row": row.row,
        "index": index,
        "field": error.field,
        "fault": error.fault.value,
        "reason": error.reason,
    }
    # A reason may quote half a character of a broken text: ASCII with escapes holds anything.
    return json.dumps(entry) + "\n"


@dataclass
class _Buffer:
    """Rows on their way to disk, in batches of bounded rows and bytes."""

    sink: pa.RecordBatchFileWriter
    schema: pa.Schema
    rows: int = 0
    tied: int = 0
    _waiting: list[dict[str, Any]] = field(default_factory=list)
    _bytes: int = 0

    def add(self, row: dict[str, Any], image_bytes: int) -> None:
        if self._waiting and (len(self._waiting) >= BATCH_ROWS or self._bytes + image_bytes > BATCH_BYTES):
            self.flush()
        self._waiting.append(row)
        self._bytes += image_bytes
        self.rows += 1
        self.tied += len(row[KEYS]) > 1

    def flush(self) -> None:
        if self._waiting:
            self.sink.write_batch(pa.RecordBatch.from_pylist(self._waiting, schema=self.schema))
        self._waiting, self._bytes = [], 0


def read_batches(part: Part, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Batches of a part that is done, mapped from disk rather than read; `columns` None for all."""
    with pa.memory_map(str(part.rows_path)) as file, pa.ipc.open_file(file) as reader:
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            yield batch if columns is None else batch.select(list(columns))
