"""Images: untouched where possible, re-encoded where asked, never a crash on damaged bytes."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps
from preprocess_builders import encoded, jpeg, png

from data_preprocess.core.errors import Fault, RowError
from data_preprocess.core.images import load_image, pixel_digest, upright

GRADIENT = Image.linear_gradient("L").resize((400, 300)).convert("RGB")


def load(data: bytes, max_pixels: int | None = None) -> bytes:
    return load_image(data, field="image", root=None, max_pixels=max_pixels).data


@pytest.mark.parametrize("data", [png(1), jpeg(1), png(1, mode="P"), png(1, mode="L"), png(1, mode="1")])
def test_png_and_jpeg_pass_through_untouched(data: bytes) -> None:
    assert load(data) == data
    assert load(data, max_pixels=20 * 16) == data


@pytest.mark.parametrize(
    ("kind", "mode"), [("WEBP", "RGB"), ("WEBP", "RGBA"), ("GIF", "P"), ("BMP", "RGB"), ("TIFF", "CMYK")]
)
def test_other_formats_become_png(kind: str, mode: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    original = encoded(GRADIENT.convert(mode), kind, **options)
    with Image.open(io.BytesIO(load(original))) as made, Image.open(io.BytesIO(original)) as source:
        assert (made.format, made.size) == ("PNG", (400, 300))
        assert made.convert("RGB").tobytes() == source.convert("RGB").tobytes()


def turned(kind: str, orientation: int) -> bytes:
    """An image whose EXIF says how to turn it upright."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return encoded(GRADIENT.resize((40, 30)), kind, exif=exif)


def shown(data: bytes) -> Image.Image:
    """The pixels of a loader that knows no EXIF."""
    return Image.open(io.BytesIO(data)).convert("RGB")


@pytest.mark.parametrize("make", [upright, lambda data: load(data), lambda data: load(data, 10_000)])
@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_image_with_an_orientation_is_turned_upright_once(kind: str, orientation: int, make) -> None:
    original = turned(kind, orientation)
    made = make(original)
    with Image.open(io.BytesIO(original)) as source, Image.open(io.BytesIO(made)) as image:
        assert image.format == ("JPEG" if kind == "JPEG" else "PNG")
        assert ExifTags.Base.Orientation not in image.getexif()
        expected = ImageOps.exif_transpose(source).convert("RGB")
    assert shown(made).size == expected.size
    off = [abs(one - other) for one, other in zip(shown(made).tobytes(), expected.tobytes(), strict=True)]
    assert max(off) <= (3 if kind == "JPEG" else 0)
    assert upright(made) == made


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_upright_images_and_other_metadata_stay_untouched(kind: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "a camera"
    exif[ExifTags.Base.Orientation] = 1
    for data in (encoded(GRADIENT, kind), encoded(GRADIENT, kind, exif=exif), encoded(GRADIENT, kind, exif=b"broken")):
        assert load(data) == upright(data) == data


@pytest.mark.parametrize("mode", ["LA", "P", "RGB"])
def test_transparency_that_loaders_show_differently_is_put_on_white(mode: str) -> None:
    image = Image.new("RGB", (8, 8), (0, 0, 0)).convert(mode)
    if mode == "LA":
        image.putalpha(0)
    options = {} if mode == "LA" else {"transparency": 0 if mode == "P" else (0, 0, 0)}
    data = encoded(image, "PNG", **options)
    assert shown(data).getpixel((0, 0)) == (0, 0, 0)
    for made in (upright(data), load(data), load(data, 16)):
        assert shown(made).getpixel((0, 0)) == (255, 255, 255)


def test_the_digest_is_of_what_is_seen() -> None:
    same = [
        *(encoded(GRADIENT, kind) for kind in ("PNG", "BMP", "TIFF")),
        encoded(GRADIENT, "PNG", compress_level=1),
        encoded(GRADIENT.convert("RGBA"), "PNG"),
        encoded(GRADIENT.convert("L"), "PNG"),
        encoded(GRADIENT, "WEBP", lossless=True),
        encoded(GRADIENT.convert("L").convert("I").point(lambda value: value * 257).convert("I;16"), "PNG"),
    ]
    assert len(set(map(pixel_digest, same))) == 1
    assert pixel_digest(turned("PNG", 6)) == pixel_digest(upright(turned("PNG", 6)))
    reshaped = Image.frombytes("RGB", (300, 400), GRADIENT.tobytes())
    others = [GRADIENT.rotate(180), GRADIENT.crop((0, 0, 399, 300)), reshaped]
    assert len({pixel_digest(same[0]), *(pixel_digest(encoded(other, "PNG")) for other in others)}) == 4
    photo = encoded(GRADIENT, "JPEG", quality=40)
    assert pixel_digest(photo) == pixel_digest(encoded(Image.open(io.BytesIO(photo)), "PNG"))


def test_the_digest_of_a_large_image_is_that_of_its_strips_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pixel_digest(encoded(GRADIENT, "PNG"))
    monkeypatch.setattr("data_preprocess.core.images._STRIP_PIXELS", 400 * 7)
    assert pixel_digest(encoded(GRADIENT, "PNG")) == whole


@pytest.mark.parametrize("max_pixels", [1, 100, 5000, 119_999])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_larger_images_shrink_to_the_limit_and_keep_shape_and_format(kind: str, max_pixels: int) -> None:
    with Image.open(io.BytesIO(load(encoded(GRADIENT, kind), max_pixels))) as made:
        assert made.format == kind
        assert made.width * made.height <= max_pixels
        assert made.width * made.height >= 0.8 * max_pixels - 20
        assert abs(made.width / made.height - 4 / 3) < 0.5 or max_pixels == 1


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA"])
def test_images_of_every_mode_shrink(mode: str) -> None:
    image = GRADIENT.convert(mode)
    with Image.open(io.BytesIO(load(encoded(image, "PNG"), 1000))) as made:
        made.load()
        assert made.width * made.height <= 1000


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("max_pixels", [None, 1000])
def test_sixteen_bits_of_grey_keep_their_shades(kind: str, max_pixels: int | None) -> None:
    deep = Image.linear_gradient("L").convert("I").point(lambda value: value * 257).convert("I;16")
    with Image.open(io.BytesIO(load(encoded(deep, kind), max_pixels))) as made:
        # As training reads it. A column of all shades, top to bottom.
        shades = [made.convert("L").getpixel((0, y)) for y in range(made.height)]
    assert shades == sorted(shades)
    assert len(set(shades)) == made.height
    if max_pixels is None:
        assert shades == list(range(256))


def test_an_image_that_shrinking_makes_too_thin_is_rejected() -> None:
    thin = encoded(Image.new("RGB", (2000, 10)), "PNG")
    assert load(thin) == thin
    error = load_or_error(thin, 18_000)
    assert isinstance(error, RowError)
    assert error.fault is Fault.UNREADABLE_IMAGE


def test_damage_that_pillow_has_no_error_for() -> None:
    # the place of the pixels as a floating point number: a TypeError
    tiff = encoded(GRADIENT, "TIFF")
    error = load_or_error(tiff.replace(b"\x11\x01\x04\x00", b"\x11\x01\x0c\x00"), None)
    assert isinstance(error, RowError)
    assert error.fault is Fault.UNREADABLE_IMAGE


def test_the_digest_is_of_the_source_and_not_of_the_encoding() -> None:
    data = encoded(GRADIENT, "PNG")
    whole = load_image(data, field="image", root=None)
    small = load_image(data, field="image", root=None, max_pixels=100)
    assert whole.digest == small.digest
    assert whole.digest != load_image(png(2), field="image", root=None).digest


def test_mapping_of_bytes_or_path(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(4))
    for ref in ({"bytes": png(4), "path": "elsewhere.png"}, {"bytes": None, "path": "a.png"}, "a.png", "./a.png"):
        assert load_image(ref, field="image", root=tmp_path).data == png(4)


def test_a_link_that_stays_inside_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real.png").write_bytes(png(4))
    (tmp_path / "link.png").symlink_to("real.png")
    assert load_image("link.png", field="image", root=tmp_path).data == png(4)


def test_a_root_that_is_itself_a_link_works(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.png").write_bytes(png(4))
    (tmp_path / "root").symlink_to("real")
    assert load_image("a.png", field="image", root=tmp_path / "root").data == png(4)


@pytest.mark.parametrize("follow_links", [False, True])
def test_links_may_leave_the_root_where_the_user_says_so_and_paths_never(tmp_path: Path, follow_links: bool) -> None:
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    (tmp_path / "disk" / "a.png").write_bytes(png(4))
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "Math").symlink_to("../disk")
    options = {"field": "image", "root": tmp_path / "root", "follow_links": follow_links}
    if follow_links:
        assert load_image("./Math/a.png", **options).data == png(4)
    else:
        with pytest.raises(RowError, match=r"leads out of the image root.*--follow-links"):
            load_image("./Math/a.png", **options)
    for path in ("../disk/a.png", "Math/../../disk/a.png", str(tmp_path / "disk/a.png")):
        with pytest.raises(RowError) as caught:
            load_image(path, **options)
        assert caught.value.fault is Fault.OUTSIDE_ROOT


def test_a_path_without_an_image_folder_is_a_missing_image() -> None:
    with pytest.raises(RowError) as caught:
        load_image("a.png", field="image", root=None)
    assert caught.value.fault is Fault.MISSING_IMAGE


SOUND = [
    *(encoded(GRADIENT, kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")),
    *(turned(kind, 6) for kind in ("PNG", "JPEG", "WEBP")),
]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SOUND), st.integers(0, 2**32), st.sampled_from([None, 1000]))
def test_damaged_bytes_are_a_row_error_or_an_image_that_decodes(
    sound: bytes, seed: int, max_pixels: int | None
) -> None:
    chance = random.Random(seed)
    damaged = bytearray(sound)
    for _ in range(chance.randint(1, 8)):
        damaged[chance.randrange(min(len(damaged), chance.choice([64, 512, 10**9])))] = chance.randrange(256)
    if chance.random() < 0.3:
        del damaged[chance.randrange(1, len(damaged)) :]
    made = load_or_error(bytes(damaged), max_pixels)
    if isinstance(made, RowError):
        assert made.fault in (Fault.UNREADABLE_IMAGE, Fault.DECOMPRESSION_BOMB)
        # the same words in every run: no memory address
        assert " object at 0x" not in made.reason
    else:
        with Image.open(io.BytesIO(made)) as image:
            image.load()


def test_bytes_that_are_no_image_are_rejected_with_the_same_words_in_every_run() -> None:
    error = load_or_error(b"\x89PNG garbage", None)
    assert isinstance(error, RowError)
    assert error.reason == "no image of a known kind (PNG, JPEG, WEBP, GIF, BMP, TIFF)"


def load_or_error(data: bytes, max_pixels: int | None) -> bytes | RowError:
    try:
        return load(data, max_pixels)
    except RowError as error:
        return error
