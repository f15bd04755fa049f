"""Groups find their rows of the data again, and images become small ones, whatever is in the file."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_preprocess.schema import RL_SCHEMA, rl_row
from recipe.sophiavl.report.data_rows import DataRow, find_data_rows, thumbnail
from recipe.sophiavl.report.problems import Problems
from recipe.sophiavl.report.run_data import Bounds, Thumbnail

PIXELS = 100 * 100


def encoded(size: tuple[int, int] = (60, 40), colour: object = "red", mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, colour).save(out, "PNG")
    return out.getvalue()


def decoded(made: Thumbnail) -> Image.Image:
    head, _, body = made.uri.partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(body))).convert("RGB")


def write(file: Path, rows: list[dict], **options: object) -> Path:
    pq.write_table(pa.Table.from_pylist(rows, schema=RL_SCHEMA), file, **options)
    return file


def row(index: int, images: list[bytes] = (), split: str = "train", **fields: object) -> dict:
    values = {"data_source": "s", "question": f"question {index}", "problem_type": "numerical", "answer": str(index)}
    return rl_row(**values | fields, split=split, index=index, images=images)


def find(files: list[Path], *keys: tuple, **bounds: int) -> tuple[dict[tuple, DataRow], list[str]]:
    problems = Problems()
    return find_data_rows(files, keys, Bounds(**bounds), problems), problems.texts()


def test_rows_are_found_by_source_split_and_index_over_several_files(tmp_path: Path) -> None:
    first = write(tmp_path / "a.parquet", [row(i) for i in range(300)], row_group_size=64)
    others = [row(i, split="val") for i in range(300)] + [row(7, data_source="t", answer="x")]
    second = write(tmp_path / "b.parquet", others)
    keys = [("s", "train", 130), ("s", "val", 299), ("t", "train", 7), ("s", "train", 999)]
    found, told = find([first, second], *keys)
    assert {key: (one.question, one.truth) for key, one in found.items()} == {
        ("s", "train", 130): ("question 130", "130"),
        ("s", "val", 299): ("question 299", "299"),
        ("t", "train", 7): ("question 7", "x"),
    }
    assert told == []


def test_options_come_along(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", [row(0, options=["one", "<b>two</b>"])])
    assert find([file], ("s", "train", 0))[0]["s", "train", 0].options == ["one", "<b>two</b>"]


def test_images_are_bounded_in_number_and_size(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", [row(0, images=[encoded((800, 600))] * 5)])
    found, _ = find([file], ("s", "train", 0), images=3, image_pixels=PIXELS)
    images = found["s", "train", 0].images
    assert len(images) == 3
    assert all(image.width * image.height <= PIXELS for image in images)
    assert (images[0].source_width, images[0].source_height) == (800, 600)
    assert "2 more images" in found["s", "train", 0].image_note


def test_a_bad_image_costs_itself_and_is_told(tmp_path: Path) -> None:
    images = [encoded(), b"no image", b""]
    file = write(tmp_path / "a.parquet", [row(0, images=images)])
    found, _ = find([file], ("s", "train", 0))
    one = found["s", "train", 0]
    assert len(one.images) == 1
    assert "image 2 can't be shown" in one.image_note
    assert "image 3 can't be shown" in one.image_note


def test_a_file_that_is_gone_costs_its_own_rows(tmp_path: Path) -> None:
    there = write(tmp_path / "a.parquet", [row(0)])
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 and nothing else")
    found, told = find([tmp_path / "gone.parquet", broken, there], ("s", "train", 0))
    assert list(found) == [("s", "train", 0)]
    (text,) = told
    assert "gone.parquet: it is gone" in text
    assert "2 times" in text


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"question": ["q"]}),
        pa.table({"data_source": ["s"], "extra_info": [{"split": "train"}]}),
        pa.table({"data_source": ["s"], "extra_info": ["text"]}),
        pa.table({"data_source": ["s"], "extra_info": [{"split": "train", "index": "zero"}]}),
        pa.table({"data_source": ["s"], "extra_info": [None]}),
    ],
)
def test_files_of_another_make_have_no_rows_and_no_traceback(tmp_path: Path, table: pa.Table) -> None:
    pq.write_table(table, tmp_path / "a.parquet")
    assert find([tmp_path / "a.parquet"], ("s", "train", 0))[0] == {}


def test_rows_that_lack_the_rest_are_shown_without_it(tmp_path: Path) -> None:
    table = pa.table({"data_source": ["s"], "extra_info": [{"split": "train", "index": 0}]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert find([tmp_path / "a.parquet"], ("s", "train", 0))[0] == {("s", "train", 0): DataRow(None, [], None, [], "")}


def test_a_thumbnail_shows_what_the_model_sees() -> None:
    turned = Image.new("RGB", (40, 20), "blue")
    turned.paste("red", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    out = io.BytesIO()
    turned.save(out, "JPEG", exif=exif, quality=95)
    made = thumbnail({"bytes": out.getvalue()}, PIXELS)
    assert (made.width, made.height, made.source_width, made.source_height) == (20, 40, 20, 40)
    red, _, blue = decoded(made).getpixel((10, 5))
    assert red > 200 > 60 > blue


def test_transparency_is_white() -> None:
    made = thumbnail({"bytes": encoded(colour=(255, 0, 0, 0), mode="RGBA")}, PIXELS)
    assert min(decoded(made).getpixel((5, 5))) > 250


def test_what_else_is_in_the_file_stays_out_of_the_page() -> None:
    hidden = encoded() + b"<script>alert(1)</script>" * 1000
    made = thumbnail({"bytes": hidden}, PIXELS)
    assert b"script" not in base64.b64decode(made.uri.partition(",")[2])
    assert len(made.uri) < 2000
