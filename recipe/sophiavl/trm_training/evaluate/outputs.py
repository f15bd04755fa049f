"""An evaluation as a JSON file, and as tables that the console, the page and the Markdown summary share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from data_preprocess.core.files import replacing
from recipe.sophiavl.trm_training.evaluate import figures, sensitivity
from recipe.sophiavl.trm_training.evaluate.statistics import Interval, Statistic

FORMAT = "sophiavl-trm-evaluation/3"
COUNTS = ("n", "questions", "images")
_INTERVALS = "[95 % intervals by tied images]"
# What a reader asks first; all figures are in the page and the JSON file.
_SUMMARY = (
    *("spearman", "mae", "pairs_ordered", "auc", "pairs_right"),
    *("best_of_n", "best_of_n_random", "best_of_n_majority", "best_of_n_oracle", "gamma", "distrusted"),
)

Evaluation = Mapping[str, Any]
Figure = Mapping[str, Any]


class EvaluationError(ValueError):
    """A file or a setting that cannot be used; the message names it and says what is wrong."""


@dataclass(frozen=True)
class Table:
    """Figures for people: `columns` name the cells of each row after its title, the first of `row`."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


def figure_of(statistic: Statistic, span: Interval, counts: Mapping[str, int]) -> dict[str, Any]:
    """Value, interval, and what they rest on; ``reason`` where the value or its interval is null."""
    figure = {"value": statistic.value(), "low": span.low, "high": span.high, "n": statistic.n, **counts}
    return figure if span.reason is None else {**figure, "reason": span.reason}


def save_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write `content`; equal contents give equal files."""
    with replacing(file) as temporary:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
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
        tables_of(evaluation | {"compared": compared_with(evaluation, {})})
        str(evaluation["rows_digest"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise EvaluationError(f"--compare {file}: not as this command wrote it ({what})") from error
    return evaluation


def compared_with(other: Evaluation, differences: Mapping[str, Figure]) -> dict[str, Any]:
    """What an evaluation keeps of another one beside it: its figures, and the paired `differences` from it."""
    kept = {name: other[name] for name in ("figures", "reliability", "sensitivity")}
    return {**kept, "model": other["settings"]["model"], "file": other["settings"]["file"], "differences": differences}


def tables_of(evaluation: Evaluation) -> list[Table]:
    """The tables of an evaluation; columns without any value are left out."""
    compared = evaluation.get("compared")
    shown = [*evaluation["figures"], *((compared or {}).get("figures", ()))]
    failures = dict.fromkeys(name for name in shown if name.startswith("failure."))
    lines = [
        [
            figures.title_of(name),
            *(evaluation["figures"].get(name + end, {}) for end in figures.RATERS),
            *_beside(compared, name),
        ]
        for name in [*figures.TITLES, *failures]
    ]
    tables = [table_of(f"Figures {_INTERVALS}", [*figures.RATERS.values(), "compared", "difference"], lines)]
    edits = evaluation["sensitivity"] or {}
    lines = [
        [
            sensitivity.title_of(entry),
            *(measures.get(name, {}) for name in sensitivity.MEASURES),
            *_beside(compared, entry, "mean_drop"),
        ]
        for entry, measures in edits.items()
    ]
    if lines:
        title = f"Edits of reasoning rated {sensitivity.HIGH} or higher: drop of the score {_INTERVALS}"
        tables.append(table_of(title, [*sensitivity.MEASURES.values(), "compared", "difference"], lines))
    return tables


def _beside(compared: Mapping[str, Any] | None, name: str, measure: str | None = None) -> tuple[Figure, Figure]:
    """The other evaluation's figure, or its measure of an edit, and the difference from it."""
    if compared is None:
        return {}, {}
    if measure is None:
        return compared["figures"].get(name, {}), compared["differences"].get(name, {})
    edits = compared["sensitivity"] or {}
    return edits.get(name, {}).get(measure, {}), compared["differences"].get(f"{name}.{measure}", {})


def table_of(title: str, columns: Sequence[str], lines: Sequence[Sequence[Any]], *, signed: bool = False) -> Table:
    """Each line is a title and a figure for each column; how many values they rest on comes last.

    Args:
        signed: all figures are differences, as those of the column of this name are.
    """
    rows = []
    for name, *cells in lines:
        first = next((cell for cell in cells if cell), {})
        texts = [
            _text(cell, first, signed=signed or column == "difference")
            for column, cell in zip(columns, cells, strict=True)
        ]
        rows.append((name, *texts, *(str(first.get(count, "")) for count in COUNTS)))
    used = [0, *(place for place in range(1, len(columns) + 4) if any(row[place] for row in rows))]
    names = ("", *columns, *COUNTS)
    return Table(
        title, tuple(names[place] for place in used[1:]), [tuple(row[place] for place in used) for row in rows]
    )


def _text(figure: Figure, first: Figure, *, signed: bool = False, digits: int = 3) -> str:
    """Value and interval, with the number of values where the line's first figure rests on another."""
    if figure.get("value") is None:
        return f"– ({figure['reason']})" if figure.get("reason") else ""
    text = f"{figure['value']:{'+' * signed}.{digits}f}"
    if figure["low"] is not None:
        text += f" [{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]"
    return text if signed or figure["n"] == first["n"] else f"{text} (n {figure['n']})"


def show(tables: Sequence[Table], notes: Sequence[str], console: Console) -> None:
    """Print tables and notes."""
    for table in tables:
        printed = RichTable(title=escape(table.title), title_justify="left")
        printed.add_column("", overflow="fold")
        for column in table.columns:
            printed.add_column(column, justify="right", overflow="fold")
        for row in table.rows:
            printed.add_row(*map(escape, row))
        console.print(printed)
    for note in notes:
        console.print(f"note: {escape(note)}", soft_wrap=True, highlight=False)


def summary_of(evaluation: Evaluation) -> str:
    """The figures that a reader asks for first, as a Markdown table: who is scored is the column."""
    compared = evaluation.get("compared")
    lines = [
        (
            figures.title_of(name),
            _beside(compared, name)[0],
            *(evaluation["figures"].get(name + end, {}) for end in figures.RATERS),
        )
        for name in _SUMMARY
    ]
    for entry, measures in (evaluation["sensitivity"] or {}).items():
        title = f"mean drop: {sensitivity.title_of(entry)}"
        drops = (measures.get(name, {}) for name in ("mean_drop", "judge_drop", "blind_drop"))
        lines.append((title, _beside(compared, entry, "mean_drop")[0], *drops))
    rows = [(title, *(_text(cell, cell, digits=2) for cell in cells)) for title, *cells in lines]
    heads = ["", "compared", *figures.RATERS.values()]
    used = [0, *(place for place in range(1, len(heads)) if any(row[place] for row in rows))]
    counts = evaluation["counts"]
    written = [[heads[place] for place in used], ["-"] * len(used), *([row[place] for place in used] for row in rows)]
    return "\n".join(
        [
            f"{counts['rows']} rows, {counts['questions']} questions, {counts['images']} images; 95 % intervals by "
            "tied images",
            "",
            *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in written),
            "",
        ]
    )
