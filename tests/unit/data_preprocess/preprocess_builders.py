"""Small data sets in exactly the published format, for the tests."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image

FOLDERS = {"Chart": "chartqa", "General": "aokvqa", "Knowledge": "viquae", "Math": "CLEVR-Math", "OCR": "TextOCR"}


def png(number: int = 0, size: tuple[int, int] = (20, 16), mode: str = "RGB") -> bytes:
    """A PNG whose content depends on `number`."""
    return encoded(Image.new("RGB", size, (number % 256, number // 256 % 256, 90)).convert(mode), "PNG")


def jpeg(number: int = 0, size: tuple[int, int] = (20, 16)) -> bytes:
    return encoded(Image.new("RGB", size, (number % 256, 30, 200)), "JPEG")


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def image_row(number: int, folder: str = "Math", **changes: Any) -> dict[str, Any]:
    """A published numerical row with an image."""
    row = {
        "problem_id": number,
        "problem": f"Take away {number} of the balls. How many things remain?",
        "data_type": "image",
        "problem_type": "numerical",
        "options": [],
        "process": "",
        "solution": f"<answer>{number + 3}</answer>",
        "path": f"./{folder}/{FOLDERS.get(folder, folder)}/images/{number}.png",
        "data_source": FOLDERS.get(folder, folder),
    }
    return row | changes


def choice_row(number: int, **changes: Any) -> dict[str, Any]:
    """A published multiple-choice row with an image."""
    options = ["A. a bus", "B. a car", "C. a train"]
    answer = {"problem": "Which one is it?", "problem_type": "multiple choice", "options": options}
    return image_row(number, "Chart") | answer | {"solution": "<answer>B</answer>"} | changes


def text_row(number: int, **changes: Any) -> dict[str, Any]:
    """A published row without an image."""
    row = image_row(number) | {"problem": f"What is {number} + {number}?", "data_type": "text", "path": ""}
    return row | {"data_source": "gsm8k", "solution": f"<answer>{2 * number}</answer>"} | changes


def write_dataset(root: Path, rows: Sequence[dict[str, Any]], *, per_file: bool = True) -> Path:
    """The published layout: ``json/`` with one array per folder, and a PNG for every path that asks for one."""
    (root / "json").mkdir(parents=True, exist_ok=True)
    files: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        path = row.get("path")
        files.setdefault(path.split("/")[1].lower() if per_file and path else "text", []).append(row)
        # Only paths as published; a test that wants a bad one makes (or does not make) its file itself.
        if isinstance(path, str) and path.startswith("./") and path.endswith(f"/{row['problem_id']}.png"):
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(png(row["problem_id"]))
    for name, content in files.items():
        (root / "json" / f"{name}.json").write_text(json.dumps(content, indent=1))
    return root


def good_rows(count: int) -> list[dict[str, Any]]:
    """Published rows of all folders and several types, text-only ones among them."""
    rows = []
    for number in range(count):
        folder = list(FOLDERS)[number % 5]
        if number % 10 == 9:
            rows.append(text_row(number))
        elif number % 10 == 0:
            rows.append(choice_row(number))
        elif folder == "OCR":
            answer = {"problem_type": "OCR", "problem": "Read the sign.", "solution": "<answer>STOP now</answer>"}
            rows.append(image_row(number, folder, **answer))
        else:
            rows.append(image_row(number, folder))
    return rows


def output_rows(out: Path, split: str = "*") -> list[dict[str, Any]]:
    """All rows of the shards in `out`, in order."""
    return [row for path in sorted(out.glob(f"{split}-*.parquet")) for row in pq.read_table(path).to_pylist()]


def rejected_rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in `folder`, hidden ones too."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
