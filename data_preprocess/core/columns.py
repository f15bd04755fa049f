"""A look at the first rows, before anything is written: are the columns and values there that the user named?"""

from __future__ import annotations

import difflib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

from data_preprocess.core.adapter import FieldNames
from data_preprocess.core.errors import SourceError
from data_preprocess.core.shown import example, one_line
from data_preprocess.core.sources import Source
from reward_score import PROBLEM_TYPES

# Rows of a JSON file need not all have the same fields.
_LOOK_AT = 1000
_MOST_COLUMNS = 100
_MOST_VALUES = 10
_NOTHING = (None, "", [])
_LISTS = ("images", "options")

Values = Mapping[str, Mapping[str, str]]
"""By field, what stands for which value of a row."""


def nearest(name: str, known: Sequence[str]) -> str:
    """`` (did you mean …?)`` with the known name most like `name`; empty where none is."""
    found = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {one_line(found[0])}?)" if found else ""


def cell_of(fields: Mapping[str, Any], names: FieldNames, field: str) -> Any:
    """What a row has for a field; where that may be a list, a text that writes one as JSON is the list."""
    value = fields.get(getattr(names, field))
    if field in _LISTS and isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value  # its check says what is wrong with it
    return value


def cell_text(value: Any) -> str | None:
    """A cell as it is written in a value mapping: text without blanks around it, a number or truth value as in JSON.

    An empty cell is the empty text; what is neither of these (a list, an image) is None.
    """
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, str):
        return value.strip()
    return json.dumps(value) if isinstance(value, bool | int | float) else None


def look_over(source: Source, names: FieldNames, needed: Sequence[str], values: Values) -> list[str]:
    """Compare what the user named with what the first rows have.

    A row may lack its images or options, so a slip in their names would only turn every row into a text-only one.

    Args:
        names: the columns of the source, by field. One that differs from its field's name was given by the user.
        needed: fields that must have a column.
        values: the value mapping.

    Returns:
        Sentences for the user: the columns of the first row that no field is taken from, and each field with mapped
        values that no row has, for they may come later.

    Raises:
        SourceError: no rows, or a column that none of them has; the message lists those that there are.
    """
    absent = {field: name for field, name in asdict(names).items() if name != field or field in needed}
    unmet = {(field, value) for field, table in values.items() for value in table}
    columns: dict[str, str] = {}
    met: dict[str, dict[str, None]] = {field: {} for field in values}
    told: list[str] = []
    looked_at = 0
    for row in islice(source.rows(), _LOOK_AT):
        looked_at += 1
        fields = row.fields or {}
        if looked_at == 1 and (unused := [example(name) for name in fields if name not in asdict(names).values()]):
            told = [f"columns that no field is taken from: {', '.join(unused[:_MOST_COLUMNS])}"]
        absent = {field: name for field, name in absent.items() if name not in fields}
        for field in values:
            cell = cell_of(fields, names, field)
            there = set(map(cell_text, cell if isinstance(cell, list) else [cell]))
            unmet -= {(field, text) for text in there}
            if len(met[field]) <= _MOST_VALUES:
                met[field] |= dict.fromkeys(sorted(there - {None}))
        if not (absent or unmet):
            return told
        for name, value in fields.items():
            if not columns.get(name):
                columns[name] = "" if value in _NOTHING else example(value)
    if not looked_at:
        raise SourceError("the source has no rows")
    if absent and columns:
        raise SourceError(_no_column(absent, columns, looked_at))
    lacking = sorted({field for field, _ in unmet})
    return told + [_no_value(field, unmet, list(met[field]), looked_at) for field in lacking]


def _no_column(absent: Mapping[str, str], columns: Mapping[str, str], looked_at: int) -> str:
    wrong = ", ".join(f"{field}={example(name)}" if name != field else repr(field) for field, name in absent.items())
    shown = {example(name): value or "(empty)" for name, value in list(columns.items())[:_MOST_COLUMNS]}
    width = min(30, max(map(len, shown)))
    lines = [f"  {name:{width}}  {value}" for name, value in shown.items()]
    if len(columns) > _MOST_COLUMNS:
        lines.append(f"  and {len(columns) - _MOST_COLUMNS} more")
    flags = [f"--column {field}={_quoted(name, columns)}" for field, name in absent.items()]
    if absent.get("problem_type"):
        flags.append(f"(or --constant problem_type=TYPE for all rows: {', '.join(PROBLEM_TYPES)})")
    return (
        f"no column {wrong} in the first {looked_at} rows. The columns that there are, each with a value:\n"
        + "\n".join(lines)
        + f"\nSay which of them to take, and run again: {' '.join(flags)}"
    )


def _quoted(name: str, columns: Mapping[str, str]) -> str:
    found = difflib.get_close_matches(name, columns, n=1)
    return one_line(shlex.quote(found[0])) if found else "NAME"


def _no_value(field: str, unmet: set[tuple[str, str]], met: Sequence[str], looked_at: int) -> str:
    wrong = ", ".join(example(value) for of, value in sorted(unmet) if of == field)
    there = ", ".join(map(example, met[:_MOST_VALUES])) + (", ..." if len(met) > _MOST_VALUES else "")
    return f"--value {field}: no {wrong} in the first {looked_at} rows, which have {there or 'nothing there'}"
