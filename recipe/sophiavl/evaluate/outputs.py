"""An evaluation's results as a JSON file and as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_preprocess.core.files import replacing
from data_preprocess.core.shown import one_line
from recipe.sophiavl.evaluate.comparison import FORMAT, otherwise
from recipe.sophiavl.evaluate.evaluation import Found, Scoring
from recipe.sophiavl.evaluate.figures import ALL, SOURCE, TYPE, is_of_right_answers, order_of, title_of
from recipe.sophiavl.evaluate.questions import Question
from recipe.sophiavl.trm_training.asking import kinds
from recipe.sophiavl.trm_training.evaluate.outputs import Table, table_of

Results = Mapping[str, Any]
_INTERVALS = "[95 % intervals by tied images]"


def results_of(
    name: str,
    settings: Mapping[str, Any],
    scoring: Scoring,
    questions: Sequence[Question],
    found: Found,
    figures: Mapping[str, Any],
    compared: Sequence[Mapping[str, Any]],
    samples: int,
) -> dict[str, Any]:
    """What is written to ``results.json``."""
    results = {
        "format": FORMAT,
        "name": name,
        "settings": {**settings, "samples": samples},
        "scoring": {
            "outcome": vars(scoring.outcome),
            "threshold": scoring.threshold,
            "threshold_by_type": dict(scoring.threshold_by_type),
        },
        "counts": {
            "questions": len(questions),
            "answers": len(questions) * samples - found.errors.total(),
            "errors": dict(found.errors.most_common()),
            "missing_thinking": dict(found.missing_thinking.most_common()),
            "repeated_questions": sum("-" in question.id for question in questions),
            "parted_thinking": found.parted,
        },
        "figures": figures,
        "compared": list(compared),
        "first_errors": found.first_errors,
    }
    return results | {"notes": _notes(results)}


def _notes(results: Results) -> list[str]:
    """What a reader of the figures must know."""
    counts, settings = results["counts"], results["settings"]
    notes = []
    if errors := sum(counts["errors"].values()):
        asked = counts["questions"] * settings["samples"]
        notes.append(
            f"{errors} of {asked} answers are missing ({kinds(counts['errors'])}): every figure is of the others. The "
            f"first: {results['first_errors'][0]}"
        )
    if missing := sum(counts["missing_thinking"].values()):
        notes.append(
            f"{missing} thinking rewards are missing ({kinds(counts['missing_thinking'])}): the mean is of the others"
        )
    if counts["repeated_questions"]:
        notes.append(f"{counts['repeated_questions']} questions stand in the data more than once; each time counts")
    if counts["parted_thinking"]:
        notes.append(
            f"the server parts the thinking from {counts['parted_thinking']} answers: the tags were put back, and "
            "whether the format was followed is the server's parser's word"
        )
    if settings["samples"] > 1:
        notes.append("majority vote: of a tie the share of the tied answers that are right")
    for other in results["compared"]:
        notes.append(
            f"difference from {other['name']}: over the {other['both']} questions that both answered"
            f" ({other['only_here']} only here, {other['only_there']} only there)"
        )
        if differs := otherwise(results, other):
            notes.append(f"{other['name']} was asked or scored otherwise: {'; '.join(differs)}")
    return [one_line(note, 1000) for note in notes]


def tables_of(results: Results) -> list[Table]:
    """The tables of an evaluation: figures by group, and, where others are compared, the differences."""
    figures = results["figures"]
    tables = [
        _table(f"{results['name']}: {what} {_INTERVALS}", figures, figures, right=right)
        for what, right in (("right answers", True), ("how it answers", False))
    ]
    for other in results["compared"]:
        if other["differences"]:
            title = f"Difference from {other['name']}, each question with itself {_INTERVALS}"
            tables.append(_table(title, other["differences"], figures, signed=True))
    return tables


def _table(
    title: str,
    figures: Mapping[str, Any],
    order: Mapping[str, Any],
    *,
    right: bool | None = None,
    signed: bool = False,
) -> Table:
    """Groups in the order of `order`, with all measures, or only with those of being right, or without them."""
    groups = [group for group in order if group in figures]
    measures = order_of({name for group in groups for name in figures[group]})
    measures = [name for name in measures if right is None or right == is_of_right_answers(name)]
    if all(_value(figures[group], "reward") == _value(figures[group], "accuracy") for group in groups):
        measures = [name for name in measures if name != "reward"]  # all rewards are 0 or 1
    lines = [[group_title(group), *(figures[group].get(name, {}) for name in measures)] for group in groups]
    return table_of(one_line(title), [title_of(name) for name in measures], lines, signed=signed)


def _value(figures: Mapping[str, Any], measure: str) -> float | None:
    return figures.get(measure, {}).get("value")


def group_title(group: str) -> str:
    """What tables and charts call a group."""
    return one_line("all" if group == ALL else group.removeprefix(SOURCE).removeprefix(TYPE))


def markdown_of(results: Results) -> str:
    """The tables and notes as Markdown."""
    parts = []
    for table in tables_of(results):
        rows = [("", *table.columns), ["-"] * (len(table.columns) + 1), *table.rows]
        lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
        parts.append("\n".join([table.title, "", *lines]))
    parts += [f"- {note}" for note in results["notes"]]
    return "\n\n".join(parts) + "\n"


def save_text(file: Path, text: str) -> None:
    """Write a text file that is there in full or not at all."""
    with replacing(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
