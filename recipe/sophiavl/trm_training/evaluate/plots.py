"""The page's plots, as PNG files in memory."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from recipe.sophiavl.trm_training.evaluate.figures import INTERVALS, roc_points
from recipe.sophiavl.trm_training.evaluate.sensitivity import TITLES as EDITS
from recipe.sophiavl.trm_training.evaluate.statistics import Floats

# More points than this hide each other.
_MOST_POINTS = 2000
_NAMES = ("this evaluation", "compared with")


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
    for entries, name, colour in zip((reliability, other), _NAMES, ("C0", "C1"), strict=True):
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
    """ROC curves of both scores for the correct outcome; None without rows of both outcomes."""
    scored = np.where(np.isnan(trm), np.nan, reference)
    curves = {"TRM": roc_points(trm, outcome), "reference": roc_points(scored, outcome)}
    if not any(curves.values()):
        return None
    figure, axis = _square("false positive rate", "true positive rate")
    for name, points in curves.items():
        if points is not None:
            axis.plot(*points, label=name)
    axis.legend(fontsize=8)
    return _png(figure)


def sensitivity_bars(sensitivity: Mapping[str, Any], other: Mapping[str, Any] | None) -> bytes | None:
    """Mean drop under each edit; None where none was measured."""
    names = [name for name in EDITS if sensitivity.get(name, {}).get("mean_drop", {}).get("value") is not None]
    if not names:
        return None
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    shown = [sensitivity] if other is None else [sensitivity, other]
    height = 0.8 / len(shown)
    for index, source in enumerate(shown):
        drops = [(place, source.get(name, {}).get("mean_drop", {})) for place, name in enumerate(names)]
        filled = [(place + index * height, drop) for place, drop in drops if drop.get("value") is not None]
        places, values = [place for place, _ in filled], [drop["value"] for _, drop in filled]
        axis.barh(places, values, height, xerr=_errors([drop for _, drop in filled]), label=_NAMES[index], capsize=3)
    axis.set_yticks([place + height * (len(shown) - 1) / 2 for place in range(len(names))], [EDITS[n] for n in names])
    axis.invert_yaxis()
    axis.axvline(0, color="grey", linewidth=1)
    axis.set_xlabel("mean drop of the score")
    if other is not None:
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
