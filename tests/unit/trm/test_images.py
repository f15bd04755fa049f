"""Images: passed through untouched where they are PNG or JPEG, encoded otherwise, told apart by content."""

import base64
import io
import struct

import pytest
from PIL import Image

from recipe.sophiavl.trm.images import (
    BadImageError,
    data_url,
    digest_image,
    load_image,
)


def picture(colour="red", mode="RGB"):
    return Image.new("RGB", (20, 10), colour).convert(mode)


def encoded(image_format, **options):
    buffer = io.BytesIO()
    picture().save(buffer, format=image_format, **options)
    return buffer.getvalue()


def payload(url):
    return base64.b64decode(url.split(",", 1)[1])


@pytest.mark.parametrize(("image_format", "kind"), [("PNG", "png"), ("JPEG", "jpeg")])
def test_png_and_jpeg_bytes_are_untouched(image_format, kind):
    raw = encoded(image_format)
    url = data_url(digest_image(raw))
    assert url.startswith(f"data:image/{kind};base64,")
    assert payload(url) == raw


@pytest.mark.parametrize("image_format", ["WEBP", "BMP", "GIF", "TIFF"])
def test_other_formats_become_png(image_format):
    options = {"lossless": True} if image_format == "WEBP" else {}
    url = data_url(digest_image(encoded(image_format, **options)))
    assert url.startswith("data:image/png;base64,")
    assert Image.open(io.BytesIO(payload(url))).convert("RGB").tobytes() == picture().tobytes()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "LA", "CMYK", "YCbCr"])
def test_pil_images_become_png(mode):
    image = picture(mode=mode)
    decoded = Image.open(io.BytesIO(payload(data_url(digest_image(image)))))
    assert decoded.format == "PNG"
    assert decoded.convert("RGB").tobytes() == image.convert("RGB").tobytes()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda raw: raw,
        bytearray,
        memoryview,
        lambda raw: {"bytes": raw},
        lambda raw: {"bytes": raw, "path": "/nowhere"},
        lambda raw: {"image": raw},
        lambda raw: {"type": "image", "image": {"bytes": raw, "path": None}},
        lambda raw: f"data:image/png;base64,{base64.b64encode(raw).decode()}",
        lambda raw: {"image": f"data:image/png;base64,{base64.b64encode(raw).decode()}"},
    ],
)
def test_every_kind_of_input_holds_the_same_bytes(wrap):
    raw = encoded("PNG")
    assert load_image(wrap(raw)) == raw


def test_pil_images_and_files(tmp_path):
    image = picture()
    assert load_image({"image": image}) is image
    path = tmp_path / "a.png"
    path.write_bytes(encoded("PNG"))
    assert load_image({"bytes": None, "path": str(path)}) == encoded("PNG")
    # verl's data sets hold images as paths, too
    assert load_image(str(path)) == load_image(f"file://{path}") == encoded("PNG")


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        {"bytes": b""},
        {"path": "/nowhere/a.png"},
        "data:image/png;base64,&&&&",
        "data:text/plain;base64,AAAA",
        "data:image/png,AAAA",
        "http://host/a.png",
        "/a.png",
    ],
)
def test_unreadable_images(bad):
    with pytest.raises(BadImageError):
        load_image(bad)


@pytest.mark.parametrize("raw", [b"junk", b"GIF89a", b"RIFF0000WEBP"])
def test_bytes_that_are_no_image(raw):
    with pytest.raises(BadImageError, match="cannot be encoded"):
        data_url(digest_image(raw))


@pytest.mark.parametrize("wrong", [None, 3, {}, {"bytes": None}, [b"x"]])
def test_wrong_types(wrong):
    with pytest.raises(TypeError):
        load_image(wrong)


def test_digests_go_by_content():
    digests = {
        digest_image(image).digest
        for image in (picture("red"), picture("blue"), picture(mode="L"), picture().resize((10, 20)))
    }
    assert len(digests) == 4
    assert digest_image(picture()).digest == digest_image(picture()).digest
    palettes = [Image.new("P", (4, 4)), Image.new("P", (4, 4))]
    palettes[1].putpalette([9, 9, 9] * 256)
    assert digest_image(palettes[0]).digest != digest_image(palettes[1]).digest


def bomb():
    header = bytearray(encoded("BMP")[:54])
    header[18:26] = struct.pack("<ii", 60_000, 60_000)
    return bytes(header)


def damaged_tiff():
    # the place of the pixels as a floating point number
    return encoded("TIFF").replace(b"\x11\x01\x04\x00", b"\x11\x01\x0c\x00")


@pytest.mark.parametrize("make", [bomb, damaged_tiff])
def test_damaged_images_are_bad_images_whatever_pillow_raises(make):
    with pytest.raises(BadImageError, match="cannot be encoded"):
        data_url(digest_image(make()))


def broken_when_read(image_format):
    data = bytearray(encoded(image_format))
    if image_format == "PNG":
        data[data.index(b"IDAT") - 4 : data.index(b"IDAT")] = b"\x00\x00\x00\x01"
    return Image.open(io.BytesIO(bytes(data[: len(data) - 5])))


def closed():
    image = picture()
    image.close()
    return image


@pytest.mark.parametrize("make", [lambda: broken_when_read("PNG"), lambda: broken_when_read("BMP"), closed])
def test_a_damaged_pil_image_is_a_bad_image_whatever_pillow_raises(make):
    with pytest.raises(BadImageError, match="cannot be read"):
        digest_image(make())


@pytest.mark.parametrize("error", [RuntimeError, AttributeError, EOFError])
def test_what_the_decoders_raise_besides_is_a_bad_image_too(monkeypatch, error):
    # AVIF, Spider and others on damaged data.
    def fail(*_):
        raise error("damaged")

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(BadImageError, match="cannot be encoded"):
        data_url(digest_image(b"neither"))


def test_a_data_url_of_other_characters_is_a_bad_image():
    with pytest.raises(BadImageError, match="base64"):
        load_image("data:image/png;base64,é")
