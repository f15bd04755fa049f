"""What `bench_trust_noise` measures: estimators of gamma on a made-up thinking reward model, simulated and computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from itertools import product

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtr
from scipy.stats import binom

from benchmarks.trust_estimators import COMPARED
from recipe.sophiavl.trust_estimator import Sides, sides_of

SIZES = (4, 8, 16, 64)
ACCURACIES = (0.1, 0.3, 0.5, 0.7, 0.9)
NOISES = (0.0, 0.1, 0.2, 0.3, 0.4)
# Delta of the groups of a batch, in turn.
TRMS: Mapping[str, Sequence[float]] = {
    "good, 0": (0.0,),
    "good, +0.2": (0.2,),
    "good, +0.4": (0.4,),
    "bad, -0.2": (-0.2,),
    "bad, -0.4": (-0.4,),
    "1 of 4 bad": (0.2, 0.2, 0.2, -0.4),
    "3 of 4 bad": (-0.4, -0.4, -0.4, 0.2),
}
_LEVELS = np.arange(11) / 10


@dataclass(frozen=True)
class Found:
    """What an estimator does with a TRM.

    Attributes:
        size: responses a group. accuracy: chance of each to be right. noise: of a score, a standard deviation.
        groups: that were simulated; 0: computed without simulation.
        empty: share of them with an empty side; they count nowhere else.
        distrusted: share of the good groups with gamma < 1; NaN where there is none.
        lost: mean 1 - gamma of the good groups.
        kept: mean 1 - gamma of the bad groups over what they deserve; NaN where there is none.
        error: root mean square of gamma minus what the group deserves, over good and bad ones.
    """

    estimator: str
    trm: str
    size: int
    accuracy: float
    noise: float
    groups: int
    empty: float
    distrusted: float
    lost: float
    kept: float
    error: float


def level_chances(mean: float, noise: float) -> npt.NDArray[np.float64]:
    """Chance of each of the scores 0.0, 0.1 … 1.0, shape (11,)."""
    if noise == 0:
        return (np.clip(np.round(mean, 1), 0, 1) == _LEVELS).astype(float)
    below = ndtr((_LEVELS[:-1] + 0.05 - mean) / noise)
    return np.diff(below, prepend=0.0, append=1.0)


def expected_difference(delta: float, noise: float) -> float:
    """Expected score of a right answer's thinking minus that of a wrong one's."""
    return float((level_chances(0.5 + delta / 2, noise) - level_chances(0.5 - delta / 2, noise)) @ _LEVELS)


@cache
def exact_by_right(size: int, delta: float, noise: float) -> tuple[npt.NDArray, npt.NDArray]:
    """For the paper's estimator: P(gamma < 1) and E[1 - gamma] with 1 … size - 1 right answers, shape (size - 1,)."""
    sums = []
    for sign in (1, -1):
        chances, sides = level_chances(0.5 + sign * delta / 2, noise), [np.ones(1)]
        for _ in range(size - 1):
            sides.append(np.convolve(sides[-1], chances))
        sums.append(sides)
    found = []
    for right in range(1, size):
        of_right, of_wrong = sums[0][right], sums[1][size - right]
        tenths = np.arange(len(of_wrong))
        # Sums of tenths are whole numbers, so means compare without rounding: the first wrong sum above each right one.
        first = np.arange(len(of_right)) * (size - right) // right + 1
        above = np.append(np.cumsum(of_wrong[::-1])[::-1], 0.0)
        weighted = of_wrong * np.exp(-tenths / 10 / (size - right))
        above_weighted = np.append(np.cumsum(weighted[::-1])[::-1], 0.0)
        first = np.minimum(first, len(of_wrong))
        distrusted = of_right @ above[first]
        factor = of_right * np.exp(np.arange(len(of_right)) / 10 / right)
        found.append((distrusted, distrusted - factor @ above_weighted[first]))
    return tuple(np.array(found).T)


def exact(trm: str, size: int, accuracy: float, noise: float) -> Found:
    """The paper's estimator on a TRM that is the same for all questions, without simulation."""
    (delta,) = TRMS[trm]
    chances = binom.pmf(np.arange(1, size), size, accuracy)
    distrusted, lost = (chances @ value / chances.sum() for value in exact_by_right(size, delta, noise))
    deserved = 1 - np.exp(min(0.0, expected_difference(delta, noise)))
    good = delta >= 0
    return Found(
        "paper",
        trm,
        size,
        accuracy,
        noise,
        groups=0,
        empty=accuracy**size + (1 - accuracy) ** size,
        distrusted=float(distrusted) if good else np.nan,
        lost=float(lost) if good else np.nan,
        kept=np.nan if good else float(lost / deserved),
        error=np.nan,
    )


def computed() -> pd.DataFrame:
    """`exact` for every setting, with the attributes of `Found` as columns."""
    uniform = [trm for trm, deltas in TRMS.items() if len(deltas) == 1]
    return pd.DataFrame([exact(*setting) for setting in product(uniform, SIZES, ACCURACIES, NOISES)])


def simulate(
    size: int, accuracy: float, *, steps: int, groups: int, generator: np.random.Generator
) -> Iterator[tuple[str, float, npt.NDArray, Sides]]:
    """Batches of every TRM at every noise, all on the same draws.

    Yields:
        The TRM, the noise, delta of each group of a batch, shape (groups,), and the sides, shape (steps, groups).
    """
    shape = (steps, groups, size)
    right = generator.random(shape) < accuracy
    normal = generator.standard_normal(shape)
    numbers = np.repeat(np.arange(steps * groups), size)
    for trm, pattern in TRMS.items():
        deltas = np.resize(pattern, groups)
        centre = 0.5 + np.where(right, 0.5, -0.5) * deltas[:, None]
        for noise in NOISES:
            scores = np.clip(np.round(centre + noise * normal, 1), 0, 1)
            sides = sides_of(right.ravel(), scores.ravel(), numbers)
            batches = {field.name: getattr(sides, field.name).reshape(steps, groups) for field in fields(Sides)}
            yield trm, noise, deltas, Sides(**batches)


def judge(gamma: npt.NDArray, sides: Sides, deltas: npt.NDArray, noise: float) -> dict[str, float]:
    """``empty``, ``distrusted``, ``lost``, ``kept`` and ``error`` of `Found`."""
    true = {delta: expected_difference(delta, noise) for delta in set(deltas.tolist())}
    deserved = np.broadcast_to([np.exp(min(0.0, true[delta])) for delta in deltas.tolist()], gamma.shape)
    both = (sides.n_correct > 0) & (sides.n_wrong > 0)
    good, bad = both & (deltas >= 0), both & (deltas < 0)
    return {
        "empty": float(1 - both.mean()),
        "distrusted": _mean(gamma[good] < 1),
        "lost": _mean(1 - gamma[good]),
        "kept": _mean(1 - gamma[bad]) / _mean(1 - deserved[bad]),
        "error": _mean((gamma - deserved)[both] ** 2) ** 0.5,
    }


def _mean(values: npt.NDArray) -> float:
    return float(values.mean()) if values.size else np.nan


def measure(steps: int, groups: int, seed: int) -> pd.DataFrame:
    """Every estimator on every TRM, group size, accuracy and noise; columns as the attributes of `Found`."""
    found = []
    generator = np.random.default_rng(seed)
    for size in SIZES:
        for accuracy in ACCURACIES:
            batches = simulate(size, accuracy, steps=steps, groups=groups, generator=generator)
            for trm, noise, deltas, sides in batches:
                for name, estimator in COMPARED.items():
                    judged = judge(estimator(sides), sides, deltas, noise)
                    found.append(Found(name, trm, size, accuracy, noise, steps * groups, **judged))
    return pd.DataFrame(found)
