"""What seeds say of a cell, and of the difference between cells: means, intervals, corrections, verdicts.

The seed is the unit: cells with the same seed see the same questions in the same order, so differences are paired by
seed. Intervals are Student's t, corrected for the number of comparisons by Bonferroni. A verdict rests on the spread of
its own differences alone, which with six seeds is a poor guess of their error (five degrees of freedom). The pooled
error is a better one where all cells have the same: that of the least squares fit of a cell's and a seed's effect to
all main cells. (With six seeds a bootstrap is no way out: over 2,000 simulated studies of normal differences, nominal
95 % intervals held the truth in 95 % (t) and 87 % (BCa), since a resample never leaves the range of the seeds. The
exact sign test has no p below 2/64, too coarse for any correction.)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats
from scipy.optimize import brentq

LEVEL = 0.95
POWER = 0.8
CENSORED, UNDECIDED = "censored", "undecided"
_LEAST = 3  # seeds, of a corrected interval and of a verdict
_LEAST_DF = 10  # degrees of freedom, of a pooled error
_SAME = 1e-12  # a spread below this is rounding


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % t interval; without one where there is one seed or no spread.

    Attributes:
        n: number of seeds.
        sd: standard deviation over seeds; None with one seed.
    """

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class PooledError:
    """The standard deviation of a cell's value once its cell's and its seed's effect are taken out.

    Attributes:
        sd: with the degrees of freedom `df` taken into account.
        seeds_sd: standard deviation of the seeds' effects, which pairing takes out of differences.
        equal_p: of the hypothesis that all cells have the same error (Brown and Forsythe); None where there is no test.
    """

    sd: float
    df: int
    seeds_sd: float
    equal_p: float | None


@dataclass(frozen=True)
class PairedTest:
    """A mean paired difference over seeds, against 0.

    Attributes:
        estimate: the mean difference; its interval is uncorrected.
        p: of the paired t test, uncorrected; None where `reason` says why there is no test.
        comparisons: how many the corrections are for; 0 where there is no test.
        low, high: the interval at the level 1 - 0.05 / `comparisons` (Bonferroni): all intervals of a family hold
            their differences at once in at least 95 % of studies.
        detectable: the smallest true difference that an interval of this width and these seeds' spread would have
            told from 0 in 80 % of studies.
        pooled: ends of the same interval by the pooled error; None where there is none.
        spread_p: by the pooled error, the probability of seeds that lie as close together as these (F test); near 0
            the interval is too narrow by chance, near 1 too wide. None where there is no pooled error.
        sign: +1 or -1 where the corrected interval lies above or below 0, else 0.
    """

    estimate: Estimate
    p: float | None = None
    comparisons: int = 0
    low: float | None = None
    high: float | None = None
    detectable: float | None = None
    pooled: tuple[float, float] | None = None
    spread_p: float | None = None
    sign: int = 0
    reason: str = ""

    def verdict(self, above: str, below: str) -> str:
        """`above` or `below` where the sign says so, else why not: undecided, or censored."""
        if self.reason == CENSORED:
            return CENSORED
        few = f" ({self.estimate.n} seed{'s' * (self.estimate.n > 1)})" if self.estimate.n < _LEAST else ""
        return {1: above, -1: below, 0: f"{UNDECIDED}{few}"}[self.sign]

    def pooled_verdict(self, above: str, below: str, small: float | None = None) -> str:
        """The same by the pooled error; "" where there is none.

        Args:
            small: a difference below this is too small to matter; where none larger is left, that is the verdict.
        """
        if self.pooled is None:
            return ""
        low, high = self.pooled
        if low > 0 or high < 0:
            return above if low > 0 else below
        return f"below {small:g} either way" if small is not None and max(-low, high) < small else UNDECIDED


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of one value or more, with the t interval.

    Raises:
        ValueError: there is no value, or one that is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if not array.size or not np.isfinite(array).all():
        raise ValueError(f"no mean of {values!r}")
    mean = float(array.mean())
    if array.size < 2:
        return Estimate(1, mean, None, None, None)
    spread = float(array.std(ddof=1))
    if spread <= _SAME:
        return Estimate(array.size, mean, 0.0, None, None)
    low, high = _interval(mean, spread, array.size, LEVEL)
    return Estimate(array.size, mean, spread, low, high)


def corrected_tests(
    differences: Sequence[Sequence[float]],
    planned: int = 0,
    censored: Collection[int] = (),
    error: PooledError | None = None,
    cells: Sequence[int] = (),
) -> list[PairedTest]:
    """Tests of several series of paired differences, corrected as one family.

    Args:
        differences: of each comparison its differences, one a seed.
        planned: comparisons of the family, also those that have no result yet: a part of a study is corrected as much
            as the whole. At least as many as there are differences.
        censored: places of the comparisons with a difference that is only a bound: these have a mean and no test.
        error: of a cell's value, for the pooled intervals.
        cells: how many cells are added and subtracted in each comparison; empty: two in all.
    """
    found = [
        PairedTest(Estimate(len(values), float(np.mean(values)), None, None, None), reason=CENSORED)
        if place in censored
        else _single(values)
        for place, values in enumerate(differences)
    ]
    planned = max(planned, len(found))
    counts = cells or [2] * len(found)
    return [
        test if test.p is None else _corrected(test, planned, error, count)
        for test, count in zip(found, counts, strict=True)
    ]


def pooled_error(cells: Sequence[Mapping[int, float]]) -> PooledError | None:
    """The error of a value that has an effect of its cell and one of its seed, by least squares.

    Args:
        cells: of each cell its values by seed.

    Returns:
        None where there are too few values, or none of them differs from what the effects say.
    """
    seeds = sorted({seed for of in cells for seed in of})
    rows = [(place, seeds.index(seed), value) for place, of in enumerate(cells) for seed, value in of.items()]
    if not rows:
        return None
    cell, seed, value = (np.array(column) for column in zip(*rows, strict=True))
    design = np.concatenate([np.eye(len(cells))[cell], np.eye(len(seeds))[seed][:, 1:]], axis=1)
    effects, _, rank, _ = np.linalg.lstsq(design, value, rcond=None)
    residuals, df = value - design @ effects, len(rows) - int(rank)
    if df < _LEAST_DF or np.abs(residuals).max() <= _SAME:
        return None
    groups = [residuals[cell == place] for place in range(len(cells)) if (cell == place).sum() > 1]
    equal_p = float(stats.levene(*groups, center="median").pvalue) if len(groups) > 1 else None
    of_seeds = np.concatenate([[0.0], effects[len(cells) :]])
    return PooledError(
        float(np.sqrt(residuals @ residuals / df)), df, float(of_seeds.std(ddof=1)) if len(seeds) > 1 else 0.0, equal_p
    )


def steps_to(outcomes: Sequence[float], accuracy: float, width: int = 3) -> tuple[int, bool]:
    """The first step at which the mean over it and the `width` - 1 before reaches an accuracy, and whether one does.

    Where none does, the number is that of the steps and one more: the earliest step it can be. A mean over such
    numbers is a lower bound, and a difference of a cell that reached it and one that did not is one in size.

    Args:
        outcomes: of the steps 1, 2, …; with fewer than `width` steps their mean counts at the last.
    """
    width = min(width, len(outcomes))
    means = np.convolve(outcomes, np.full(width, 1 / width), mode="valid")
    reached = np.flatnonzero(means >= accuracy - _SAME)
    return (int(reached[0]) + width, True) if reached.size else (len(outcomes) + 1, False)


def area(outcomes: Sequence[float]) -> float:
    """The area under a curve with one value a step, as a share of the steps: its mean height by the trapezoid rule."""
    return float(np.trapezoid(outcomes) / (len(outcomes) - 1)) if len(outcomes) > 1 else float(outcomes[0])


def detectable(spread: float, n: int, level: float) -> float:
    """The smallest true mean difference that a t interval tells from 0 with 80 % chance.

    Args:
        spread: standard deviation of the differences.
        n: number of differences, at least 2.
        level: of the interval.
    """
    bound = stats.t.ppf((1 + level) / 2, n - 1)
    # Sample over true standard deviation, at equal steps of its law: scipy's noncentral t gives NaN this far out.
    ratio = np.sqrt(stats.chi2.ppf((np.arange(2000) + 0.5) / 2000, n - 1) / (n - 1))

    def lacking(shift: float) -> float:
        return float(np.mean(stats.norm.cdf(shift - bound * ratio) + stats.norm.cdf(-shift - bound * ratio))) - POWER

    # In standard errors; at the upper end the power is near 1 whatever n.
    return float(brentq(lacking, 0.0, 4 * (1 + bound)) * spread / np.sqrt(n))


def _single(values: Sequence[float]) -> PairedTest:
    found = estimate(values)
    if found.n < _LEAST:
        return PairedTest(found, reason="one seed" if found.n == 1 else f"{found.n} seeds are too few")
    if found.low is None:
        return PairedTest(found, reason=f"the difference is the same in all {found.n} seeds")
    return PairedTest(found, float(stats.ttest_1samp(values, 0.0).pvalue))


def _corrected(test: PairedTest, comparisons: int, error: PooledError | None, cells: int) -> PairedTest:
    found, level = test.estimate, 1 - (1 - LEVEL) / comparisons
    low, high = _interval(found.mean, found.sd, found.n, level)
    pooled = spread_p = None
    if error is not None:
        spread_p = float(stats.f.cdf(found.sd**2 / (cells * error.sd**2), found.n - 1, error.df))
        half = float(stats.t.ppf((1 + level) / 2, error.df)) * error.sd * np.sqrt(cells / found.n)
        pooled = (float(found.mean - half), float(found.mean + half))
    return replace(
        test,
        comparisons=comparisons,
        low=low,
        high=high,
        detectable=detectable(found.sd, found.n, level),
        pooled=pooled,
        spread_p=spread_p,
        sign=int(low > 0) - int(high < 0),
    )


def _interval(mean: float, spread: float, n: int, level: float) -> tuple[float, float]:
    low, high = stats.t.interval(level, n - 1, loc=mean, scale=spread / np.sqrt(n))
    return float(low), float(high)
