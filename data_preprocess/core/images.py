"""Images of a row: found inside the image root, proven to decode, passed through untouched where possible."""

from __future__ import annotations

import io
import math
import struct
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from PIL import Image, UnidentifiedImageError

from data_preprocess.core.errors import Fault, RowError

ImageRef = str | bytes | Mapping[str, Any]
"""A path relative to the image root, an encoded image, or a mapping with ``bytes`` and/or ``path``."""

MAX_DECODED_PIXELS = 89_478_485
"""Pillow's own limit (a quarter of a GiB as RGB): an image that says it is larger is never decoded."""
MAX_FILE_BYTES = 256 * 2**20
# The image processors of Qwen-VL models raise on anything longer and thinner, in the middle of training.
MAX_ASPECT_RATIO = 200

DIGEST_BYTES = 16
# JPEG takes its variant MPO along.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_UNTOUCHED = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
_JPEG_QUALITY = 95
# What Pillow's decoders raise on damaged data.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    ZeroDivisionError,
    struct.error,
    zlib.error,
)
# 16 bits of grey: to convert them as they are would cut everything above 255 to white, here and in training.
_DEEP_GREY = "I;16"


@dataclass(frozen=True)
class LoadedImage:
    """An image ready to be stored.

    Attributes:
        data: PNG or JPEG file content.
        digest: digest of the source's bytes, before any re-encoding; equal for equal files.
    """

    data: bytes
    digest: bytes


def load_image(
    ref: ImageRef, *, field: str, root: Path | None, extra_base: Path | None = None, max_pixels: int | None = None
) -> LoadedImage:
    """Load and check one image.

    Args:
        ref: path, bytes, or mapping of both (bytes win).
        field: the source's name of the field, for messages.
        root: no path may lead out of this folder; None where the source has only embedded images.
        extra_base: a second folder, inside `root`, that relative paths may start from.
        max_pixels: an image with more pixels is scaled down to fit, keeping its shape; None for no limit.

    Raises:
        RowError: missing, outside of `root`, unreadable, or a decompression bomb.
    """
    data = _raw_bytes(ref, field, root, extra_base)
    if not data:
        raise RowError(Fault.UNREADABLE_IMAGE, field, "the image has no bytes")
    return LoadedImage(_checked(data, field, max_pixels), blake2b(data, digest_size=DIGEST_BYTES).digest())


def _raw_bytes(ref: ImageRef, field: str, root: Path | None, extra_base: Path | None) -> bytes:
    if isinstance(ref, Mapping):
        data, path = ref.get("bytes"), ref.get("path")
        ref = data if data is not None else path
    if isinstance(ref, bytes):
        return ref
    if not isinstance(ref, str):
        raise RowError(Fault.BAD_FIELD, field, f"an image must be a path or bytes, not {type(ref).__name__}")
    if not ref.strip():
        raise RowError(Fault.MISSING_IMAGE, field, "the image path is empty")
    if root is None:
        raise RowError(Fault.MISSING_IMAGE, field, f"{ref!r} is a path, but this source has no image folder")
    file = find_inside(ref, field=field, root=root, bases=[root] if extra_base is None else [root, extra_base])
    try:
        size = file.stat().st_size
        if size > MAX_FILE_BYTES:
            raise RowError(Fault.DECOMPRESSION_BOMB, field, f"{ref!r} has {size} bytes, over {MAX_FILE_BYTES}")
        return file.read_bytes()
    except OSError as error:
        raise RowError(Fault.UNREADABLE_IMAGE, field, f"{ref!r} cannot be read: {error.strerror}") from error


def find_inside(path: str, *, field: str, root: Path, bases: Sequence[Path]) -> Path:
    """The file that `path` names, relative to the first of `bases` where it exists, with every link followed.

    Raises:
        RowError: an absolute path, a path or link that leaves `root`, or no such file.
    """
    windows = PureWindowsPath(path)
    if PurePosixPath(path).is_absolute() or windows.drive or windows.root:
        raise RowError(Fault.OUTSIDE_ROOT, field, f"{path!r} is absolute; paths must be relative to the image root")
    real_root = root.resolve()
    outside = False
    for base in bases:
        try:
            # Not strict: a path out of the root is reported as such whether or not anything is there.
            file = (base / path).resolve()
            if not file.is_relative_to(real_root):
                outside = True
            elif file.is_file():
                return file
        except (OSError, ValueError, RuntimeError) as error:  # too long, a null character, a loop of links
            raise RowError(Fault.MISSING_IMAGE, field, f"{path[:200]!r} is not a usable path: {error}") from error
    if outside:
        raise RowError(Fault.OUTSIDE_ROOT, field, f"{path!r} leads out of the image root {root}")
    raise RowError(Fault.MISSING_IMAGE, field, f"no file {path!r} under {root}")


def _checked(data: bytes, field: str, max_pixels: int | None) -> bytes:
    """`data` itself if it is a sound PNG or JPEG of at most `max_pixels` and 8 bits, else the image encoded anew."""
    try:
        with warnings.catch_warnings():
            # Damaged metadata, which Pillow warns of, is no fault of an image that decodes.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                width, height = image.size
                _check_size(width, height, field)
                image.load()
                too_large = max_pixels is not None and width * height > max_pixels
                if data.startswith(_UNTOUCHED) and not too_large and not image.mode.startswith(_DEEP_GREY):
                    return data
                return _encode(_shrunk(image, max_pixels, field) if too_large else image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RowError(Fault.DECOMPRESSION_BOMB, field, str(error)) from error
    except RowError:
        raise
    except UnidentifiedImageError as error:
        # Pillow's own text holds a memory address, which would differ from run to run.
        raise RowError(Fault.UNREADABLE_IMAGE, field, f"no image of a known kind ({', '.join(_FORMATS)})") from error
    except _DECODE_ERRORS as error:
        raise RowError(Fault.UNREADABLE_IMAGE, field, f"the image does not decode: {error}") from error


def _check_size(width: int, height: int, field: str) -> None:
    if width * height > MAX_DECODED_PIXELS:
        raise RowError(Fault.DECOMPRESSION_BOMB, field, f"{width} x {height} pixels, over {MAX_DECODED_PIXELS}")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        reason = f"{width} x {height} is longer than {MAX_ASPECT_RATIO} times its width; no model's processor takes it"
        raise RowError(Fault.UNREADABLE_IMAGE, field, reason)


def _shrunk(image: Image.Image, max_pixels: int, field: str) -> Image.Image:
    scale = math.sqrt(max_pixels / (image.width * image.height))
    size = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
    _check_size(*size, field)  # a long and thin image can become thinner by rounding
    shrunk = _plain(image).resize(size, Image.Resampling.LANCZOS)
    shrunk.format = image.format
    return shrunk


def _encode(image: Image.Image) -> bytes:
    out = io.BytesIO()
    if image.format in ("JPEG", "MPO"):
        _plain(image).save(out, "JPEG", quality=_JPEG_QUALITY)
    else:
        _plain(image).save(out, "PNG")
    return out.getvalue()


def _plain(image: Image.Image) -> Image.Image:
    """The image in a mode that both scaling and PNG can handle."""
    if image.mode in ("L", "LA", "RGB", "RGBA"):
        return image
    if image.mode.startswith(_DEEP_GREY):
        return image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    return image.convert("RGBA" if "transparency" in image.info else "RGB")
