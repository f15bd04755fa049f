"""Intervals by resampling questions: all rows of a question are drawn together, since they are no independent trials.

The cluster bootstrap with percentile intervals (Davison & Hinkley, Bootstrap Methods and their Application, 3.8).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from recipe.sophiavl.trm_training.evaluate.statistics import Floats, Statistic

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A 95 % interval, or why there is none."""

    low: float | None
    high: float | None
    reason: str | None = None


def resampled_weights(question: npt.NDArray[np.intp], resamples: int, seed: int) -> Iterator[Floats]:
    """For each resample: how often each row counts, shape (rows,); equal for all rows of a question.

    Args:
        question: number of each row's question, from 0, shape (rows,).
    """
    questions = int(question.max()) + 1 if question.size else 0
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        drawn = generator.integers(0, questions, questions)
        yield np.bincount(drawn, minlength=questions).astype(np.float64)[question]


def intervals(
    statistics: Mapping[str, Statistic], question: npt.NDArray[np.intp], resamples: int, seed: int
) -> dict[str, Interval]:
    """The interval of each statistic. All of them see the same resamples.

    A resample in which a statistic is undefined is left out; where that is every second one, there is no interval.

    Args:
        question: number of each row's question, from 0, shape (rows,).
        resamples: 0 gives no intervals.
    """
    reasons = {name: _why_none(statistic, question, resamples) for name, statistic in statistics.items()}
    drawn: dict[str, list[float]] = {name: [] for name, reason in reasons.items() if reason is None}
    if drawn:
        for weights in tqdm(resampled_weights(question, resamples, seed), desc="intervals", total=resamples):
            for name, values in drawn.items():
                values.append(statistics[name](weights))
    return {
        name: Interval(None, None, reason) if reason is not None else _interval(np.array(drawn[name]))
        for name, reason in reasons.items()
    }


def _why_none(statistic: Statistic, question: npt.NDArray[np.intp], resamples: int) -> str | None:
    if statistic.undefined:
        return statistic.undefined
    if resamples == 0:
        return "no intervals asked for (--bootstrap 0)"
    if np.unique(question[statistic.rows]).size < 2:
        return "one question only"
    return None


def _interval(values: Floats) -> Interval:
    defined = values[~np.isnan(values)]
    if 2 * defined.size < values.size:
        return Interval(None, None, f"undefined in {values.size - defined.size} of {values.size} resamples")
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))
