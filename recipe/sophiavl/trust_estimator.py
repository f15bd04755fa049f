"""Trust weight gamma of each group from the thinking rewards of its two sides (Eq. 3), by the estimator of choice.

With mu_c and mu_w the mean thinking rewards of a group's n_c correct and n_w wrong responses, and d = mu_c - mu_w:

``paper`` is Eq. 3 of arXiv 2505.17018 as it stands:

    gamma = min(1, exp(d))

The others take d for what it is, an estimate with a standard error, and shrink it by what the batch at hand tells of
noise and of differences (empirical Bayes). Where mu_c >= mu_w, gamma is 1 as in Eq. 3; elsewhere

    gamma = min(1, exp(c + w * (d - c))),    w = s / (s + v / p),    p = n_c * n_w / (n_c + n_w)

Here v is the variance of the thinking reward within a side, pooled over the batch, so v / p is the squared standard
error of d; s is the variance of the true differences around c over the G groups with both sides, estimated from the
moments of d (DerSimonian and Laird 1986). They differ in c:

    shrunk:  c = 0                          s = max(0, sum(p * d^2) - G * v) / sum(p)
    pooled:  c = sum(p * d) / sum(p)        s = max(0, sum(p * (d - c)^2) - (G - 1) * v) / (sum(p) - sum(p^2) / sum(p))

``shrunk`` never distrusts a group more than ``paper`` does, and nobody in a batch whose differences are no larger than
noise makes them (s = 0); of a group that is alone in its batch, w = max(0, 1 - v / (p * d^2)) is kept. ``pooled`` lets
the other groups of a batch confirm or excuse what a group shows; one that is alone is as with ``paper``. With many
responses both come to ``paper``. So they do where nothing tells noise from difference: no side of the batch has two
scores, or they agree in every side.

All look at one batch of groups and remember nothing. ``benchmarks/bench_trust_noise.py`` measures what they do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

TrustEstimator = Literal["paper", "shrunk", "pooled"]

# Means this close differ by rounding only: the sides agree.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Sides:
    """The two sides of each group of a batch, over the scores present. Arrays of shape (..., groups).

    Attributes:
        mu_correct, mu_wrong: float64 in [0, 1], mean thinking reward of a side; NaN where it has no score.
        n_correct, n_wrong: how many scores a side has, >= 0.
        squares: float64 >= 0, squared deviations of the scores from their own side's mean, summed over both sides.
    """

    mu_correct: npt.NDArray[np.float64]
    mu_wrong: npt.NDArray[np.float64]
    n_correct: npt.NDArray[np.intp]
    n_wrong: npt.NDArray[np.intp]
    squares: npt.NDArray[np.float64]


def sides_of(correct: npt.NDArray[np.bool_], thinking: npt.NDArray[np.float64], group: npt.NDArray[np.intp]) -> Sides:
    """The sides of each group, as arrays of shape (groups,).

    Args:
        correct: whether a response is on the correct side, shape (B,).
        thinking: thinking rewards in [0, 1], shape (B,); NaN is missing and left out.
        group: the group of each response, numbered from 0, shape (B,).
    """
    n_groups = int(group.max()) + 1 if group.size else 0
    present = ~np.isnan(thinking)
    means, counts, squares = [], [], np.zeros(n_groups)
    for members in (correct & present, ~correct & present):
        where, scores = group[members], thinking[members]
        count = np.bincount(where, minlength=n_groups)
        total = np.bincount(where, weights=scores, minlength=n_groups)
        mean = np.divide(total, count, out=np.full(n_groups, np.nan), where=count > 0)
        squares += np.bincount(where, weights=(scores - mean[where]) ** 2, minlength=n_groups)
        means.append(mean)
        counts.append(count)
    return Sides(*means, *counts, squares)


def estimate_trust(sides: Sides, estimator: TrustEstimator = "paper") -> npt.NDArray[np.float64]:
    """Trust weight gamma of each group; the last axis of the arrays is one batch.

    Returns:
        float64 of shape (..., groups), in (0, 1]; 1 where a side has no score.
    """
    return ESTIMATORS[estimator](sides)


def weight_of(difference: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """min(1, exp(difference)), and 1 for a NaN: a side without a score."""
    return np.exp(np.where(difference < -_ROUNDING, difference, 0.0))


def differences(sides: Sides) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """How far the sides of each group are apart, and how well that is known.

    Returns:
        ``difference``: mu_correct - mu_wrong, shape (..., groups); NaN where a side has no score.
        ``precision``: n_correct * n_wrong / (n_correct + n_wrong), shape (..., groups); 0 where a side has no score.
        ``noise``: variance of a single score within its side, pooled over the batch, shape (..., 1); 0 where it is
        unknown. The difference has the squared standard error noise / precision.
    """
    size = sides.n_correct + sides.n_wrong
    precision = sides.n_correct * sides.n_wrong / np.maximum(size, 1)
    freedom = size - (sides.n_correct > 0) - (sides.n_wrong > 0)
    noise = sides.squares.sum(-1, keepdims=True) / np.maximum(freedom.sum(-1, keepdims=True), 1)
    return sides.mu_correct - sides.mu_wrong, precision, noise


def shrinkage(sides: Sides, *, pool: bool) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Towards what the differences of a batch are shrunk, and how much of each is kept.

    Args:
        pool: towards the mean of the batch, and not towards 0.

    Returns:
        c, shape (..., 1), and w, shape (..., groups), in [0, 1].
    """
    difference, precision, noise = differences(sides)
    both = precision > 0
    difference = np.where(both, difference, 0.0)
    total, freedom = _sum(precision), _sum(both)
    scale, centre = total, np.zeros_like(total)
    if pool:
        centre = _ratio(_sum(precision * difference), total)
        scale, freedom = total - _ratio(_sum(precision**2), total), freedom - 1
    signal = _ratio(np.maximum(0.0, _sum(precision * (difference - centre) ** 2) - freedom * noise), scale)
    return centre, _ratio(signal * precision, signal * precision + noise, otherwise=1.0)


def _paper(sides: Sides) -> npt.NDArray[np.float64]:
    return weight_of(sides.mu_correct - sides.mu_wrong)


def _shrunk(sides: Sides, pool: bool = False) -> npt.NDArray[np.float64]:
    difference = sides.mu_correct - sides.mu_wrong
    centre, kept = shrinkage(sides, pool=pool)
    return weight_of(np.where(difference < -_ROUNDING, centre + kept * (difference - centre), 0.0))


def _sum(values: npt.NDArray) -> npt.NDArray[np.float64]:
    return values.sum(-1, keepdims=True, dtype=np.float64)


def _ratio(
    above: npt.NDArray[np.float64], below: npt.NDArray[np.float64], otherwise: float = 0.0
) -> npt.NDArray[np.float64]:
    """Their ratio, and `otherwise` where `below` is not above 0."""
    shape = np.broadcast_shapes(above.shape, below.shape)
    return np.divide(above, below, out=np.full(shape, otherwise), where=below > 0)


ESTIMATORS: Mapping[TrustEstimator, Callable[[Sides], npt.NDArray[np.float64]]] = {
    "paper": _paper,
    "shrunk": _shrunk,
    "pooled": partial(_shrunk, pool=True),
}
