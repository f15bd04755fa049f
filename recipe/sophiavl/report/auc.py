"""The AUC of a stream of scored responses, with its interval, in memory that does not grow with their number.

Scores are counted in cells of 1/1000, for all responses (`AucCounts`, column 0) and once for each resample of a Poisson
bootstrap (the other columns): there a question counts k times with the probability that Poisson's law with mean 1 gives
to k, which is what drawing questions with replacement tends to (Chamandy et al., Estimating Uncertainty for Massive
Data Streams, 2012). Responses to a question are no independent trials, so a question is drawn as a whole, at whatever
step it comes up; k is a function of the question, so that two AUCs of one run are compared under the same resamples.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import poisson

from recipe.sophiavl.report.run_data import Auc

Floats = npt.NDArray[np.float64]

RESAMPLES = 400
LEVEL = 0.95
CELLS = 1001
_LAW = poisson.cdf(np.arange(12), 1.0)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def question_weights(questions: npt.NDArray[np.uint64], seed: int, resamples: int = RESAMPLES) -> Floats:
    """How often each question counts, in all (1) and in each resample; shape (questions, 1 + resamples)."""
    resample = np.arange(1, resamples + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        start = _mixed(questions + np.uint64(seed) * _GOLDEN)
        uniform = _mixed(start[:, None] + resample * _GOLDEN) >> np.uint64(11)
    counts = np.searchsorted(_LAW, uniform.astype(np.float64) / 2.0**53, side="right")
    return np.hstack([np.ones((questions.size, 1)), counts])


def _mixed(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): 64 bits that look random."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


class AucCounts:
    """What the AUC over some training steps needs of their responses."""

    def __init__(self, resamples: int = RESAMPLES) -> None:
        # By side (wrong, right), cell of the score, and resample.
        self.counts = np.zeros((2, CELLS, 1 + resamples))
        self._wins = np.zeros(1 + resamples)
        self._pairs = np.zeros(1 + resamples)

    def add(self, scores: Floats, right: npt.NDArray[np.bool_], group: npt.NDArray[np.intp], weights: Floats) -> None:
        """Count scored responses of one step.

        Args:
            scores: in [0, 1], shape (n,).
            right: shape (n,).
            group: number of each response's group, shape (n,).
            weights: of `question_weights`, shape (groups, 1 + resamples).
        """
        used, cell = np.unique(np.rint(scores * (CELLS - 1)).astype(np.intp), return_inverse=True)
        sides = np.zeros((2, used.size, weights.shape[0]))
        np.add.at(sides, (right.astype(np.intp), cell, group), 1.0)
        wrong, correct = sides
        self.counts[:, used] += sides @ weights
        below = np.cumsum(wrong, axis=0) - wrong / 2
        self._wins += (correct * below).sum(axis=0) @ weights
        self._pairs += (correct.sum(axis=0) * wrong.sum(axis=0)) @ weights

    def pooled(self) -> Floats:
        """The chance that a right response has a higher score than a wrong one, ties counting one half; in all and in
        each resample, NaN where one side is empty."""
        wrong, right = self.counts
        below = np.cumsum(wrong, axis=0) - wrong / 2
        return _ratio((right * below).sum(axis=0), right.sum(axis=0) * wrong.sum(axis=0))

    def within(self) -> Floats:
        """The same over pairs of one group."""
        return _ratio(self._wins, self._pairs)

    def sizes(self) -> tuple[int, int]:
        """Number of right and of wrong responses."""
        wrong, right = self.counts[:, :, 0].sum(axis=1)
        return int(right), int(wrong)

    def distribution(self, cells: int) -> tuple[list[int], list[int]]:
        """Number of right and of wrong responses whose score is nearest to 0, 1/(cells-1), …, 1."""
        nearest = np.rint(np.arange(CELLS) / (CELLS - 1) * (cells - 1) - 1e-9).astype(np.intp)
        wrong, right = (np.bincount(nearest, side[:, 0], cells).astype(int).tolist() for side in self.counts)
        return right, wrong

    def why_none(self) -> str | None:
        """Why there is no AUC; None where there is one."""
        right, wrong = self.sizes()
        if right and wrong:
            return None
        if not right + wrong:
            return "no response has a score"
        return f"all scored responses are {'right' if right else 'wrong'}: nothing to tell apart"


def _ratio(above: Floats, below: Floats) -> Floats:
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)


def with_interval(values: Floats, reason: str | None) -> Auc:
    """The figure and the interval of its resamples.

    Args:
        values: in all and in each resample; NaN: undefined. Where that is every second resample, there is no interval.
        reason: why the figure itself is undefined.
    """
    if not np.isfinite(values[0]):
        return Auc(None, reason=reason or "undefined")
    resampled = values[1:][np.isfinite(values[1:])]
    if 2 * resampled.size < values.size - 1 or resampled.size < 2:
        return Auc(float(values[0]), reason="too few questions for an interval")
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Auc(float(values[0]), float(low), float(high))
