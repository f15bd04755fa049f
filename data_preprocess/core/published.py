"""What the two published SophiaVL-R1 data sets have in common: JSON files beside folders of images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_preprocess.core import checks
from data_preprocess.core.errors import Fault, RowError, SourceError
from data_preprocess.core.images import ImageRef
from data_preprocess.core.sources import JSON_SUFFIXES, LocalSource, SourceFile, files_under, suffix_of

CATEGORIES = ("Chart", "General", "Knowledge", "Math", "OCR")
# The published layout first; only without it, the layouts that people unpack to.
_HUB_METADATA = "dataset_infos.json"
_PLACES = (("json/*",), ("*", *(f"{category}/*" for category in CATEGORIES)))


def published_source(name: str, out: Path) -> LocalSource:
    """The JSON files of a published data set, and its folder as the root of images.

    Args:
        name: a folder, or a hub name, which is downloaded beside `out`.

    Raises:
        SourceError: neither a folder nor on the hub, or no JSON files in it.
    """
    folder = _local_folder(name, out)
    for patterns in _PLACES:
        if found := [
            path
            for path in files_under(folder, patterns)
            if suffix_of(path) in JSON_SUFFIXES and path.name != _HUB_METADATA
        ]:
            return LocalSource(folder, tuple(map(SourceFile, found)), folder)
    raise SourceError(f"{folder}: no JSON files in it, in json/ or in {', '.join(CATEGORIES)}")


def _local_folder(name: str, out: Path) -> Path:
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    # Imported here: local runs need not pay for it.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        # Into a plain folder: the hub's cache is made of links, which lead out of the image root.
        target = out.with_name(f"{out.name}.source")
        return Path(snapshot_download(name, repo_type="dataset", local_dir=target))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise SourceError(f"{name!r} is no folder, and the hub does not give it: {error}") from error


def image_list(value: Any) -> list[ImageRef]:
    """Images of a field that may hold nothing, one image, or several."""
    if value is None or value == "" or value == []:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def images_of(fields: Mapping[str, Any], field: str) -> list[ImageRef]:
    """The row's images: those of `field` if its ``data_type`` is "image", none if it is "text".

    Without a ``data_type``, a row with images is an image row.

    Raises:
        RowError: another data type, or an image row without an image.
    """
    images = image_list(fields.get(field))
    data_type = checks.text_field(fields.get("data_type"), "data_type").casefold()
    if data_type == "text":
        return []
    if data_type not in ("image", ""):
        raise RowError(Fault.UNKNOWN_TYPE, "data_type", f'{data_type!r} is neither "image" nor "text"')
    if data_type == "image" and not images:
        raise RowError(Fault.MISSING_IMAGE, field, "an image row names no image")
    return images
