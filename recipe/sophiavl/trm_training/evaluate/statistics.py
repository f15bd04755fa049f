"""Figures as functions of row weights: the figure itself has all weights 1, a bootstrap resample counts rows anew.

Weights are whole numbers: a row of weight 2 counts as two equal rows. All work that does not depend on the weights is
done once, when the statistic is made, so that a thousand resamples of ten thousand rows take seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.intp]

_DECIMALS = 9


@dataclass(frozen=True)
class Statistic:
    """A figure over some of the rows.

    Attributes:
        rows: the rows that it uses, shape (n,).
        compute: from their weights, shape (n,), to its value; NaN where that is undefined.
        undefined: why it has no value with all weights 1; None where it has one.
    """

    rows: Rows
    compute: Callable[[Floats], float]
    undefined: str | None = None

    @property
    def n(self) -> int:
        """Number of rows used."""
        return int(self.rows.size)

    def __call__(self, weights: Floats) -> float:
        """The value where each row of the whole set counts `weights` times; NaN where undefined."""
        return self.compute(weights[self.rows])

    def value(self) -> float | None:
        """The value with all weights 1; None where undefined."""
        return None if self.undefined else self.compute(np.ones(self.n))


def undefined(reason: str) -> Statistic:
    """A figure that cannot be computed from these data."""
    return Statistic(np.empty(0, dtype=np.intp), lambda _weights: np.nan, reason)


def mean_of(values: Floats, where: Bools, nothing: str = "no rows to average over") -> Statistic:
    """Weighted mean of `values`, shape (rows,), over the rows of `where`."""
    rows = np.flatnonzero(where)
    return mean_at(values[rows], rows, nothing)


def mean_at(values: Floats, rows: Rows, nothing: str = "no rows to average over") -> Statistic:
    """Weighted mean of `values`, shape (n,), each weighted as the row of the same place in `rows`, shape (n,)."""

    def compute(weights: Floats) -> float:
        total = weights.sum()
        return float(weights @ values / total) if total > 0 else np.nan

    return Statistic(rows, compute, None if rows.size else nothing)


def spearman_of(first: Floats, second: Floats, where: Bools, names: tuple[str, str] = ("first", "second")) -> Statistic:
    """Spearman's rank correlation, with average ranks for ties (Pearson's correlation of the ranks), in [-1, 1].

    Args:
        names: what the two arrays are, for the reason why the figure is undefined.
    """
    rows = np.flatnonzero(where)
    coded = [_levels(values[rows])[1] for values in (first, second)]

    def compute(weights: Floats) -> float:
        centred = [_centred_ranks(code, weights) for code in coded]
        spread = np.sqrt((weights @ centred[0] ** 2) * (weights @ centred[1] ** 2))
        # Ranks are multiples of one half, so equal values give exactly 0.
        return float(np.clip(weights @ (centred[0] * centred[1]) / spread, -1.0, 1.0)) if spread > 0 else np.nan

    reason = "fewer than two rows with both" if rows.size < 2 else None
    for name, code in zip(names, coded, strict=True):
        if reason is None and code.max() == 0:
            reason = f"all values of {name} are equal"
    return Statistic(rows, compute, reason)


def auc_of(score: Floats, positive: Bools, where: Bools) -> Statistic:
    """Area under the ROC curve: the chance that a positive row has the higher score, ties counting one half."""
    rows = np.flatnonzero(where)
    levels, code = _levels(score[rows])
    is_positive = positive[rows]

    def compute(weights: Floats) -> float:
        above, below = (
            np.bincount(code, weights=weights * members, minlength=levels.size)
            for members in (is_positive, ~is_positive)
        )
        pairs = above.sum() * below.sum()
        return float(above @ (np.cumsum(below) - below / 2) / pairs) if pairs > 0 else np.nan

    reason = None
    if not rows.size:
        reason = "no rows with both"
    elif is_positive.all() or not is_positive.any():
        reason = f"all outcomes are {'correct' if is_positive.any() else 'wrong'}: nothing to tell apart"
    return Statistic(rows, compute, reason)


def _levels(values: Floats) -> tuple[Floats, Rows]:
    """The different values, ascending, and the number of each value's own; the last bits of a mean make no level."""
    levels, code = np.unique(np.round(values, _DECIMALS), return_inverse=True)
    return levels, code


def _centred_ranks(code: Rows, weights: Floats) -> Floats:
    """Average ranks less their mean, of values numbered in their order, where each counts `weights` times."""
    count = np.bincount(code, weights=weights)
    rank = np.cumsum(count) - (count - 1) / 2
    return rank[code] - (weights.sum() + 1) / 2
