"""Estimators of the trust weight that `bench_trust_noise` compares with those that a run can choose.

Each takes the sides of the groups of batches and gives one gamma a group (shape (..., groups)), as
`recipe.sophiavl.trust_estimator.estimate_trust` does. With d the difference of a group's means and se its standard
error:

- ``d + se``: min(1, exp(d + se)): distrust only what stands out of the noise, as a one-sided test.
- ``group alone``: as ``shrunk`` with each group for itself: d times max(0, 1 - se^2 / d^2).
- ``batch mean``: as ``pooled``, but a group with mu_c >= mu_w may be distrusted for the sake of the others.
- ``posterior``: E[min(1, exp(D))] under the posterior of ``batch mean``.
- ``one for all``: complete pooling: gamma of the batch's mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from recipe.sophiavl.trust_estimator import ESTIMATORS, Sides, differences, shrinkage, weight_of

Array = npt.NDArray[np.float64]
_ALMOST_0 = 1e-12  # of a divisor


def one_sided(sides: Sides, errors: float = 1.0) -> Array:
    """min(1, exp(d + errors * se))."""
    difference, precision, noise = differences(sides)
    return weight_of(difference + errors * np.sqrt(noise / np.maximum(precision, _ALMOST_0)))


def group_alone(sides: Sides) -> Array:
    difference, precision, noise = differences(sides)
    return weight_of(difference * np.maximum(0.0, 1 - noise / np.maximum(precision * difference**2, _ALMOST_0)))


def batch_mean(sides: Sides) -> Array:
    return weight_of(_posterior(sides)[0])


def posterior(sides: Sides) -> Array:
    return np.where(sides.n_correct * sides.n_wrong > 0, expected_weight(*_posterior(sides)), 1.0)


def one_for_all(sides: Sides) -> Array:
    centre, _ = shrinkage(sides, pool=True)
    return weight_of(np.where(sides.n_correct * sides.n_wrong > 0, centre, np.nan))


def expected_weight(mean: npt.ArrayLike, deviation: npt.ArrayLike) -> Array:
    """E[min(1, exp(D))] for a normal D."""
    mean, deviation = np.asarray(mean), np.maximum(deviation, 1e-9)
    tail = ndtr(-(mean + deviation**2) / deviation)
    # Where the tail is 0 the exponential before it may be too large for a number.
    return ndtr(mean / deviation) + np.exp(np.minimum(mean + deviation**2 / 2, 300.0)) * tail


def _posterior(sides: Sides) -> tuple[Array, Array]:
    """Mean and standard deviation of each group's true difference, given the batch; NaN where a side is empty."""
    difference, precision, noise = differences(sides)
    centre, kept = shrinkage(sides, pool=True)
    return centre + kept * (difference - centre), np.sqrt(kept * noise / np.maximum(precision, _ALMOST_0))


COMPARED: Mapping[str, Callable[[Sides], Array]] = {
    **ESTIMATORS,
    "d + se": one_sided,
    "group alone": group_alone,
    "batch mean": batch_mean,
    "posterior": posterior,
    "one for all": one_for_all,
}
