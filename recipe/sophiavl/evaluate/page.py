"""An evaluation as one HTML page that needs nothing else."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Drawing

from page_kit.charts import SERIES, colour, styled, to_svg
from page_kit.page import Figure, Table, render
from recipe.sophiavl.evaluate.evaluation import SCORED
from recipe.sophiavl.evaluate.outputs import Results, group_title, tables_of
from recipe.sophiavl.evaluate.questions import Question, images_of, stream
from recipe.sophiavl.trm.images import data_url, digest_image

PAGE = "results.html"
_TEMPLATE = Path(__file__).parent / "templates" / PAGE
_SHOWN = 12
_MOST_CHARS = 4000
_FIELDS = {
    "where": "row",
    "problem_type": "type",
    "question": "question",
    "response": "response",
    "answer": "answer",
    "truth": "truth",
    "reward": "reward",
    "thinking_reward": "thinking reward",
}


def render_page(results: Results, folder: Path, files: Sequence[Path], questions: Sequence[Question]) -> str:
    """The page, with some wrong and some right answers, drawn by chance but the same each time."""
    counts = results["counts"]
    galleries = [
        (name, f"{len(rows)} {name} answers", rows)
        for name, correct in (("wrong", False), ("right", True))
        for rows in [_gallery(folder / SCORED, correct, files, questions)]
    ]
    defined = {**results["settings"], **results["scoring"], **results["scoring"]["outcome"]}
    return render(
        _TEMPLATE,
        title=f"{results['name']} on {results['settings']['data'].partition(', ')[0]}",
        subtitle=f"{counts['questions']} questions, {counts['answers']} answers",
        tables=[Table(("", *table.columns), table.rows, table.title) for table in tables_of(results)],
        notes=results["notes"],
        plots=[accuracy_bars(results)],
        settings=Table(
            ("", "value"),
            [(key, _told(value)) for key, value in defined.items() if key != "outcome"],
            texts=2,
        ),
        galleries=galleries,
    )


def _told(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def accuracy_bars(results: Results) -> Figure:
    """Accuracy of each group with its interval."""
    figures = {group: found["accuracy"] for group, found in results["figures"].items() if "accuracy" in found}
    if not figures:
        return Figure("Accuracy", None)
    values = [one["value"] for one in figures.values()]
    ends = [
        (value if one["low"] is None else one["low"], value if one["high"] is None else one["high"])
        for value, one in zip(values, figures.values(), strict=True)
    ]
    # A percentile interval need not hold its value, and a negative length is none.
    reach = [
        [max(0.0, v - low) for v, (low, _) in zip(values, ends, strict=True)],
        [max(0.0, high - v) for v, (_, high) in zip(values, ends, strict=True)],
    ]
    with styled():
        drawing = Drawing(figsize=(5, 1 + 0.3 * len(figures)))
        axis = drawing.subplots()
        axis.barh(range(len(figures)), values, 0.7, xerr=reach, color=colour(SERIES[0]), ecolor=colour("muted"))
        axis.set_yticks(range(len(figures)), [group_title(group) for group in figures])
        axis.invert_yaxis()
        axis.grid(visible=False, axis="y")
        axis.set_xlim(0, 1)
        axis.set_xlabel("accuracy")
        return Figure("Accuracy", to_svg(drawing, "Accuracy by group"), "With 95 % intervals.")


def _gallery(scored: Path, correct: bool, files: Sequence[Path], questions: Sequence[Question]) -> list[dict[str, Any]]:
    """Some answers that are right, or wrong, with their images, in the order of the data."""
    chosen = _draw(line for line in _lines(scored) if line["correct"] is correct)
    by_id = {question.id: question for question in questions if question.id in {line["id"] for line in chosen}}
    images = {question.id: _urls(row) for question, row in stream(files, by_id.values())}
    return [
        {
            "number": by_id[line["id"]].number,
            "images": images[line["id"]],
            "fields": [(title, _cut(line[name])) for name, title in _FIELDS.items() if line[name] is not None],
        }
        for line in chosen
    ]


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _draw(lines: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """A sample of `_SHOWN` lines, in order; as many in memory (reservoir sampling)."""
    chooser = random.Random(0)
    kept: dict[int, tuple[int, dict[str, Any]]] = {}
    for number, line in enumerate(lines):
        place = number if number < _SHOWN else chooser.randrange(number + 1)
        if place < _SHOWN:
            kept[place] = (number, line)
    return [line for _, line in sorted(kept.values(), key=lambda pair: pair[0])]


def _urls(row: Mapping[str, Any]) -> list[str]:
    return [data_url(digest_image(image)) for image in images_of(row)]


def _cut(value: Any) -> str:
    text = value if isinstance(value, str) else f"{value:.3g}"
    return text if len(text) <= _MOST_CHARS else text[:_MOST_CHARS] + "…"
