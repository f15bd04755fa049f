"""How often, and how far, noise alone makes Eq. 3 distrust a good thinking reward model (TRM), by estimator of gamma.

A made-up TRM scores the thinking of right answers around 0.5 + delta/2, that of wrong ones around 0.5 - delta/2, with
normal noise, clipped to [0, 1] and rounded to 0.1 as a TRM's replies are. Steps are batches of 16 groups. A TRM is good
where delta >= 0 (0: thinking has nothing to do with the answer) and bad where delta < 0; two are good on some questions
and bad on others. For each estimator:

- false distrust: share of good groups with gamma < 1, and their mean 1 - gamma: it should be 0;
- kept: mean 1 - gamma of bad groups, over what they deserve: 1 - exp(difference of the expected scores), which is what
  Eq. 3 comes to with many responses. It should be 1.

Groups with an empty side have gamma 1 by rule and are counted apart. For the paper's estimator both are also computed
without simulation, from the distribution of the rounded scores. Where no accuracy is named, figures are means over
accuracies of 0.1, 0.3, 0.5, 0.7 and 0.9.

    python -m benchmarks.bench_trust_noise [--json FILE] [--figure docs/study/trust_noise.svg]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from benchmarks.trust_estimators import COMPARED
from benchmarks.trust_noise import ACCURACIES, NOISES, SIZES, TRMS, computed, exact, measure
from page_kit.charts import SERIES, colour, styled, to_svg_file

SIZE, NOISE = 8, 0.2  # the paper's group, and the middle of the noises
KEYS = ["estimator", "trm", "size", "noise"]
_MOST_LOST = 0.08  # of the picture
_BAD = ("bad, -0.4", "bad, -0.2", "1 of 4 bad")


def bias_table(size: int) -> Table:
    """The paper's estimator on a TRM whose scores have nothing to do with the answer, without simulation."""
    title = f"paper, {size} responses, good TRM of delta 0: P(gamma < 1) / mean 1 - gamma, in %, exact"
    table = _table(title, "accuracy", *(f"noise {noise}" for noise in NOISES), "empty side")
    for accuracy in ACCURACIES:
        row = [exact("good, 0", size, accuracy, noise) for noise in NOISES]
        table.add_row(str(accuracy), *(_distrust(one.distrusted, one.lost) for one in row), _percent(row[0].empty, 0))
    return table


def estimator_table(means: pd.DataFrame, estimator: str) -> Table:
    """One estimator: group sizes at one noise, then other noises at one size.

    Args:
        means: columns of `Found` over all accuracies, by `KEYS`.
    """
    columns = [*((size, NOISE) for size in SIZES), *((SIZE, noise) for noise in (0.1, 0.3, 0.4))]
    title = f"{estimator}: P(gamma < 1) / mean 1 - gamma of good groups; kept of bad ones; in %"
    table = _table(title, "TRM", *(f"n {size}\nnoise {noise}" for size, noise in columns))
    for trm in TRMS:
        cells = []
        for size, noise in columns:
            one = means.loc[(estimator, trm, size, noise)]
            parts = [] if np.isnan(one.lost) else [_distrust(one.distrusted, one.lost)]
            cells.append("; ".join(parts if np.isnan(one.kept) else [*parts, _percent(one.kept, 0)]))
        table.add_row(trm, *cells)
    return table


def summary_table(means: pd.DataFrame) -> Table:
    """All estimators side by side, at one size and noise."""
    table = _table(f"{SIZE} responses, noise {NOISE}, in %", "", *COMPARED)
    names = {"distrusted": "P(gamma < 1)", "lost": "mean 1 - gamma", "kept": "kept", "error": "RMS error"}
    for name, told in names.items():
        for trm in TRMS:
            row = [means.loc[(estimator, trm, SIZE, NOISE), name] for estimator in COMPARED]
            if not np.isnan(row[0]):
                table.add_row(f"{told}, {trm}", *(_percent(value) for value in row))
        table.add_section()
    return table


def _table(title: str, first: str, *heads: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for head in heads:
        table.add_column(head, justify="right")
    return table


def _distrust(share: float, lost: float) -> str:
    return f"{_percent(share, 0)} / {_percent(lost)}"


def _percent(value: float, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f}"


def picture(means: pd.DataFrame) -> str:
    """The paper's bias by group size and by accuracy, and the estimators side by side, as an SVG file."""
    with styled():
        figure = Figure(figsize=(9, 6.6))
        (by_size, by_accuracy), (lost, kept) = figure.subplots(2, 2)
        _draw_bias(by_size, by_accuracy)
        places = range(len(COMPARED))
        for axis in (lost, kept):
            axis.set_yticks(places, list(COMPARED))
            axis.invert_yaxis()
        for marker, name, trms in (("o", "lost", ("good, 0", "good, +0.2", "3 of 4 bad")), ("s", "kept", _BAD)):
            axis = {"lost": lost, "kept": kept}[name]
            for number, trm in enumerate(trms):
                values = [means.loc[(estimator, trm, SIZE, NOISE), name] for estimator in COMPARED]
                axis.plot(values, places, marker, color=colour(SERIES[number]), label=trm, alpha=0.85)
                for place, value in enumerate(values):
                    if value > _MOST_LOST and axis is lost:
                        axis.text(
                            _MOST_LOST, place, f"{value:.2f} →", ha="right", va="center", color=colour(SERIES[number])
                        )
        lost.set(xlabel=f"mean 1 - gamma of good groups ({SIZE} responses, noise {NOISE})", xlim=(0, _MOST_LOST))
        lost.set_title("False distrust: less is better")
        kept.set(xlabel="the same of bad groups, over what they deserve", xlim=(0, 1.05))
        kept.set_title("Distrust that is kept: 1 is right")
        for axis in (by_size, by_accuracy, lost, kept):
            axis.legend(frameon=False, labelcolor=colour("muted"))
        return to_svg_file(figure, "Bias of the trust weight by group size, accuracy and noise, and what estimators do")


def _draw_bias(by_size: Axes, by_accuracy: Axes) -> None:
    for number, noise in enumerate(NOISES[1:]):
        values = [exact("good, 0", size, 0.5, noise).lost for size in SIZES]
        by_size.plot(SIZES, values, "o-", color=colour(SERIES[number]), label=f"noise {noise}", markersize=4)
    by_size.set_xscale("log", base=2)
    by_size.set_xticks(SIZES, [str(size) for size in SIZES])
    by_size.set(xlabel="responses a group (half of them right)", ylabel="mean 1 - gamma", ylim=(0, 0.14))
    by_size.set_title("The paper's gamma with a good TRM of delta 0")
    accuracies = np.arange(0.02, 0.99, 0.02)
    for number, size in enumerate(SIZES):
        values = [exact("good, 0", size, float(accuracy), NOISE).lost for accuracy in accuracies]
        by_accuracy.plot(accuracies, values, color=colour(SERIES[number]), label=f"{size} responses")
    by_accuracy.set(xlabel="chance of a response to be right", ylim=(0, 0.14))
    by_accuracy.set_title(f"The same by accuracy, noise {NOISE}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_trust_noise",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--steps", type=int, default=100, help="batches of each setting")
    parser.add_argument("--groups", type=int, default=16, help="of a batch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the figures of every setting, one object a line")
    parser.add_argument("--figure", type=Path, help="file for the picture, an SVG")
    options = parser.parse_args()
    if min(options.steps, options.groups) < 1:
        parser.error("--steps and --groups: at least 1")
    found = measure(options.steps, options.groups, options.seed)
    means = found.groupby(KEYS).mean(numeric_only=True)
    console = Console()
    for size in SIZES:
        console.print(bias_table(size))
    for estimator in COMPARED:
        console.print(estimator_table(means, estimator))
    console.print(summary_table(means))
    if options.json:
        pd.concat([computed(), found]).to_json(options.json, orient="records", lines=True)
    if options.figure:
        options.figure.write_text(picture(means), encoding="utf-8")


if __name__ == "__main__":
    main()
