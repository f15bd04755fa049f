"""Images of a row: found inside the image root, proven to decode, passed through untouched where possible.

vLLM, which serves the thinking reward model, turns an image upright by its EXIF orientation and puts any transparency
on white; the policy's loader (qwen_vl_utils) does neither, but for RGBA. So that both see one picture, an image that
they would show differently is stored as `upright` makes it.
"""

from __future__ import annotations

import io
import math
import os
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

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
# Pixels that are hashed at once: a few MiB as RGB, however large the image.
_STRIP_PIXELS = 2**20


@dataclass(frozen=True)
class LoadedImage:
    """An image ready to be stored.

    Attributes:
        data: PNG or JPEG file content.
        digest: `pixel_digest` of the source, before any scaling.
    """

    data: bytes
    digest: bytes


def load_image(
    ref: ImageRef,
    *,
    field: str,
    root: Path | None,
    extra_base: Path | None = None,
    max_pixels: int | None = None,
    follow_links: bool = False,
) -> LoadedImage:
    """Load and check one image.

    Args:
        ref: path, bytes, or mapping of both (bytes win).
        field: the source's name of the field, for messages.
        root: no path may lead out of this folder; None where the source has only embedded images.
        extra_base: a second folder, inside `root`, that relative paths may start from.
        max_pixels: an image with more pixels is scaled down to fit, keeping its shape; None for no limit.
        follow_links: links below `root` may lead out of it.

    Raises:
        RowError: missing, outside of `root`, unreadable, or a decompression bomb.
    """
    data = _raw_bytes(ref, field, root, extra_base, follow_links)
    if not data:
        raise RowError(Fault.UNREADABLE_IMAGE, field, "the image has no bytes")
    with _opened(data, field) as image:
        image.load()
        digest = _digest(image)
        if max_pixels is not None and image.width * image.height > max_pixels:
            data = _encode(_shrunk(_as_seen(image), max_pixels, field), image.format)
        elif not data.startswith(_UNTOUCHED) or _seen_differently(image):
            data = _encode(_as_seen(image), image.format)
    return LoadedImage(data, digest)


def pixel_digest(data: bytes) -> bytes:
    """`DIGEST_BYTES` bytes that are equal for encoded images of the same size and pixels, whatever their encoding.

    The pixels are those that a model sees: upright, 8 bits, transparency on white.

    Raises:
        RowError: `data` does not decode, or is a decompression bomb.
    """
    with _opened(data, "image") as image:
        image.load()
        return _digest(image)


def upright(data: bytes) -> bytes:
    """`data` itself if all loaders show it alike, else the image encoded anew as PNG or JPEG, as vLLM would show it.

    Raises:
        RowError: `data` is no image, or is a decompression bomb; damaged pixels that stay as they are go unseen.
    """
    with _opened(data, "image") as image:
        return _encode(_as_seen(image), image.format) if _seen_differently(image) else data


def _raw_bytes(ref: ImageRef, field: str, root: Path | None, extra_base: Path | None, follow_links: bool) -> bytes:
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
    bases = [root] if extra_base is None else [root, extra_base]
    file = find_inside(ref, field=field, root=root, bases=bases, follow_links=follow_links)
    try:
        size = file.stat().st_size
        if size > MAX_FILE_BYTES:
            raise RowError(Fault.DECOMPRESSION_BOMB, field, f"{ref!r} has {size} bytes, over {MAX_FILE_BYTES}")
        return file.read_bytes()
    except OSError as error:
        raise RowError(Fault.UNREADABLE_IMAGE, field, f"{ref!r} cannot be read: {error.strerror}") from error


def find_inside(path: str, *, field: str, root: Path, bases: Sequence[Path], follow_links: bool) -> Path:
    """The file that `path` names, relative to the first of `bases` where it exists, with every link followed.

    Raises:
        RowError: an absolute path, a path that leaves `root`, a link that does without `follow_links`, or no such file.
    """
    windows = PureWindowsPath(path)
    if PurePosixPath(path).is_absolute() or windows.drive or windows.root:
        raise RowError(Fault.OUTSIDE_ROOT, field, f"{path!r} is absolute; paths must be relative to the image root")
    # A path that leaves by ".." does so before any link is followed, or after.
    resolved = os.path.abspath if follow_links else os.path.realpath
    real_root = Path(resolved(root))
    outside = False
    for base in bases:
        try:
            # Not strict: a path out of the root is reported as such whether or not anything is there.
            file = Path(resolved(base / path))
            if not file.is_relative_to(real_root):
                outside = True
            elif file.is_file():
                return file
        except (OSError, ValueError, RuntimeError) as error:  # too long, a null character, a loop of links
            raise RowError(Fault.MISSING_IMAGE, field, f"{path[:200]!r} is not a usable path: {error}") from error
    if outside:
        hint = "" if follow_links else "; where it is meant to, by a link: --follow-links"
        raise RowError(Fault.OUTSIDE_ROOT, field, f"{path!r} leads out of the image root {root}{hint}")
    raise RowError(Fault.MISSING_IMAGE, field, f"no file {path!r} under {root}")


@contextmanager
def _opened(data: bytes, field: str) -> Iterator[Image.Image]:
    """The image, its pixels not yet decoded; what Pillow raises on damage is a `RowError`, in the block too."""
    try:
        with warnings.catch_warnings():
            # Damaged metadata, which Pillow warns of, is no fault of an image that decodes.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                _check_size(*image.size, field)
                yield image
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


def _seen_differently(image: Image.Image) -> bool:
    """Whether loaders show the image differently, or cut its shades."""
    transparent = image.has_transparency_data and image.mode != "RGBA"
    return transparent or image.mode.startswith(_DEEP_GREY) or _turned_by_exif(image)


def _turned_by_exif(image: Image.Image) -> bool:
    with suppress(*_DECODE_ERRORS):  # damaged EXIF turns nothing, in vLLM neither
        return image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
    return False


def _as_seen(image: Image.Image) -> Image.Image:
    """The image upright, in 8 bits, transparency on white; mode L or RGB."""
    return _flat(_turned(image))


def _turned(image: Image.Image) -> Image.Image:
    if _turned_by_exif(image):
        with suppress(*_DECODE_ERRORS):
            return ImageOps.exif_transpose(image)
    return image


def _flat(image: Image.Image) -> Image.Image:
    if image.mode.startswith(_DEEP_GREY):
        return image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        flat = Image.new("RGB", image.size, "white")
        flat.paste(image, mask=image.getchannel("A"))
        return flat
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _digest(image: Image.Image) -> bytes:
    """Digest of size and pixels, a strip at a time: as RGB, a large image of one bit would take 24 times its memory."""
    image = _turned(image)
    hasher = sha256(f"{image.width} {image.height} ".encode())
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        strip = _flat(image.crop((0, top, image.width, min(top + rows, image.height))))
        hasher.update((strip if strip.mode == "RGB" else strip.convert("RGB")).tobytes())
    return hasher.digest()[:DIGEST_BYTES]


def _shrunk(image: Image.Image, max_pixels: int, field: str) -> Image.Image:
    scale = math.sqrt(max_pixels / (image.width * image.height))
    size = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
    _check_size(*size, field)  # a long and thin image can become thinner by rounding
    return image.resize(size, Image.Resampling.LANCZOS)


def _encode(image: Image.Image, source_format: str | None) -> bytes:
    out = io.BytesIO()
    if source_format in ("JPEG", "MPO"):
        image.save(out, "JPEG", quality=_JPEG_QUALITY)
    else:
        image.save(out, "PNG")
    return out.getvalue()
