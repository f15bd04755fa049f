"""Look at a preprocessed parquet file.

    python -m data_preprocess.inspect data/train-00000.parquet [MORE.parquet ...] [--html sheet.html]

Prints the schema and counts by problem type and by data source, with the number of different images of each source and
the rows that the most used one serves; writes a page of sampled rows with their images.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from data_preprocess.core.errors import SourceError
from data_preprocess.core.parquet import read_rows
from page_kit.page import Table, render

_TEMPLATE = Path(__file__).parent / "templates" / "sheet.html"
_MIME = ((b"\x89PNG", "image/png"), (b"\xff\xd8\xff", "image/jpeg"))


@dataclass
class Counts:
    """What the files hold."""

    kinds: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    text_only: Counter[str] = field(default_factory=Counter)
    images: defaultdict[str, Counter[bytes]] = field(default_factory=lambda: defaultdict(Counter))
    image_bytes: int = 0

    def add(self, row: dict[str, Any]) -> None:
        """Count one row.

        Raises:
            ValueError: an image without bytes.
        """
        source = row.get("data_source") or "(none)"
        self.kinds[(row.get("extra_info") or {}).get("problem_type") or "(none)"] += 1
        self.sources[source] += 1
        images = [(image or {}).get("bytes") for image in row.get("images") or ()]
        if not all(images):
            raise ValueError("an image without bytes: images must be embedded")
        self.text_only[source] += not images
        self.image_bytes += sum(map(len, images))
        self.images[source].update({blake2b(data, digest_size=8).digest() for data in images})

    def tables(self) -> list[Table]:
        """The counts as tables of text and numbers."""
        rows = []
        for source, count in self.sources.most_common():
            used = self.images[source]
            rows.append((source, count, self.text_only[source], len(used), max(used.values(), default=0)))
        columns = ("data source", "rows", "text-only", "different images", "rows of the most used image")
        return [
            Table(("problem type", "rows"), self.kinds.most_common(), "By problem type"),
            Table(columns, rows, "By data source"),
        ]


def schema_and_total(files: Sequence[Path]) -> tuple[pa.Schema, int]:
    """The schema of the first file, and the number of rows of all.

    Raises:
        SourceError: a file that is no parquet.
    """
    footers = []
    for path in files:
        try:
            footers.append(pq.read_metadata(path))
        except (OSError, pa.ArrowException) as error:
            raise SourceError(f"{path}: cannot be read as parquet: {error}") from error
    return footers[0].schema.to_arrow_schema(), sum(footer.num_rows for footer in footers)


def count_and_sample(files: Sequence[Path], wanted: set[int]) -> tuple[Counts, dict[int, dict[str, Any]]]:
    """Counts of all rows, and the rows with the `wanted` numbers; one batch of rows in memory at a time."""
    counts, sampled = Counts(), {}
    for number, row in enumerate(chain.from_iterable(map(read_rows, files))):
        try:
            counts.add(row)
        except ValueError as error:
            raise SourceError(f"{', '.join(map(str, files))}: row {number}: {error}") from error
        if number in wanted:
            sampled[number] = row
    return counts, sampled


def sample_numbers(total: int, samples: int, seed: int) -> set[int]:
    """Row numbers of a random sample without repetition, the same for the same seed."""
    return set(random.Random(seed).sample(range(total), max(0, min(samples, total))))


def render_sheet(title: str, subtitle: str, tables: Sequence[Table], rows: Mapping[int, Mapping[str, Any]]) -> str:
    """The page.

    Args:
        rows: sampled rows of a parquet file by their number; the column ``images`` is shown as pictures.
    """
    shown = [
        {
            "number": number,
            "images": [_data_url(image) for image in row.get("images") or ()],
            "fields": [("row", number), *_columns(row)],
        }
        for number, row in rows.items()
    ]
    return render(_TEMPLATE, title=title, subtitle=subtitle, tables=tables, rows=shown)


def _data_url(image: Mapping[str, Any]) -> str:
    data = image["bytes"]
    mime = next((mime for magic, mime in _MIME if data.startswith(magic)), "application/octet-stream")
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def _columns(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Every column but the images as text; the fields of a struct one by one."""
    columns = []
    for name, value in row.items():
        if name == "images":
            continue
        pairs = (
            [(f"{name}.{key}", inner) for key, inner in value.items()] if isinstance(value, dict) else [(name, value)]
        )
        columns += [(label, _text(inner)) for label, inner in pairs]
    return columns


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(item, dict) and "role" in item for item in value):
        return "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in value)
    return json.dumps(value, ensure_ascii=False, default=str)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m data_preprocess.inspect",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", type=Path, nargs="+", help="parquet files of one schema")
    parser.add_argument("--html", type=Path, help="page to write (default: beside the first file)")
    parser.add_argument("--samples", type=int, default=24, help="rows on the page (default: 24)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample (default: 0)")
    args = parser.parse_args(argv)
    console = Console()
    try:
        schema, total = schema_and_total(args.files)
        counts, sampled = count_and_sample(args.files, sample_numbers(total, args.samples, args.seed))
    except SourceError as error:
        Console(stderr=True).print(f"{parser.prog}: {error}", style="red", markup=False, soft_wrap=True)
        return 1
    console.print(escape(schema.to_string(show_schema_metadata=False)), highlight=False)
    size = f"{total} rows, {counts.image_bytes / 2**20:.1f} MiB of images"
    console.print(size)
    for table in counts.tables():
        shown = RichTable(*table.columns, title=table.title)
        for row in table.rows:
            shown.add_row(escape(str(row[0])), *map(str, row[1:]))
        console.print(shown)
    page = args.html or args.files[0].with_suffix(".html")
    sheet = render_sheet(", ".join(path.name for path in args.files), size, counts.tables(), sampled)
    try:
        page.write_text(sheet, encoding="utf-8")
    except OSError as error:
        Console(stderr=True).print(f"{parser.prog}: {error}", style="red", markup=False, soft_wrap=True)
        return 1
    console.print(f"Sample sheet: {escape(str(page))}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
