"""An evaluation as one HTML page that needs nothing else: plots and images inline, all text escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure as Drawing
from sklearn.metrics import roc_curve

from page_kit.charts import SCALE, SERIES, colour, styled, to_svg
from page_kit.page import Figure, Table, render
from recipe.sophiavl.trm.images import BadImageError, data_url, digest_image, load_image
from recipe.sophiavl.trm_training.evaluate import sensitivity
from recipe.sophiavl.trm_training.evaluate.figures import CORRECT, RATERS
from recipe.sophiavl.trm_training.evaluate.outputs import Evaluation, tables_of
from recipe.sophiavl.trm_training.evaluate.rows import EvaluationSet
from recipe.sophiavl.trm_training.evaluate.statistics import Floats
from recipe.sophiavl.trm_training.intervals import INTERVALS

_TEMPLATE = Path(__file__).parent / "templates" / "evaluation.html"
# More points than this hide each other.
_MOST_POINTS = 2000

# A drawing, and the legend that the page writes beside it.
Drawn = tuple[Markup, Sequence[tuple[str, str]]]


def render_page(evaluation: Evaluation, data: EvaluationSet, trm: Floats, worst: Sequence[Mapping[str, Any]]) -> str:
    """The page.

    Args:
        trm: the TRM's scores, NaN where missing, shape (rows,).
        worst: rows with ``number``, ``question``, ``images``, ``thinking``, ``reference``, ``score`` and ``reply``.
    """
    counts = evaluation["counts"]
    return render(
        _TEMPLATE,
        title=f"Thinking reward model {evaluation['settings']['model']} on {data.file.name}",
        subtitle=f"{counts['rows']} rows, {counts['questions']} questions, {counts['images']} images",
        tables=[Table(("", *table.columns), table.rows, table.title) for table in tables_of(evaluation)],
        notes=evaluation["notes"],
        plots=_plots(evaluation, data, trm),
        worst=[_shown(row) for row in worst],
    )


def _plots(evaluation: Evaluation, data: EvaluationSet, trm: Floats) -> list[Figure]:
    compared = evaluation["compared"] or {}
    drawn = (
        (
            "TRM's score against the reference",
            "Each row of the data; on the dashed line both agree. Points are moved a little, since many scores are "
            "equal tenths; many rows are drawn as cells.",
            scatter(data.reference, trm),
        ),
        (
            "Rows by interval",
            "How many rows have their two scores in these intervals.",
            confusion_map(evaluation["confusion"]["counts"]),
        ),
        (
            "Reliability",
            "Mean reference by the TRM's interval, with the number of rows and 95 % intervals; on the dashed line a "
            "score means what it says.",
            reliability_diagram(evaluation["reliability"], compared.get("reliability")),
        ),
        (
            "ROC",
            "Score as a predictor of the correct outcome; the dashed line is a coin's.",
            roc_curves(data.reference, trm, data.outcome),
        ),
        (
            "Best of a group",
            "Accuracy of the response picked from each group, by who picks.",
            best_of_n_bars(evaluation["figures"]),
        ),
        (
            "Sensitivity to edits",
            "By how much the score falls when reasoning rated high is spoilt.",
            sensitivity_bars(evaluation),
        ),
    )
    return [Figure(title, found[0], note, legend=found[1]) for title, note, found in drawn if found is not None]


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("number", "reference", "score", "question", "thinking", "reply")
    titles = ("row", "reference", "TRM", "question", "thinking", "the TRM's reply")
    fields = [(title, row[name]) for title, name in zip(titles, names, strict=True)]
    return {"number": row["number"], "images": [_url(image) for image in row["images"] or ()], "fields": fields}


def _url(image: Any) -> str | None:
    try:
        return data_url(digest_image(load_image(image)))
    except BadImageError:
        return None


def scatter(reference: Floats, trm: Floats) -> Drawn | None:
    """The TRM's score of each row against the reference; None without rows that have both."""
    both = ~np.isnan(reference) & ~np.isnan(trm)
    if not both.any():
        return None
    with styled():
        figure, axis = _square("reference", "TRM")
        if both.sum() <= _MOST_POINTS:
            moved = np.random.default_rng(0).uniform(-0.015, 0.015, (2, int(both.sum())))
            places = (reference[both] + moved[0], trm[both] + moved[1])
            axis.scatter(*places, s=10, alpha=0.4, linewidths=0, color=colour("accent"))
            return to_svg(figure, f"Scatter plot of {both.sum()} rows"), ()
        # Cells around the tenths and half-way between them: no score lies on an edge.
        edges = np.linspace(-0.025, 1.025, 22)
        counts, _, _ = np.histogram2d(reference[both], trm[both], bins=(edges, edges))
        most = counts.max()
        axis.pcolormesh(edges, edges, np.ma.masked_equal(counts.T, 0), cmap=_scale(), norm=LogNorm(1, most))
        bounds = np.geomspace(1, most, len(SCALE) + 1)
        legend = [(name, f"from {bounds[place]:.0f}") for place, name in enumerate(SCALE)]
        return to_svg(figure, f"Map of {both.sum()} rows"), [*legend[:-1], (SCALE[-1], f"to {most:.0f} rows")]


def confusion_map(counts: Sequence[Sequence[int]]) -> Drawn | None:
    """Rows by intervals of both scores; None without rows."""
    table = np.array(counts)
    if not table.sum():
        return None
    with styled():
        figure, axis = _square("TRM", "reference", diagonal=False)
        axis.grid(visible=False)
        edges = np.linspace(0, 1, INTERVALS + 1)
        axis.pcolormesh(edges, edges, np.ma.masked_equal(table, 0), cmap=_scale(), vmin=0, vmax=table.max())
        for row, column in np.argwhere(table):
            dark = table[row, column] >= table.max() / 2
            place = ((column + 0.5) / INTERVALS, (row + 0.5) / INTERVALS)
            inside = {"ha": "center", "va": "center", "fontsize": 7, "color": colour("bg" if dark else "ink")}
            axis.text(*place, str(table[row, column]), **inside)
        return to_svg(figure, "Map of the rows by both scores"), ()


def reliability_diagram(
    reliability: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]] | None
) -> Drawn | None:
    """Mean reference over the mean TRM score, by the TRM's interval; None without rows."""
    if not any(entry["n"] for entry in reliability):
        return None
    legend = []
    with styled():
        figure, axis = _square("TRM", "mean reference")
        for entries, name, key in zip((reliability, other), ("this evaluation", "compared with"), SERIES, strict=False):
            filled = [entry for entry in entries or () if entry["value"] is not None]
            if not filled:
                continue
            legend.append((key, name))
            places = [entry["mean_score"] for entry in filled]
            drawn = {"fmt": "o-", "color": colour(key), "markersize": 4}
            axis.errorbar(places, [entry["value"] for entry in filled], _errors(filled), **drawn)
            for place, entry in zip(places, filled, strict=True):
                if entries is reliability:
                    near = {"textcoords": "offset points", "fontsize": 7, "color": colour("muted")}
                    axis.annotate(str(entry["n"]), (place, entry["value"]), (4, -10), **near)
        return to_svg(figure, "Reliability diagram"), legend


def roc_curves(reference: Floats, trm: Floats, outcome: Floats) -> Drawn | None:
    """ROC curves of both scores for the correct outcome, over the rows that have both; None without both outcomes."""
    legend = []
    with styled():
        figure, axis = _square("false positive rate", "true positive rate")
        scores = (("TRM", trm, trm), ("reference", reference, trm + reference))
        for (name, score, needed), key in zip(scores, SERIES, strict=False):
            judged = ~np.isnan(needed) & ~np.isnan(outcome)
            correct = outcome[judged] >= CORRECT
            if correct.any() and not correct.all():
                axis.plot(*roc_curve(correct, score[judged])[:2], color=colour(key))
                legend.append((key, name))
        return (to_svg(figure, "ROC curves"), legend) if legend else None


def best_of_n_bars(figures: Mapping[str, Any]) -> Drawn | None:
    """Accuracy of the picks from each group; None where no group has two responses."""
    picks = {"random": "best_of_n_random", "most frequent answer": "best_of_n_majority"}
    picks |= {f"best by {rater}": f"best_of_n{end}" for end, rater in RATERS.items()}
    picks["oracle"] = "best_of_n_oracle"
    known = {title: figures[name] for title, name in picks.items() if figures.get(name, {}).get("value") is not None}
    return _bars(list(known), {"accuracy": list(known.values())}, "accuracy") if known else None


def sensitivity_bars(evaluation: Evaluation) -> Drawn | None:
    """Mean drop under each edit, the judge's beside the TRM's; None where none was measured."""
    edits = evaluation["sensitivity"] or {}
    entries = [entry for entry, found in edits.items() if found["mean_drop"]["value"] is not None]
    compared = (evaluation["compared"] or {}).get("sensitivity") or {}
    series = {
        "TRM": [edits[entry]["mean_drop"] for entry in entries],
        "judge": [edits[entry].get("judge_drop", {}) for entry in entries],
        "text only": [edits[entry].get("blind_drop", {}) for entry in entries],
        "compared": [compared.get(entry, {}).get("mean_drop", {}) for entry in entries],
    }
    if not entries:
        return None
    return _bars([sensitivity.title_of(entry) for entry in entries], series, "mean drop of the score")


def _bars(names: Sequence[str], series: Mapping[str, Sequence[Mapping[str, Any]]], label: str) -> Drawn:
    """Horizontal bars with their intervals, a place for each name and a colour for each series that has values."""
    shown = {name: found for name, found in series.items() if any(one.get("value") is not None for one in found)}
    height = 0.8 / len(shown)
    with styled():
        figure = Drawing(figsize=(5, 1 + 0.28 * len(names) * (1 + len(shown) / 2)))
        axis = figure.subplots()
        for index, (found, key) in enumerate(zip(shown.values(), SERIES, strict=False)):
            filled = [(place + index * height, one) for place, one in enumerate(found) if one.get("value") is not None]
            drawn = {"xerr": _errors([one for _, one in filled]), "color": colour(key), "ecolor": colour("muted")}
            axis.barh([place for place, _ in filled], [one["value"] for _, one in filled], 0.9 * height, **drawn)
        axis.set_yticks([place + height * (len(shown) - 1) / 2 for place in range(len(names))], names)
        axis.invert_yaxis()
        axis.grid(visible=False, axis="y")
        axis.axvline(0, color=colour("muted"), linewidth=1)
        axis.set_xlabel(label)
        return to_svg(figure, f"Bars: {label}"), [*zip(SERIES, shown, strict=False)] if len(shown) > 1 else ()


def _square(xlabel: str, ylabel: str, *, diagonal: bool = True) -> tuple[Drawing, Axes]:
    """A figure of the unit square. Made without pyplot, which would keep it in a process-wide list."""
    figure = Drawing(figsize=(4.4, 4))
    axis = figure.subplots()
    if diagonal:
        axis.plot((0, 1), (0, 1), color=colour("muted"), linewidth=1, linestyle="--")
    axis.set(xlabel=xlabel, ylabel=ylabel, xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    return figure, axis


def _scale() -> ListedColormap:
    return ListedColormap([colour(name) for name in SCALE])


def _errors(entries: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    """Distances from the values down and up to the ends of their intervals; 0 where there is no interval."""
    known = [entry["low"] is not None for entry in entries]
    # A percentile interval need not hold its value, and a negative length is none.
    down = [max(0.0, entry["value"] - entry["low"]) if k else 0.0 for entry, k in zip(entries, known, strict=True)]
    up = [max(0.0, entry["high"] - entry["value"]) if k else 0.0 for entry, k in zip(entries, known, strict=True)]
    return [down, up]
