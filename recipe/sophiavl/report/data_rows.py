"""The rows of the data behind a run's groups: questions, options, truths, and images as thumbnails."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from data_preprocess.core.errors import RowError, SourceError
from data_preprocess.core.images import load_image as load_checked
from data_preprocess.core.parquet import read_rows
from recipe.sophiavl.report.problems import Problems
from recipe.sophiavl.report.run_data import Bounds, Thumbnail
from recipe.sophiavl.trm.images import BadImageError, load_image

Key = tuple[str, str, int]
"""(data_source, split, index)"""

_KEY_COLUMNS = ("data_source", "extra_info.split", "extra_info.index")
_QUALITY = 80


@dataclass(frozen=True)
class DataRow:
    """A question as the data has it.

    Attributes:
        images: thumbnails of its first images.
        image_note: why some or all of its images are not there; "" where all are.
    """

    question: str | None
    options: Sequence[str]
    truth: str | None
    images: Sequence[Thumbnail]
    image_note: str


def find_data_rows(
    files: Iterable[Path], keys: Iterable[Key], bounds: Bounds, problems: Problems, image_key: str = "images"
) -> dict[Key, DataRow]:
    """The rows with these keys, those that are there; memory does not grow with the size of the files.

    A file that is gone or unreadable is told, and costs its own rows only.
    """
    wanted = set(keys)
    found: dict[Key, DataRow] = {}
    for file in files:
        if not wanted:
            break
        try:
            places = _places(file, wanted)
            numbers = sorted(places)
            columns = ("reward_model", "extra_info", image_key)
            for number, row in zip(numbers, read_rows(file, columns, numbers), strict=True):
                found[places[number]] = _data_row(row, row.get(image_key), bounds)
            wanted -= set(places.values())
        except (OSError, pa.ArrowException, SourceError) as error:
            reason = "it is gone" if not file.exists() else str(error)
            problems.add("A data file can't be read: its questions are shown without images", f"{file}: {reason}")
    return found


def _places(file: Path, wanted: set[Key]) -> dict[int, Key]:
    """The numbers of the rows of a file that have one of these keys; of two with the same, the first."""
    indices = pa.array(sorted({index for _, _, index in wanted}), pa.int64())
    places: dict[int, Key] = {}
    start = 0
    with pq.ParquetFile(file, pre_buffer=False) as parquet:
        for batch in parquet.iter_batches(columns=list(_KEY_COLUMNS), use_threads=False):
            if "extra_info" not in batch.schema.names or batch.column("extra_info").type.get_field_index("index") < 0:
                return {}
            index = pc.struct_field(batch.column("extra_info"), "index").cast(pa.int64())
            rows = pc.indices_nonzero(pc.is_in(index, indices))
            for row, values in zip(rows.to_pylist(), batch.take(rows).to_pylist(), strict=True):
                info = values["extra_info"]
                key = (str(values.get("data_source")), str(info.get("split")), info["index"])
                if key in wanted and key not in places.values():
                    places[start + row] = key
            start += batch.num_rows
    return places


def _data_row(row: Mapping[str, Any], images: Any, bounds: Bounds) -> DataRow:
    info = row.get("extra_info") or {}
    truth = (row.get("reward_model") or {}).get("ground_truth")
    made, notes = [], []
    images = images if isinstance(images, list) else []
    for number, image in enumerate(images[: bounds.images], 1):
        try:
            made.append(thumbnail(image, bounds.image_pixels))
        except (BadImageError, RowError, TypeError) as error:
            notes.append(f"image {number} can't be shown: {error}")
    if len(images) > bounds.images:
        notes.append(f"{len(images) - bounds.images} more images are not shown")
    question = info.get("question")
    return DataRow(
        question=question if isinstance(question, str) else None,
        options=[str(option) for option in info.get("options") or []],
        truth=None if truth is None else str(truth),
        images=made,
        image_note="; ".join(notes),
    )


def thumbnail(image: Any, pixels: int) -> Thumbnail:
    """An image as a model sees it (upright, transparency on white), of so many pixels at most, as WebP.

    Args:
        image: as a row of the data holds it: a mapping with ``bytes`` or ``path``.

    Raises:
        BadImageError, RowError, TypeError: it can't be read or is too large to decode.
    """
    loaded = load_image(image)
    if isinstance(loaded, Image.Image):
        raise TypeError("an image in a data file must be encoded bytes or a path")
    small = load_checked(loaded, field="image", root=None, max_pixels=pixels).data
    with Image.open(io.BytesIO(loaded)) as source, Image.open(io.BytesIO(small)) as shown:
        size = source.size if (source.width > source.height) == (shown.width > shown.height) else source.size[::-1]
        encoded, flat = io.BytesIO(), Image.new("RGBA", shown.size, "white")
        flat.alpha_composite(shown.convert("RGBA"))
        flat.convert("RGB").save(encoded, "WEBP", quality=_QUALITY)
        uri = "data:image/webp;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")
        return Thumbnail(uri, *shown.size, *size)
