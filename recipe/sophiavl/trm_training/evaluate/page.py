"""An evaluation as one HTML page that needs nothing else: plots and images inline, all text escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from recipe.sophiavl.trm.images import BadImageError, data_url, digest_image, load_image
from recipe.sophiavl.trm_training.evaluate import sensitivity
from recipe.sophiavl.trm_training.evaluate.figures import CORRECT, RATERS
from recipe.sophiavl.trm_training.evaluate.outputs import Evaluation, tables_of
from recipe.sophiavl.trm_training.evaluate.rows import EvaluationSet
from recipe.sophiavl.trm_training.evaluate.statistics import Floats
from recipe.sophiavl.trm_training.intervals import INTERVALS

# More points than this hide each other.
_MOST_POINTS = 2000

# Nothing but inline pictures and styles may load, whatever a row or a reply holds.
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<style>
:root { color-scheme: light dark }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 } th, td { text-align: left; padding: .2rem .8rem .2rem 0 }
td.number { text-align: right; font-variant-numeric: tabular-nums }
.plots { display: flex; flex-wrap: wrap; gap: 1rem } figure { margin: 0; max-width: 34rem }
figure img { max-width: 100%; background: white }
article { border-top: 1px solid #8886; padding: 1rem 0; display: grid; grid-template-columns: 20rem 1fr; gap: 1.5rem }
article img { max-width: 100%; max-height: 24rem; border: 1px solid #8884; display: block; margin-bottom: .5rem }
dt { font-weight: 600; margin-top: .4rem }
dd { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; max-height: 24rem; overflow: auto }
.none { opacity: .6 }
@media (max-width: 48rem) { article { grid-template-columns: 1fr } }
</style></head><body>
<h1>{{ title }}</h1>
<p>Values in brackets are 95 % intervals: whole sets of tied images are resampled. A number of values (n) beside a value
is its own, where it differs from that of its line. Differences are paired.</p>
{% for table in tables %}<h2>{{ table.title }}</h2>
<table><tr><th></th>{% for column in table.columns %}<th>{{ column }}</th>{% endfor %}</tr>
{% for row in table.rows %}<tr>{% for cell in row %}<td{% if not loop.first %} class="number"{% endif %}>{{ cell }}</td>
{%- endfor %}</tr>{% endfor %}
</table>{% endfor %}
<ul>{% for note in notes %}<li>{{ note }}</li>{% endfor %}</ul>
<h2>Plots</h2>
<div class="plots">{% for name, url in plots %}<figure><figcaption>{{ name }}</figcaption>
<img src="{{ url }}" alt="{{ name }}"></figure>
{% else %}<p class="none">nothing to draw</p>{% endfor %}</div>
<h2>The {{ worst | length }} worst disagreements</h2>
{% for row in worst %}<article><div>
{% for url in row.images %}{% if url %}<img src="{{ url }}" alt="image {{ loop.index }} of row {{ row.number }}">
{% else %}<p class="none">an image that cannot be shown</p>{% endif %}
{% else %}<p class="none">no image</p>{% endfor %}</div>
<dl>{% for name, text in row.fields %}<dt>{{ name }}</dt><dd>{{ text }}</dd>{% endfor %}</dl></article>
{% endfor %}</body></html>
"""


def render_page(evaluation: Evaluation, data: EvaluationSet, trm: Floats, worst: Sequence[Mapping[str, Any]]) -> str:
    """The page.

    Args:
        trm: the TRM's scores, NaN where missing, shape (rows,).
        worst: rows with ``number``, ``question``, ``images``, ``thinking``, ``reference``, ``score`` and ``reply``.
    """
    page = jinja2.Environment(autoescape=True).from_string(_PAGE)
    return page.render(
        title=f"Thinking reward model {evaluation['settings']['model']} on {data.file.name}",
        tables=tables_of(evaluation),
        notes=evaluation["notes"],
        plots=_plots(evaluation, data, trm),
        worst=[_shown(row) for row in worst],
    )


def _plots(evaluation: Evaluation, data: EvaluationSet, trm: Floats) -> list[tuple[str, str]]:
    drawn = {
        "TRM's score against the reference": scatter(data.reference, trm),
        "Rows by interval": confusion_map(evaluation["confusion"]["counts"]),
        "Reliability: mean reference by the TRM's interval, with the number of rows": reliability_diagram(
            evaluation["reliability"], (evaluation["compared"] or {}).get("reliability")
        ),
        "ROC: score as a predictor of the correct outcome": roc_curves(data.reference, trm, data.outcome),
        "Best of a group: accuracy by who picks": best_of_n_bars(evaluation["figures"]),
        "Sensitivity to edits: mean drop of the score": sensitivity_bars(evaluation),
    }
    return [
        (name, "data:image/png;base64," + base64.b64encode(png).decode("ascii"))
        for name, png in drawn.items()
        if png is not None
    ]


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


def scatter(reference: Floats, trm: Floats) -> bytes | None:
    """The TRM's score of each row against the reference; None without rows that have both."""
    both = ~np.isnan(reference) & ~np.isnan(trm)
    if not both.any():
        return None
    figure, axis = _square("reference", "TRM")
    if both.sum() > _MOST_POINTS:
        # Cells around the tenths and half-way between them: no score lies on an edge.
        edges = np.linspace(-0.025, 1.025, 22)
        *_, drawn = axis.hist2d(reference[both], trm[both], bins=(edges, edges), cmin=1, norm="log")
        figure.colorbar(drawn, ax=axis, label="rows", shrink=0.8)
    else:
        # Many scores are equal tenths: moved a little, as many points show as there are rows.
        moved = np.random.default_rng(0).uniform(-0.015, 0.015, (2, int(both.sum())))
        axis.scatter(reference[both] + moved[0], trm[both] + moved[1], s=10, alpha=0.4, linewidths=0)
    return _png(figure)


def confusion_map(counts: Sequence[Sequence[int]]) -> bytes | None:
    """Rows by intervals of both scores; None without rows."""
    table = np.array(counts)
    if not table.sum():
        return None
    figure, axis = _square("TRM", "reference", diagonal=False)
    axis.imshow(table, origin="lower", extent=(0, 1, 0, 1), cmap="Blues")
    for row, column in np.argwhere(table):
        colour = "white" if table[row, column] > table.max() / 2 else "black"
        place = ((column + 0.5) / INTERVALS, (row + 0.5) / INTERVALS)
        axis.text(*place, str(table[row, column]), ha="center", va="center", fontsize=7, color=colour)
    return _png(figure)


def reliability_diagram(
    reliability: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]] | None
) -> bytes | None:
    """Mean reference over the mean TRM score, by the TRM's interval; None without rows."""
    if not any(entry["n"] for entry in reliability):
        return None
    figure, axis = _square("TRM", "mean reference")
    for entries, name, colour in zip(
        (reliability, other), ("this evaluation", "compared with"), ("C0", "C1"), strict=True
    ):
        filled = [entry for entry in entries or () if entry["value"] is not None]
        if not filled:
            continue
        places = [entry["mean_score"] for entry in filled]
        axis.errorbar(places, [entry["value"] for entry in filled], _errors(filled), fmt="o-", color=colour, label=name)
        for place, entry in zip(places, filled, strict=True):
            if entries is reliability:
                axis.annotate(
                    str(entry["n"]), (place, entry["value"]), (4, -10), textcoords="offset points", fontsize=7
                )
    axis.legend(fontsize=8)
    return _png(figure)


def roc_curves(reference: Floats, trm: Floats, outcome: Floats) -> bytes | None:
    """ROC curves of both scores for the correct outcome, over the rows that have both; None without both outcomes."""
    figure, axis = _square("false positive rate", "true positive rate")
    for name, score, needed in (("TRM", trm, trm), ("reference", reference, trm + reference)):
        judged = ~np.isnan(needed) & ~np.isnan(outcome)
        correct = outcome[judged] >= CORRECT
        if correct.any() and not correct.all():
            axis.plot(*roc_curve(correct, score[judged])[:2], label=name)
    if len(axis.lines) == 1:  # the diagonal
        return None
    axis.legend(fontsize=8)
    return _png(figure)


def best_of_n_bars(figures: Mapping[str, Any]) -> bytes | None:
    """Accuracy of the picks from each group; None where no group has two responses."""
    picks = {"random": "best_of_n_random", "most frequent answer": "best_of_n_majority"}
    picks |= {f"best by {rater}": f"best_of_n{end}" for end, rater in RATERS.items()}
    picks["oracle"] = "best_of_n_oracle"
    known = {title: figures[name] for title, name in picks.items() if figures.get(name, {}).get("value") is not None}
    return _bars(list(known), {"accuracy": list(known.values())}, "accuracy") if known else None


def sensitivity_bars(evaluation: Evaluation) -> bytes | None:
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


def _bars(names: Sequence[str], series: Mapping[str, Sequence[Mapping[str, Any]]], label: str) -> bytes:
    """Horizontal bars with their intervals, a place for each name and a colour for each series that has values."""
    shown = {name: found for name, found in series.items() if any(one.get("value") is not None for one in found)}
    figure = Figure(figsize=(6, 1 + 0.28 * len(names) * (1 + len(shown) / 2)), layout="constrained")
    axis = figure.subplots()
    height = 0.8 / len(shown)
    for index, (name, found) in enumerate(shown.items()):
        filled = [(place + index * height, one) for place, one in enumerate(found) if one.get("value") is not None]
        errors = _errors([one for _, one in filled])
        axis.barh([place for place, _ in filled], [one["value"] for _, one in filled], height, xerr=errors, label=name)
    axis.set_yticks([place + height * (len(shown) - 1) / 2 for place in range(len(names))], names)
    axis.invert_yaxis()
    axis.axvline(0, color="grey", linewidth=1)
    axis.set_xlabel(label)
    if len(shown) > 1:
        axis.legend(fontsize=8)
    return _png(figure)


def _square(xlabel: str, ylabel: str, *, diagonal: bool = True) -> tuple[Figure, Any]:
    """A figure of the unit square. Made without pyplot, which would keep it in a process-wide list."""
    figure = Figure(figsize=(5, 4.5), layout="constrained")
    axis = figure.subplots()
    if diagonal:
        axis.plot((0, 1), (0, 1), color="grey", linewidth=1, linestyle="--")
    axis.set(xlabel=xlabel, ylabel=ylabel, xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    return figure, axis


def _errors(entries: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    """Distances from the values down and up to the ends of their intervals; 0 where there is no interval."""
    known = [entry["low"] is not None for entry in entries]
    # A percentile interval need not hold its value, and a negative length is none.
    down = [max(0.0, entry["value"] - entry["low"]) if k else 0.0 for entry, k in zip(entries, known, strict=True)]
    up = [max(0.0, entry["high"] - entry["value"]) if k else 0.0 for entry, k in zip(entries, known, strict=True)]
    return [down, up]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
