"""The pictures of trust: groups on the plane of their two means, and the thinking reward of right and wrong answers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure as Drawing

from page_kit.charts import SCALE, colour, styled, to_svg
from page_kit.page import Figure
from recipe.sophiavl.report.run_data import Trust, TrustBin

_MOST_COLUMNS = 8  # more make the bars too narrow to compare


def trust_figures(trust: Trust) -> list[Figure]:
    """Both pictures of a run, with their notes; the second one alone where no group was weighed."""
    return [means(trust), distributions(trust)] if trust.groups else [distributions(trust)]


def means(trust: Trust) -> Figure:
    """Each group's mean thinking reward of its right responses over that of its wrong ones, coloured by step."""
    title = "Right against wrong, group by group"
    drawn = len(trust.points)
    sampled = f" {drawn:,} of {trust.points_of:,} such groups are drawn." if drawn < trust.points_of else ""
    told = f"{trust.distrusted:,} of {trust.groups:,} groups with a thinking term were distrusted."
    note = f"{told} {trust.notes.get('points', '')}{sampled}"
    if not trust.points:
        return Figure(title, None, note)
    steps = np.array([point.step for point in trust.points])
    edges = np.unique(np.linspace(steps.min(), steps.max() + 1, len(SCALE) + 1).round().astype(int))
    names = [SCALE[-1]] if len(edges) == 2 else SCALE[-(len(edges) - 1) :]
    with styled():
        figure = Drawing(figsize=(6.2, 4.6))
        axis = figure.subplots()
        axis.fill_between((0, 1), (0, 1), (0, 0), color=colour("warn"), alpha=0.1, linewidth=0)
        axis.plot((0, 1), (0, 1), color=colour("muted"), linewidth=1, linestyle="--")
        axis.text(0.97, 0.05, "distrusted: gamma below 1", ha="right", color=colour("warn"))
        for name, (first, after) in zip(names, pairwise(edges), strict=True):
            there = [point for point in trust.points if first <= point.step < after]
            places = ([point.mu_wrong for point in there], [point.mu_correct for point in there])
            axis.scatter(*places, s=14, color=colour(name), alpha=0.75, linewidths=0)
        axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        axis.set(xlabel="mean thinking reward of the wrong responses", ylabel="of the right responses")
        svg = to_svg(figure, f"{drawn} groups; {told}")
    legend = [(name, _span(first, after - 1)) for name, (first, after) in zip(names, pairwise(edges), strict=True)]
    return Figure(title, svg, note, legend=legend)


def distributions(trust: Trust) -> Figure:
    """How the thinking reward is spread over right and over wrong answers, some steps after some others."""
    title = "Thinking reward of right and wrong answers"
    columns = _columns(trust.bins)
    scored = [(first, last, side) for first, last, *sides in columns for side in sides]
    most = max((side.max() / side.sum() for _, _, side in scored if side.sum()), default=0)
    note = f"{trust.notes.get('distributions', '')} A bar's length is the share of its side in these steps."
    if not most:
        return Figure(title, None, note)
    cells = np.array(trust.cells)
    height = 0.85 * (cells[1] - cells[0])
    with styled():
        figure = Drawing(figsize=(6.2, 3.2))
        axis = figure.subplots()
        axis.grid(visible=False, axis="x")
        for place, (_, _, right, wrong) in enumerate(columns):
            for side, name, sign in ((right, "right", 1), (wrong, "wrong", -1)):
                if side.sum():
                    lengths = sign * 0.46 * side / side.sum() / most
                    axis.barh(cells, lengths, height, left=place, color=colour(name), linewidth=0)
        axis.set_xticks(range(len(columns)), [_span(first, last, "") for first, last, *_ in columns])
        axis.set(xlabel="steps", ylabel="thinking reward", xlim=(-0.55, len(columns) - 0.45))
        svg = to_svg(figure, "Distributions of the thinking reward of right and of wrong answers")
    return Figure(title, svg, note, legend=[("wrong", "wrong answers"), ("right", "right answers")])


def _columns(bins: Sequence[TrustBin]) -> list[tuple[int, int, np.ndarray, np.ndarray]]:
    """First and last step with the counts of both sides; neighbours are taken together where there are many."""
    together = -(-len(bins) // _MOST_COLUMNS)
    parts = [bins[place : place + together] for place in range(0, len(bins), together or 1)]
    return [
        (part[0].first, part[-1].last, np.sum([one.right for one in part], 0), np.sum([one.wrong for one in part], 0))
        for part in parts
    ]


def _span(first: int, last: int, word: str = "step ") -> str:
    return f"{word}{first}" if first == last else f"{word and 'steps '}{first}–{last}"
