"""A study's figures as SVG files: learning curves in the form of the paper's Figure 5, and differences as forest plots.

A file carries its own background and both sets of the pages' colours: it follows the reader's light or dark scheme,
and a viewer that knows no such thing shows the light one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from page_kit.charts import SERIES, colour, styled, to_svg
from recipe.sophiavl.study.comparisons import (
    DEFAULT,
    MAIN_MODELS,
    MAIN_VARIANTS,
    OUTCOME_ONLY,
    Comparison,
    Measure,
    Pair,
    mixed,
)
from recipe.sophiavl.study.findings import Findings
from recipe.sophiavl.study.grid import NO_REWARD_MODEL
from recipe.sophiavl.study.results import Cell, StepLine

NAMES = (
    "curves.svg",
    "curves_other_models.svg",
    "curves_other_variants.svg",
    "differences.svg",
    "differences_others.svg",
)
Drawn = dict[str, tuple[str, str]]
"""By file name: SVG and description."""

_Curve = tuple[str, Callable[[StepLine], float | None]]
"""A row of panels: its title, and the value of a step."""

_FOREST = ("greedy", "sampled", "area", "thinking")
_BANDS = (
    "means over the sampled responses of each training step, mean over seeds; the band goes from the lowest to the "
    "highest seed."
)
_UNASKED = f" {OUTCOME_ONLY} asks no reward model: it is the same in every column."
_DASHES = ("-", "--", "-.", ":")
_VARIABLE = re.compile(r"var\(--(\w+)\)")
_DEFINED = re.compile(r"--(\w+): (#[0-9a-f]{6})")
_TITLE = 18  # characters of a line of a panel's title
_ROW = 0.21  # inches of a forest plot's row
_ROUND = 4  # corner of the background, in the SVG's units


def draw(found: Findings) -> Drawn:
    """The figures that there is something for; the same findings give the same bytes."""
    cells: dict[Pair, list[Cell]] = defaultdict(list)
    for cell in sorted(found.results.cells, key=lambda cell: cell.key):
        cells[cell.key[:2]].append(cell)
    models = [model for model in dict.fromkeys(model for _, model in found.values) if model != NO_REWARD_MODEL]
    main = [model for model in models if model in MAIN_MODELS]
    others = [
        variant for variant in dict.fromkeys(variant for variant, _ in found.values) if variant not in MAIN_VARIANTS
    ]
    rows = _rows(found.results.cells)
    other_models = [model for model in models if model not in main]
    drawn: Drawn = {}
    for name, title, variants, asked, columns in (
        (NAMES[0], "Learning curves", MAIN_VARIANTS, MAIN_VARIANTS, main),
        (NAMES[1], "Learning curves, other reward models", MAIN_VARIANTS, MAIN_VARIANTS, other_models),
        (NAMES[2], "Learning curves, other variants", (DEFAULT, *others), others, models),
    ):
        shown = [model for model in columns if any((variant, model) in cells for variant in asked)]
        if shown:
            text = f"{title}: {_BANDS}{_UNASKED if OUTCOME_ONLY in variants else ''}"
            drawn[name] = (_curves(cells, variants, shown, rows, text), text)
    kinds = (("Differences", ("planned", "interaction")), ("Differences, other variants", ("other",)))
    for name, (title, members) in zip(NAMES[3:], kinds, strict=True):
        own = [one for one in found.comparisons if one.contrast.kind in members and one.measure in _FOREST]
        if own:
            text = (
                f"{title}: mean paired difference over seeds (point), its 95 % interval (thick) and the interval "
                f"corrected for the number of comparisons (thin), with marks where that by the pooled error ends. "
                f"Coloured: the corrected interval excludes 0. Hollow: a first look, outside the main reward models. A "
                f"line that leaves its panel goes on."
            )
            drawn[name] = (_forest(own, found.measures, text), text)
    return drawn


def _rows(cells: Sequence[Cell]) -> tuple[_Curve, ...]:
    of_mixed = mixed(cells)
    return (
        ("accuracy", lambda step: step.outcome),
        ("thinking by the oracle", lambda step: step.oracle),
        ("gamma, mixed groups" if of_mixed else "gamma", lambda step: step.gamma_mixed if of_mixed else step.gamma),
        ("length, words", lambda step: step.length),
        ("hacked share", lambda step: step.hacked),
    )


def _curves(
    cells: Mapping[Pair, Sequence[Cell]],
    variants: Sequence[str],
    models: Sequence[str],
    rows: Sequence[_Curve],
    text: str,
) -> str:
    with styled():
        figure = Figure(figsize=(2.2 + 2.4 * len(models), 1.0 + 1.55 * len(rows)))
        axes = figure.subplots(len(rows), len(models), sharex=True, sharey="row", squeeze=False)
        for row, (title, value) in enumerate(rows):
            axes[row, 0].set_ylabel(title)
            for column, model in enumerate(models):
                _panel(axes[row, column], cells, variants, model, value)
        for column, model in enumerate(models):
            axes[0, column].set_title(model, fontsize=10, color=colour("ink"))
            axes[-1, column].set_xlabel("training step")
        used = [variant for variant in variants if any(pair[0] == variant for pair in cells)]
        _legend(figure, [_line_of(variants, variant) | {"label": variant} for variant in used])
        return _file(figure, text)


def _panel(
    axis: Axes,
    cells: Mapping[Pair, Sequence[Cell]],
    variants: Sequence[str],
    model: str,
    value: Callable[[StepLine], float | None],
) -> None:
    for variant in variants:
        own = cells.get((variant, model)) or cells.get((variant, NO_REWARD_MODEL), ())
        curves = np.array([[value(step) for step in cell.steps] for cell in own], dtype=np.float64)
        curves = curves[~np.isnan(curves).all(axis=-1)]  # without seeds of which this was never measured
        if not curves.size:
            continue
        # A step that a seed has no value for is a gap, in the mean as in the band.
        style = _line_of(variants, variant)
        steps = np.arange(1, curves.shape[1] + 1)
        axis.plot(steps, curves.mean(axis=0), **style)
        if len(curves) > 1:
            low, high = curves.min(axis=0), curves.max(axis=0)
            axis.fill_between(steps, low, high, color=style["color"], alpha=0.14, linewidth=0)
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axis.yaxis.set_major_locator(MaxNLocator(4))


def _line_of(variants: Sequence[str], variant: str) -> dict[str, str]:
    place = variants.index(variant)
    return {"color": colour(SERIES[place % len(SERIES)]), "linestyle": _DASHES[place % len(_DASHES)]}


def _forest(comparisons: Sequence[Comparison], measured: Sequence[Measure], text: str) -> str:
    shown = [measure for measure in measured if measure.name in {one.measure for one in comparisons} & set(_FOREST)]
    groups: dict[str, list[str]] = {}
    for one in comparisons:
        title, row = _place(one)
        if row not in groups.setdefault(title, []):
            groups[title].append(row)
    heights: dict[tuple[str, str], float] = {}
    height = 0.0
    for title, rows in groups.items():
        heights[title, ""] = height
        heights |= {(title, row): height + number for number, row in enumerate(rows, 1)}
        height += len(rows) + 1.4
    with styled():
        figure = Figure(figsize=(2.4 + 1.75 * len(shown), 1.1 + _ROW * height))
        axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for axis, measure in zip(axes, shown, strict=True):
            own = [one for one in comparisons if one.measure == measure.name]
            for one in own:
                _whisker(axis, one, heights[_place(one)])
            axis.axvline(0, color=colour("muted"), linewidth=0.8)
            axis.set_xlim(_limits(own))
            axis.set_title(fill(measure.title, _TITLE), fontsize=9, color=colour("ink"))
            axis.xaxis.set_major_locator(MaxNLocator(3))
            axis.grid(visible=False, axis="y")
            axis.tick_params(axis="y", length=0)
        axes[0].set_ylim(height - 0.4, -0.8)
        axes[0].set_yticks(list(heights.values()), [row or title for title, row in heights])
        for (_, row), label in zip(heights, axes[0].get_yticklabels(), strict=True):
            label.set_color(colour("muted" if row else "ink"))
            label.set_fontweight("normal" if row else "bold")
        words = (("right", "above 0"), ("wrong", "below 0"), ("muted", "undecided"))
        _legend(
            figure, [{"color": colour(name), "label": word, "marker": "o", "markersize": 4} for name, word in words]
        )
        return _file(figure, text)


def _place(one: Comparison) -> tuple[str, str]:
    """The group and the row of a comparison."""
    if one.contrast.kind == "interaction":
        return "(default − no_trust), less oracle's", one.contrast.reward_model
    return one.contrast.label, one.contrast.reward_model


def _whisker(axis: Axes, one: Comparison, height: float) -> None:
    test = one.test
    tone = colour({1: "right", -1: "wrong", 0: "muted"}[test.sign])
    if test.low is not None:
        if test.pooled is not None:
            axis.plot(test.pooled, [height, height], "|", color=tone, markersize=5, markeredgewidth=0.9)
        axis.plot([test.low, test.high], [height, height], color=tone, linewidth=0.9, solid_capstyle="butt")
        axis.plot(
            [test.estimate.low, test.estimate.high], [height, height], color=tone, linewidth=2.6, solid_capstyle="butt"
        )
    inside = tone if one.contrast.main else colour("bg")
    axis.plot([test.estimate.mean], [height], "o", color=tone, markersize=4.5, markerfacecolor=inside)


def _limits(comparisons: Sequence[Comparison]) -> tuple[float, float]:
    """Ends of a panel: all means and the main comparisons' corrected intervals; else the uncorrected ones'."""
    ends = [0.0, *(one.test.estimate.mean for one in comparisons)]
    main = [one for one in comparisons if one.contrast.main and one.test.low is not None]
    for one in main:
        ends += [one.test.low, one.test.high]
    if not main:
        ends += [
            end for one in comparisons for end in (one.test.estimate.low, one.test.estimate.high) if end is not None
        ]
    margin = 0.06 * (max(ends) - min(ends)) or 0.01
    return min(ends) - margin, max(ends) + margin


def _legend(figure: Figure, lines: Sequence[Mapping[str, object]]) -> None:
    handles = [Line2D([], [], **line) for line in lines]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 5), frameon=False)


@cache
def _schemes() -> tuple[dict[str, str], dict[str, str]]:
    """The pages' colours by name, light and dark."""
    light, _, dark = (
        (files("page_kit") / "templates" / "page.css").read_text("utf-8").partition("(prefers-color-scheme: dark)")
    )
    return dict(_DEFINED.findall(light)), dict(_DEFINED.findall(dark))


def _file(figure: Figure, text: str) -> str:
    """The figure as a file of its own."""
    light, dark = _schemes()
    drawing = str(to_svg(figure, text))
    used = sorted({"bg", *_VARIABLE.findall(drawing)})
    # Plain colours in the drawing, for viewers without variables; a dark scheme overrides what has them.
    rules = [
        f'[style*="{what}: {light[name]}"]{{{what}:{dark[name]}!important}}'
        for name in used
        for what in ("fill", "stroke")
    ]
    style = f"<style>@media (prefers-color-scheme: dark){{{''.join(rules)}}}</style>"
    width, height = (round(72 * length, 2) for length in figure.get_size_inches())
    ground = f'<rect width="100%" height="100%" rx="{_ROUND}" style="fill: {light["bg"]}"/>'
    head, _, body = _VARIABLE.sub(lambda name: light[name[1]], drawing).partition(">")
    opened = head.replace("<svg", f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"', 1)
    return f"{opened}>{style}{ground}{body}\n"
