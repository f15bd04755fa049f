"""A sample of rows as one HTML page that needs nothing else: images inline, all text escaped."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

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
