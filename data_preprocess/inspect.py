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

import jinja2
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data_preprocess.core.errors import SourceError
from data_preprocess.core.parquet import read_rows

# Nothing but inline pictures and styles may load, whatever a row holds.
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<style>
:root { color-scheme: light dark }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 } th, td { text-align: left; padding: .2rem .8rem .2rem 0 }
td.number { text-align: right; font-variant-numeric: tabular-nums }
article { border-top: 1px solid #8886; padding: 1rem 0; display: grid; grid-template-columns: 20rem 1fr; gap: 1.5rem }
article img { max-width: 100%; max-height: 24rem; border: 1px solid #8884; display: block; margin-bottom: .5rem }
dt { font-weight: 600; margin-top: .4rem } dd { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere }
.none { opacity: .6 }
@media (max-width: 48rem) { article { grid-template-columns: 1fr } }
</style></head><body>
<h1>{{ title }}</h1>
{% for table in tables %}<h2>{{ table.title }}</h2>
<table><tr>{% for name in table.columns %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in table.rows %}<tr><td>{{ row[0] }}</td>
{% for cell in row[1:] %}<td class="number">{{ cell }}</td>{% endfor %}</tr>{% endfor %}
</table>{% endfor %}
<h2>{{ rows | length }} rows</h2>
{% for row in rows %}<article><div>
{% for url in row.images %}<img src="{{ url }}" alt="image {{ loop.index }} of row {{ row.number }}">
{% else %}<p class="none">no image</p>{% endfor %}</div>
<dl><dt>row</dt><dd>{{ row.number }}</dd>
{% for name, text in row.columns %}<dt>{{ name }}</dt><dd>{{ text }}</dd>{% endfor %}</dl></article>
{% endfor %}</body></html>
"""
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

    def tables(self) -> list[dict[str, Any]]:
        """The counts as tables of text and numbers."""
        rows = []
        for source, count in self.sources.most_common():
            used = self.images[source]
            rows.append((source, count, self.text_only[source], len(used), max(used.values(), default=0)))
        columns = ("data source", "rows", "text-only", "different images", "rows of the most used image")
        return [
            {"title": "By problem type", "columns": ("problem type", "rows"), "rows": self.kinds.most_common()},
            {"title": "By data source", "columns": columns, "rows": rows},
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


def render_sheet(title: str, tables: Sequence[Mapping[str, Any]], rows: Mapping[int, Mapping[str, Any]]) -> str:
    """The page.

    Args:
        tables: each with ``title``, ``columns`` and ``rows``.
        rows: sampled rows of a parquet file by their number; the column ``images`` is shown as pictures.
    """
    page = jinja2.Environment(autoescape=True).from_string(_PAGE)
    shown = [
        {"number": number, "images": list(map(_data_url, row.get("images") or ())), "columns": _columns(row)}
        for number, row in rows.items()
    ]
    return page.render(title=title, tables=tables, rows=shown)


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
    console.print(f"{total} rows, {counts.image_bytes / 2**20:.1f} MiB of images")
    for table in counts.tables():
        shown = Table(*table["columns"], title=table["title"])
        for row in table["rows"]:
            shown.add_row(escape(str(row[0])), *map(str, row[1:]))
        console.print(shown)
    page = args.html or args.files[0].with_suffix(".html")
    sheet = render_sheet(", ".join(path.name for path in args.files), counts.tables(), sampled)
    try:
        page.write_text(sheet, encoding="utf-8")
    except OSError as error:
        Console(stderr=True).print(f"{parser.prog}: {error}", style="red", markup=False, soft_wrap=True)
        return 1
    console.print(f"Sample sheet: {escape(str(page))}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
