"""Parts: the unit of parallel work and of resuming.

A part is what became of a fixed range of source rows: one parquet file with the good rows (not yet split), and in its
footer the counts and the bad rows. It depends on nothing but those rows and the settings, so parts may be made in any
order, by any number of processes, in as many attempts as it takes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_preprocess.core.adapter import Adapter
from data_preprocess.core.errors import Fault, RowError
from data_preprocess.core.files import replacing
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
_MANIFEST, _REJECTED = b"sophiavl.part", b"sophiavl.rejected"


@dataclass(frozen=True)
class PartJob:
    """Everything that a worker needs to make one part.

    Attributes:
        path: the file to make.
        first: index of `rows[0]` among all source rows.
        image_root, max_pixels, follow_links: see `load_image`.
        retry_rejected: make a part that is done again where it has bad rows: somebody may have repaired them.
    """

    path: Path
    first: int
    rows: Sequence[RawRow]
    adapter: Adapter
    image_root: Path | None
    max_pixels: int | None = None
    follow_links: bool = False
    retry_rejected: bool = False


def make_part(job: PartJob) -> dict[str, int]:
    """Make the part on disk, unless it is done already. Bad rows are recorded, not raised.

    Returns:
        Counts of source rows: ``read``, ``kept``, ``rejected``, and ``tied`` (kept, with several images).
    """
    done = _manifest(job.path)
    if done is not None and done["read"] == len(job.rows) and not (job.retry_rejected and done["rejected"]):
        return done
    rejected: list[dict[str, Any]] = []
    schema = pa.schema([*job.adapter.schema, *_EXTRA_FIELDS])
    manifest = {"read": len(job.rows), "kept": 0, "rejected": 0, "tied": 0}
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    with replacing(job.path) as temporary, pq.ParquetWriter(temporary, schema, **plain) as sink:
        waiting: list[dict[str, Any]] = []
        size = 0
        for index, row in enumerate(job.rows, start=job.first):
            try:
                made, image_bytes = _good_row(row, index, job)
            except RowError as error:
                rejected.append(_rejection(row, index, error))
                continue
            if waiting and (len(waiting) >= BATCH_ROWS or size + image_bytes > BATCH_BYTES):
                sink.write_batch(pa.RecordBatch.from_pylist(waiting, schema=schema))
                waiting, size = [], 0
            waiting.append(made)
            size += image_bytes
            manifest["kept"] += 1
            manifest["tied"] += len(made[KEYS]) > 1
        if waiting:
            sink.write_batch(pa.RecordBatch.from_pylist(waiting, schema=schema))
        manifest["rejected"] = len(rejected)
        sink.add_key_value_metadata({_MANIFEST: json.dumps(manifest), _REJECTED: json.dumps(rejected)})
    return manifest


def _manifest(path: Path) -> dict[str, int] | None:
    """The counts of a part that is done and whole, else None."""
    try:
        return json.loads(pq.read_metadata(path).metadata[_MANIFEST])
    except (OSError, pa.ArrowException):  # not there, or damaged: it is made again
        return None


def kept_rows(path: Path) -> int:
    """How many good rows a part holds; 0 where it is not whole."""
    return (_manifest(path) or {"kept": 0})["kept"]


def rejections(path: Path) -> list[dict[str, Any]]:
    """The bad rows of a part that is done, in source order."""
    return json.loads(pq.read_metadata(path).metadata[_REJECTED])


def _good_row(row: RawRow, index: int, job: PartJob) -> tuple[dict[str, Any], int]:
    """The output row with the extra columns, and about how many bytes it holds."""
    if row.fields is None:
        raise RowError(Fault.BAD_ROW, "", row.error or "no row")
    draft = job.adapter.draft(row.fields, row.file)
    beside = job.image_root is not None and job.adapter.images_beside_file
    images = [
        load_image(
            ref,
            field=draft.image_field,
            root=job.image_root,
            extra_base=(job.image_root / row.file).parent if beside else None,
            max_pixels=job.max_pixels,
            follow_links=job.follow_links,
        )
        for ref in draft.images
    ]
    made = draft.make_row([image.data for image in images], index)
    made[KEYS] = leak_keys(draft.question, [image.digest for image in images])
    made[FIXED_SPLIT], made[KIND], made[DATA_SOURCE] = row.split, draft.kind, draft.data_source
    return made, sum(len(image.data) for image in images)


def _rejection(row: RawRow, index: int, error: RowError) -> dict[str, Any]:
    return {
        "file": row.file,
        "row": row.row,
        "index": index,
        "field": error.field,
        "fault": error.fault.value,
        "reason": error.reason,
    }


def read_batches(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Batches of a part that is done; `columns` None for all."""
    with pq.ParquetFile(path, pre_buffer=False) as part:
        for number in range(part.num_row_groups):
            yield from part.read_row_group(number, columns, use_threads=False).to_batches()
