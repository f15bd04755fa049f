"""Inspecting a parquet file: schema, counts, and a sample sheet that is safe to open."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from preprocess_builders import jpeg, png

from data_preprocess import inspect
from data_preprocess.schema import RL_SCHEMA, THINKING_SCHEMA, rl_row, thinking_row

SCRIPT = "<script>alert('x')</script>"


def write(path: Path, rows: list[dict], schema: pa.Schema = RL_SCHEMA) -> Path:
    pq.write_table(pa.Table.from_pylist(rows, schema), path)
    return path


def row(number: int, source: str = "CLEVR-Math", images: tuple[bytes, ...] = (), question: str = "Q?") -> dict:
    kind = "numerical" if number % 2 else "OCR"
    return rl_row(
        data_source=source, question=question, problem_type=kind, answer="4", split="train", index=number, images=images
    )


class Tags(HTMLParser):
    """Collects tag names and picture addresses, as a browser would see them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.pictures: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        if tag == "img":
            self.pictures.append(dict(attrs)["src"] or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def test_schema_and_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row(number, images=(png(number % 2),)) for number in range(6)] + [row(7, "gsm8k")]
    assert inspect.main([str(write(tmp_path / "a.parquet", rows))]) == 0
    printed = capsys.readouterr().out
    assert "extra_info: struct" in printed
    assert "7 rows" in printed
    numbers = {line.split()[1]: line.split()[3::2] for line in printed.splitlines() if re.match(r"│ [a-zA-Z]", line)}
    assert (numbers["OCR"], numbers["numerical"]) == (["3"], ["4"])
    # rows, text-only, different images, rows of the most used image
    assert numbers["CLEVR-Math"] == ["6", "0", "2", "3"]
    assert numbers["gsm8k"] == ["1", "1", "0", "0"]


def test_the_sheet_holds_its_images_and_escapes_its_text(tmp_path: Path) -> None:
    rows = [row(1, source=SCRIPT, images=(png(1), jpeg(2)), question=f"{SCRIPT} & <i>fine</i>\x1b[31m\u202e"), row(2)]
    inspect.main([str(write(tmp_path / "a.parquet", rows))])
    tags = Tags((tmp_path / "a.html").read_text())
    assert tags.names.count("script") == 1  # the page's own, which its policy names by hash
    assert not {"i", "link", "iframe"} & set(tags.names)
    assert f"{SCRIPT} & <i>fine</i>␛[31m⟨U+202E⟩" in tags.text
    decoded = [(url.split(";")[0], base64.b64decode(url.split(",")[1])) for url in tags.pictures]
    assert decoded == [("data:image/png", png(1)), ("data:image/jpeg", jpeg(2))]
    assert "no image" in tags.text


def test_the_sample_is_of_the_asked_size_and_repeatable(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [row(number, question=f"Question {number}?") for number in range(100)])
    pages = []
    for seed in ("1", "1", "2"):
        inspect.main([str(path), "--samples", "10", "--seed", seed, "--html", str(tmp_path / "sheet.html")])
        pages.append((tmp_path / "sheet.html").read_text())
    assert pages[0] == pages[1] != pages[2]
    assert pages[0].count("<article>") == 10


def test_several_files_and_scored_thinking(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        thinking_row(data_source="s", question="Q?", thinking=f"<i>{n}</i>", score=0.5, split="train", index=n)
        for n in range(3)
    ]
    files = [str(write(tmp_path / name, rows, THINKING_SCHEMA)) for name in ("a.parquet", "b.parquet")]
    assert inspect.main(files) == 0
    assert "6 rows" in capsys.readouterr().out
    assert "<i>2</i>" in Tags((tmp_path / "a.html").read_text()).text


@pytest.mark.parametrize("data", [None, b"not parquet"])
def test_an_unreadable_file_is_an_error_with_a_message(tmp_path: Path, data: bytes | None, capsys) -> None:
    if data is not None:
        (tmp_path / "a.parquet").write_bytes(data)
    assert inspect.main([str(tmp_path / "a.parquet")]) == 1
    assert "a.parquet" in capsys.readouterr().err


def test_an_image_without_bytes_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"data_source": "x", "images": [{"bytes": None, "path": "a.png"}]}]
    assert inspect.main([str(write(tmp_path / "a.parquet", rows))]) == 1
    assert "row 0: an image without bytes" in capsys.readouterr().err


def test_a_page_that_cannot_be_written_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"data_source": "x", "images": []}]
    page = str(tmp_path / "none" / "a.html")
    assert inspect.main([str(write(tmp_path / "a.parquet", rows)), "--html", page]) == 1
    assert page in capsys.readouterr().err
