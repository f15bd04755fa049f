"""Images of a question as data URLs and digests. Bytes that are PNG or JPEG already are passed through untouched."""

from __future__ import annotations

import base64
import hashlib
import io
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

ImageInput = Any
"""PNG or JPEG bytes, a PIL image, a data URL, a path, or a mapping with ``bytes``, ``image`` or ``path``."""

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
# On processors with SHA instructions the fastest of hashlib's strong ones.
_hasher = hashlib.sha256


# What Pillow raises on damaged data, and where an image says that it is too large to decode.
_ENCODE_ERRORS = (
    Image.DecompressionBombError,
    OSError,
    EOFError,
    RuntimeError,
    AttributeError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    OverflowError,
    ZeroDivisionError,
    struct.error,
    zlib.error,
)


class BadImageError(ValueError):
    """An image of the data set that cannot be read."""


@dataclass(frozen=True)
class SourceImage:
    """An image as it came, with a digest of its content: either encoded bytes or pixels."""

    digest: bytes
    encoded: bytes | None = None
    pixels: Image.Image | None = None


def load_image(image: ImageInput) -> bytes | Image.Image:
    """Return the encoded bytes or the PIL image that `image` stands for.

    Raises:
        BadImageError: empty bytes, an unreadable file or a broken data URL.
        TypeError: not one of the accepted kinds.
    """
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, (bytes, bytearray, memoryview)):
        if not len(image):
            raise BadImageError("image has no bytes")
        return bytes(image)
    if isinstance(image, str):
        return _from_data_url(image) if image.startswith("data:") else _from_file(image.removeprefix("file://"))
    if isinstance(image, Mapping):
        return _from_mapping(image)
    raise TypeError(
        f"image of type {type(image).__name__}: give PNG or JPEG bytes, a PIL image, a data URL, a path, or a mapping "
        "with 'bytes', 'image' or 'path'"
    )


def _from_mapping(image: Mapping[str, Any]) -> bytes | Image.Image:
    for key in ("bytes", "image"):
        if image.get(key) is not None:
            return load_image(image[key])
    if image.get("path"):
        return _from_file(image["path"])
    raise TypeError(f"image mapping with keys {sorted(image)}: one of 'bytes', 'image', 'path' must be set")


def _from_file(path: str) -> bytes:
    try:
        return load_image(Path(path).read_bytes())
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise BadImageError(f"image file {path} cannot be read: {error}") from error


def _from_data_url(url: str) -> bytes:
    head, comma, payload = url.partition(",")
    if not (comma and head.startswith("data:image/") and head.endswith(";base64")):
        raise BadImageError("an image URL must be data:image/...;base64,...")
    try:
        encoded = base64.b64decode(payload, validate=True)
    except ValueError as error:  # binascii.Error, or characters that are not ASCII
        raise BadImageError(f"image data URL holds no valid base64: {error}") from error
    return load_image(encoded)


def digest_image(image: bytes | Image.Image) -> SourceImage:
    """Digest encoded bytes, or the pixels of a PIL image. Releases the GIL for most of its time."""
    if isinstance(image, bytes):
        return SourceImage(_hasher(image).digest(), encoded=image)
    hasher = _hasher(f"{image.mode} {image.size}".encode())
    try:
        hasher.update(image.tobytes())
        if image.mode == "P":
            hasher.update(repr(image.getpalette()).encode())
    except _ENCODE_ERRORS as error:
        raise BadImageError(f"image pixels cannot be read: {error}") from error
    return SourceImage(hasher.digest(), pixels=image)


def data_url(image: SourceImage) -> str:
    """The image as a data URL: PNG and JPEG bytes as they are, everything else as PNG.

    Raises:
        BadImageError: bytes that are no image.
    """
    encoded = image.encoded
    if encoded is not None and encoded.startswith(_PNG):
        return _as_url("png", encoded)
    if encoded is not None and encoded.startswith(_JPEG):
        return _as_url("jpeg", encoded)
    try:
        pixels = image.pixels if encoded is None else Image.open(io.BytesIO(encoded))
        assert pixels is not None
        return _as_url("png", _to_png(pixels))
    except _ENCODE_ERRORS as error:
        raise BadImageError(f"image cannot be encoded: {error}") from error


def _to_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    # Fast compression: the image crosses a network once per response, and the encoder would cost more than it saves.
    (image if image.mode in _PNG_MODES else image.convert("RGB")).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _as_url(kind: str, encoded: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode('ascii')}"
