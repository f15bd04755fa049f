"""Every kind of bad row is recorded with its row, field and fault, and costs no good row."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from preprocess_builders import (
    choice_row,
    encoded,
    image_row,
    jpeg,
    output_rows,
    png,
    rejected_rows,
    text_row,
    write_dataset,
)

from data_preprocess import sophiavl_130k
from data_preprocess.core.images import MAX_DECODED_PIXELS

BAD = 5


def bomb(width: int = 20_000, height: int = 20_000) -> bytes:
    """A small PNG that says it is huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def image_file(root: Path) -> Path:
    return root / "Math/CLEVR-Math/images" / f"{BAD}.png"


def with_bytes(data: bytes) -> Callable[[Path], dict[str, Any]]:
    def make(root: Path) -> dict[str, Any]:
        image_file(root).parent.mkdir(parents=True, exist_ok=True)
        image_file(root).write_bytes(data)
        return image_row(BAD)

    return make


def link_out_of_the_root(root: Path) -> dict[str, Any]:
    (root.parent / "secret.png").write_bytes(png(1))
    (root / "Math").mkdir(parents=True, exist_ok=True)
    (root / "Math" / "link.png").symlink_to(root.parent / "secret.png")
    return image_row(BAD, path="./Math/link.png")


def folder_link_out_of_the_root(root: Path) -> dict[str, Any]:
    (root.parent / "elsewhere").mkdir()
    (root.parent / "elsewhere" / "a.png").write_bytes(png(1))
    (root / "Math").mkdir(parents=True, exist_ok=True)
    (root / "Math" / "linked").symlink_to(root.parent / "elsewhere")
    return image_row(BAD, path="./Math/linked/a.png")


def link_to_itself(root: Path) -> dict[str, Any]:
    (root / "Math").mkdir(parents=True, exist_ok=True)
    (root / "Math" / "loop.png").symlink_to("loop.png")
    return image_row(BAD, path="./Math/loop.png")


def climbing(root: Path) -> dict[str, Any]:
    (root.parent / "secret.png").write_bytes(png(1))
    return image_row(BAD, path="./Math/../../secret.png")


def absolute(root: Path) -> dict[str, Any]:
    return image_row(BAD, path=str(with_bytes(png(1))(root) and image_file(root)))


def a_folder(root: Path) -> dict[str, Any]:
    image_file(root).mkdir(parents=True)
    return image_row(BAD, path=f"./Math/CLEVR-Math/images/{BAD}.png")


def row(**changes: Any) -> Callable[[Path], dict[str, Any]]:
    return lambda root: text_row(BAD, **changes)


def choice(**changes: Any) -> Callable[[Path], dict[str, Any]]:
    return lambda root: choice_row(BAD, path="", data_type="text", **changes)


BAD_ROWS: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "image missing": (lambda root: image_row(BAD, path="./Math/none.png"), "path", "missing_image"),
    "image row without a path": (lambda root: image_row(BAD, path=""), "path", "missing_image"),
    "path of blanks": (lambda root: image_row(BAD, path="  "), "path", "missing_image"),
    "path is a folder": (a_folder, "path", "missing_image"),
    "path with a null character": (lambda root: image_row(BAD, path="./Math/a\0b.png"), "path", "missing_image"),
    "path too long": (lambda root: image_row(BAD, path="./" + "a" * 5000), "path", "missing_image"),
    "link to itself": (link_to_itself, "path", "missing_image"),
    "path of another type": (lambda root: image_row(BAD, path=[3]), "path", "bad_field"),
    "image of no bytes": (with_bytes(b""), "path", "unreadable_image"),
    "image is text": (with_bytes(b"<html>not found</html>"), "path", "unreadable_image"),
    "truncated PNG": (with_bytes(png(9, (300, 300))[:200]), "path", "unreadable_image"),
    "truncated JPEG": (with_bytes(jpeg(9, (300, 300))[:-300]), "path", "unreadable_image"),
    "image longer than any processor takes": (with_bytes(png(1, (2010, 10))), "path", "unreadable_image"),
    "decompression bomb": (with_bytes(bomb()), "path", "decompression_bomb"),
    "bomb that Pillow only warns of": (with_bytes(bomb(10_000, 9_000)), "path", "decompression_bomb"),
    "path climbs out": (climbing, "path", "outside_image_root"),
    "absolute path, even inside": (absolute, "path", "outside_image_root"),
    "path of Windows": (lambda root: image_row(BAD, path="C:\\a.png"), "path", "outside_image_root"),
    "link leaves the root": (link_out_of_the_root, "path", "outside_image_root"),
    "folder link leaves the root": (folder_link_out_of_the_root, "path", "outside_image_root"),
    "unknown problem type": (row(problem_type="regression"), "problem_type", "unknown_type"),
    "no problem type": (row(problem_type=None), "problem_type", "unknown_type"),
    "unknown data type": (row(data_type="video"), "data_type", "unknown_type"),
    "empty truth": (row(solution=""), "solution", "empty_truth"),
    "empty truth in tags": (row(solution="<answer>  </answer>"), "solution", "empty_truth"),
    "empty mathematics": (row(solution="$ $"), "solution", "empty_truth"),
    "a truth that is no number": (row(solution="nan"), "solution", "empty_truth"),
    "half a tag": (row(solution="5</answer>", problem_type="OCR"), "solution", "bad_field"),
    "nothing behind the mark of the result": (row(solution="2 + 3 ####"), "solution", "empty_truth"),
    "no truth": (row(solution=None), "solution", "empty_truth"),
    "two truths": (row(solution="<answer>1</answer><answer>2</answer>"), "solution", "bad_field"),
    "truth of another type": (row(solution=["4"]), "solution", "bad_field"),
    "letter beyond the options": (choice(solution="<answer>D</answer>"), "solution", "truth_not_in_options"),
    "text that is no option": (choice(solution="<answer>a ship</answer>"), "solution", "truth_not_in_options"),
    "letter of another text": (choice(solution="<answer>A. a car</answer>"), "solution", "truth_not_in_options"),
    "choice without options": (choice(options=[]), "solution", "truth_not_in_options"),
    "options of another type": (choice(options="A. yes"), "options", "bad_field"),
    "an empty option": (choice(options=["A. a", ""]), "options", "bad_field"),
    "more options than letters": (choice(options=[str(n) for n in range(27)]), "options", "bad_field"),
    "prompt too long": (row(problem="x" * 3000), "problem", "prompt_too_long"),
    "no question": (row(problem=" "), "problem", "bad_field"),
    "only an image mark": (lambda root: image_row(BAD, problem="<image>"), "problem", "bad_field"),
    "mark without an image": (row(problem="<image>What?"), "problem", "image_marks"),
    "mark in an option": (choice(options=["A. <image>", "B. no"]), "problem", "image_marks"),
    "mark of a video": (row(problem="<video>What?"), "problem", "image_marks"),
    "row is no object": (lambda root: ["no", "object"], "", "bad_row"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_rejected_and_costs_no_good_row(tmp_path: Path, name: str) -> None:
    make, field, fault = BAD_ROWS[name]
    source = tmp_path / "in"
    good = [image_row(1), choice_row(2), text_row(3), image_row(4)]
    write_dataset(source, good, per_file=False)
    bad = make(source)
    (source / "json" / "text.json").write_text(json.dumps([*good[:2], bad, *good[2:]]))
    options = ["--workers", "1", "--max-prompt-chars", "2000"]
    assert sophiavl_130k.main([str(source), "--out", str(tmp_path / "out"), *options]) == 0
    (rejected,) = rejected_rows(tmp_path / "out")
    assert {key: rejected[key] for key in ("file", "row", "index", "field", "fault")} == {
        "file": "json/text.json",
        "row": 2,
        "index": 2,
        "field": field,
        "fault": fault,
    }
    assert rejected["reason"]
    kept = output_rows(tmp_path / "out")
    assert [row["extra_info"]["index"] for row in kept] == [0, 1, 3, 4]
    assert [row["data_source"] for row in kept] == [row["data_source"] for row in good]


def test_a_broken_line_of_json_lines_is_one_bad_row(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "in", [])
    half = json.dumps(text_row(2, problem="half a character: \ud800"))
    lines = [json.dumps(text_row(1)), '{"problem": "cut of', "[" * 100_000, half, json.dumps(text_row(2))]
    (source / "json" / "all.jsonl").write_bytes("\n".join(lines).encode() + b'\n{"problem": "\xff"}\n')
    assert sophiavl_130k.main([str(source), "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    rejected = rejected_rows(tmp_path / "out")
    faults = [(1, "bad_row"), (2, "bad_row"), (3, "bad_field"), (5, "bad_row")]
    assert [(bad["row"], bad["fault"]) for bad in rejected] == faults
    assert len(output_rows(tmp_path / "out")) == 2


def test_a_broken_array_stops_with_the_file_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_dataset(tmp_path / "in", [])
    (source / "json" / "math.json").write_text(json.dumps([text_row(1), text_row(2)])[:-40])
    assert sophiavl_130k.main([str(source), "--out", str(tmp_path / "out"), "--workers", "1"]) == 1
    assert "math.json: broken JSON" in capsys.readouterr().err


@pytest.mark.parametrize("workers", ["1", "2"])
def test_strict_stops_at_the_first_bad_row(tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: str) -> None:
    rows = [text_row(number) for number in range(600)]
    rows[300]["solution"] = ""
    rows[590]["problem_type"] = "nonsense"
    source = write_dataset(tmp_path / "in", rows)
    run = [str(source), "--out", str(tmp_path / "out"), "--workers", workers]
    assert sophiavl_130k.main([*run, "--strict"]) == 1
    message = capsys.readouterr().err
    for expected in ("json/text.json", "row 300", "'solution'", "the truth is empty", "empty_truth"):
        assert expected in message
    assert not list((tmp_path / "out").glob("*.parquet"))
    # The same folder can be finished without --strict, and --strict then still tells.
    assert sophiavl_130k.main(run) == 0
    assert len(output_rows(tmp_path / "out")) == 598
    assert sophiavl_130k.main([*run, "--strict"]) == 1
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--strict"]])
def test_an_image_that_was_repaired_after_strict_stopped_is_read(tmp_path: Path, options: list[str]) -> None:
    source = write_dataset(tmp_path / "in", [image_row(number) for number in range(300)])
    broken = [source / f"Math/CLEVR-Math/images/{number}.png" for number in (10, 280)]
    good = [path.read_bytes() for path in broken]
    for path in broken:
        path.write_bytes(b"no image")
    run = [str(source), "--out", str(tmp_path / "out"), "--workers", "2"]
    assert sophiavl_130k.main([*run, "--strict"]) == 1
    for path, data in zip(broken[: 1 + bool(options)], good, strict=False):
        path.write_bytes(data)
    assert sophiavl_130k.main([*run, *options]) == 0
    assert len(output_rows(tmp_path / "out")) == 299 + bool(options)


def test_an_image_just_under_the_pixel_limit_is_no_bomb(tmp_path: Path) -> None:
    side = int(MAX_DECODED_PIXELS**0.5)
    source = write_dataset(tmp_path / "in", [image_row(1)])
    (source / "Math/CLEVR-Math/images/1.png").write_bytes(encoded(Image.new("1", (side, side)), "PNG"))
    assert sophiavl_130k.main([str(source), "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    assert len(output_rows(tmp_path / "out")) == 1
