"""An evaluation as a JSON file, and as rows of a table that the console and the page share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recipe.sophiavl.trm_training.evaluate import figures, sensitivity
from recipe.sophiavl.trm_training.pairs import replacing

FORMAT = "sophiavl-trm-evaluation/2"

Evaluation = Mapping[str, Any]


class EvaluationError(ValueError):
    """A file or a setting that cannot be used; the message names it and says what is wrong."""


@dataclass(frozen=True)
class Line:
    """One figure for people: its title, its value, the other evaluation's (empty without one) and what it rests on."""

    title: str
    value: str
    other: str
    difference: str
    n: str


def save_evaluation(file: Path, evaluation: Evaluation) -> None:
    """Write `evaluation`; equal evaluations give equal files."""
    with replacing(file) as temporary:
        text = json.dumps(evaluation, indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def load_evaluation(file: Path) -> dict[str, Any]:
    """Read an ``evaluation.json``.

    Raises:
        EvaluationError: it is missing, or no such file.
    """
    try:
        evaluation = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvaluationError(f"--compare {file}: cannot be read: {error}") from error
    if not isinstance(evaluation, dict) or evaluation.get("format") != FORMAT:
        raise EvaluationError(f"--compare {file}: no evaluation.json of this command (format {FORMAT})")
    try:
        # All that will be read of it, now: not after an hour of asking.
        lines_of(evaluation, evaluation)
        notes_of(evaluation, evaluation)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise EvaluationError(f"--compare {file}: not as this command wrote it ({what})") from error
    return evaluation


def lines_of(evaluation: Evaluation, other: Evaluation | None) -> list[tuple[str, list[Line]]]:
    """The tables: a title and the lines of each."""
    shown = evaluation["figures"]
    names = [*shown, *(name for name in (other or {}).get("figures", {}) if name not in shown)]
    tables = [("Figures", [_line(_title(name), _at(evaluation, name), _at(other, name)) for name in names])]
    for measure, title in sensitivity.MEASURES.items():
        lines = [
            _line(edit, _drop(evaluation, name, measure), _drop(other, name, measure))
            for name, edit in sensitivity.TITLES.items()
            if name in (evaluation["sensitivity"] or {})
        ]
        if lines:
            tables.append((f"Edits of reasoning rated {sensitivity.HIGH} or higher: {title}", lines))
    return tables


def notes_of(evaluation: Evaluation, other: Evaluation | None) -> list[str]:
    """What a reader of the figures must know."""
    notes = list(evaluation["notes"])
    if other is None:
        return notes
    model, file = other["settings"]["model"], other["settings"]["file"]
    notes.append(f"compared with {model}, evaluated on {file}")
    if other["rows_digest"] != evaluation["rows_digest"]:
        notes.append("the compared evaluation is of other rows: differences are no comparison of the models alone")
    return notes


def show(evaluation: Evaluation, other: Evaluation | None, console: Console) -> None:
    """Print the tables and notes."""
    for title, lines in lines_of(evaluation, other):
        table = Table(title=escape(title), title_justify="left")
        table.add_column("", overflow="fold")
        for heading in ("value", "compared", "difference", "n"):
            if other is not None or heading in ("value", "n"):
                table.add_column(heading, justify="right", overflow="fold")
        for line in lines:
            middle = (line.other, line.difference) if other is not None else ()
            table.add_row(*map(escape, (line.title, line.value, *middle, line.n)))
        console.print(table)
    for note in notes_of(evaluation, other):
        console.print(f"note: {escape(note)}", soft_wrap=True, highlight=False)


def _title(name: str) -> str:
    return figures.TITLES.get(name) or f"missing: {name.removeprefix('failure.')}"


def _at(evaluation: Evaluation | None, name: str) -> Mapping[str, Any]:
    return evaluation["figures"].get(name, {}) if evaluation else {}


def _drop(evaluation: Evaluation | None, name: str, measure: str) -> Mapping[str, Any]:
    return ((evaluation or {}).get("sensitivity") or {}).get(name, {}).get(measure, {})


def _line(title: str, figure: Mapping[str, Any], other: Mapping[str, Any]) -> Line:
    values = figure.get("value"), other.get("value")
    difference = "" if None in values else f"{values[0] - values[1]:+.3f}"
    return Line(title, _text(figure), _text(other), difference, str(figure.get("n", "")))


def _text(figure: Mapping[str, Any]) -> str:
    if figure.get("value") is None:
        return f"– ({figure['reason']})" if figure.get("reason") else ""
    if figure["low"] is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"
