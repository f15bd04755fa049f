"""Intervals, corrections and verdicts against scipy, plain formulas and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from recipe.sophiavl.study import statistics
from recipe.sophiavl.study.statistics import (
    PooledError,
    area,
    corrected_tests,
    detectable,
    estimate,
    pooled_error,
    steps_to,
)

SEEDS = [0.031, 0.012, 0.027, 0.040, 0.018, 0.022]


def test_the_interval_is_students_by_the_textbook_formula():
    found = estimate(SEEDS)
    mean = sum(SEEDS) / 6
    spread = (sum((value - mean) ** 2 for value in SEEDS) / 5) ** 0.5
    half = 2.570582 * spread / 6**0.5  # the 97.5 % point of t with five degrees of freedom, from its table
    assert (found.n, found.mean, found.sd) == (6, pytest.approx(mean), pytest.approx(spread))
    assert (found.low, found.high) == (pytest.approx(mean - half, abs=1e-8), pytest.approx(mean + half, abs=1e-8))


@pytest.mark.parametrize("values", [[], [0.1, float("nan")], [float("inf")]])
def test_there_is_no_mean_of_what_is_no_number(values: list[float]):
    with pytest.raises(ValueError, match="no mean"):
        estimate(values)


def test_one_seed_and_equal_seeds_have_no_interval():
    assert estimate([0.4]).low is estimate([0.4]).sd is None
    assert estimate([0.4, 0.4, 0.4]).low is None
    one, same = corrected_tests([[0.1], [0.3 - 0.2, 0.1, 0.1]])
    assert (one.reason, one.sign, one.p) == ("one seed", 0, None)
    assert (same.reason, same.sign, same.p) == ("the difference is the same in all 3 seeds", 0, None)


def test_a_difference_is_tested_as_scipys_paired_test():
    left, right = np.array(SEEDS) + 0.5, np.array([0.5, 0.51, 0.49, 0.5, 0.52, 0.48])
    (found,) = corrected_tests([(left - right).tolist()])
    paired = stats.ttest_rel(left, right)
    interval = paired.confidence_interval(0.95)
    assert found.p == pytest.approx(paired.pvalue)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_intervals_are_corrected_for_all_comparisons_also_those_without_a_test():
    values = [SEEDS, [-value for value in SEEDS], [0.01, -0.02, 0.03, -0.01, 0.0, 0.02], [0.1]]
    tests = corrected_tests(values)
    assert [test.comparisons for test in tests] == [4, 4, 4, 0]
    assert [test.sign for test in tests] == [1, -1, 0, 0]
    half = stats.t.ppf(1 - 0.05 / 8, 5) * stats.sem(SEEDS)
    assert tests[0].high - tests[0].estimate.mean == pytest.approx(half)
    assert tests[1].low == pytest.approx(-tests[0].high)


def test_a_part_of_a_study_is_corrected_as_the_whole():
    none = [0.01, -0.02, 0.03, -0.01, 0.0, 0.02]
    part = corrected_tests([SEEDS], planned=12)[0]
    whole = corrected_tests([SEEDS, *([none] * 11)])[0]
    assert part == whole
    assert part.comparisons == 12


def test_two_seeds_decide_nothing():
    two, three = corrected_tests([[0.1, 0.1 + 1e-6], [0.1, 0.1 + 1e-6, 0.1 - 1e-6]])
    assert two.estimate.low > 0
    assert (two.low, two.reason) == (None, "2 seeds are too few")
    assert (two.sign, two.verdict("more", "less")) == (0, "undecided (2 seeds)")
    assert (three.sign, three.verdict("more", "less")) == (1, "more")
    assert corrected_tests([[0.1]])[0].verdict("more", "less") == "undecided (1 seed)"
    assert corrected_tests([[0.1, -0.2, 0.15]])[0].verdict("more", "less") == "undecided"


def test_a_censored_comparison_has_a_mean_and_no_more_and_is_corrected_for():
    censored, other = corrected_tests([SEEDS, SEEDS], censored={0})
    assert censored.estimate.mean == pytest.approx(np.mean(SEEDS))
    assert {censored.estimate.low, censored.estimate.sd, censored.p, censored.low, censored.pooled} == {None}
    assert (censored.sign, censored.verdict("more", "less")) == (0, "censored")
    assert other.comparisons == 2


def test_a_verdict_follows_from_the_corrected_interval_not_from_the_uncorrected_one():
    close = [0.03, 0.01, 0.05, 0.02, 0.00, 0.04]
    (alone,) = corrected_tests([close])
    among = corrected_tests([close, *([[0.01, -0.01, 0.02, -0.02, 0.03, -0.03]] * 11)])[0]
    assert alone.sign == 1
    assert among.estimate.low > 0 > among.low
    assert among.sign == 0


def test_twelve_comparisons_without_an_effect_are_rarely_decided_at_all(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(statistics, "detectable", lambda *given: 0.0)
    random = np.random.default_rng(1)
    wrong = 0
    for _ in range(40):
        shared = random.normal(size=6)  # as where all are compared with the same cells
        tests = corrected_tests([(random.normal(size=6) - shared).tolist() for _ in range(12)])
        wrong += any(test.sign for test in tests)
    assert wrong <= 8  # two are expected at most, and 14 of uncorrected intervals


@pytest.mark.parametrize(("n", "level"), [(6, 0.95), (6, 1 - 0.05 / 12), (3, 0.95), (12, 0.99)])
def test_four_in_five_studies_see_the_detectable_difference(n: int, level: float):
    shift = detectable(2.0, n, level)
    draws = np.random.default_rng(2).normal(shift, 2.0, size=(20_000, n))
    low, high = stats.t.interval(level, n - 1, loc=draws.mean(axis=1), scale=stats.sem(draws, axis=1))
    assert np.mean((low > 0) | (high < 0)) == pytest.approx(0.8, abs=0.01)


def test_of_two_seeds_in_a_large_family_there_still_is_a_detectable_difference():
    assert detectable(1.0, 2, 1 - 0.05 / 200) > detectable(1.0, 3, 1 - 0.05 / 200) > 0


def test_the_pooled_error_of_a_whole_grid_is_that_of_the_analysis_of_variance():
    random = np.random.default_rng(3)
    values = random.normal(size=(5, 6)) + np.arange(5)[:, None] + np.arange(6) ** 2
    residuals = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    found = pooled_error([dict(enumerate(row)) for row in values])
    assert found.df == 20  # (5 - 1)(6 - 1)
    assert found.sd == pytest.approx(np.sqrt((residuals**2).sum() / 20))
    assert found.seeds_sd == pytest.approx(values.mean(axis=0).std(ddof=1))


def test_the_pooled_error_is_found_where_seeds_are_missing():
    random = np.random.default_rng(4)
    found = []
    for _ in range(200):
        cells = [
            {seed: cell + seed + 0.2 * random.normal() for seed in range(6) if (cell + seed) % 4} for cell in range(8)
        ]
        found.append(pooled_error(cells))
    assert {one.df for one in found} == {36 - 8 - 5}
    assert np.sqrt(np.mean([one.sd**2 for one in found])) == pytest.approx(0.2, rel=0.05)
    assert 0.01 < np.mean([one.equal_p < 0.05 for one in found]) < 0.1


def test_cells_of_different_errors_are_told():
    random = np.random.default_rng(5)
    cells = [{seed: noise * random.normal() for seed in range(6)} for noise in (0.01, 0.01, 0.01, 0.01, 9.0)]
    assert pooled_error(cells).equal_p < 0.02


@pytest.mark.parametrize("cells", [[], [{}], [{1: 0.5, 2: 0.6}], [dict.fromkeys(range(6), 0.5)] * 4])
def test_there_is_no_pooled_error_of_few_values_or_equal_ones(cells: list[dict[int, float]]):
    assert pooled_error(cells) is None


def test_pooled_intervals_hold_the_truth_as_often_as_they_say():
    """Of two cells, and of four, in a family of one: 95 % of them."""
    random = np.random.default_rng(6)
    held = []
    for _ in range(400):
        values = random.normal(size=(6, 6)) + random.normal(size=6)
        error = pooled_error([dict(enumerate(row)) for row in values])
        two, four = values[0] - values[1], values[2] - values[3] - values[4] + values[5]
        for differences, cells in ((two, 2), (four, 4)):
            (low, high) = corrected_tests([differences.tolist()], error=error, cells=[cells])[0].pooled
            held.append(low < 0 < high)
    assert np.mean(held) == pytest.approx(0.95, abs=0.025)


def test_the_pooled_verdict_says_what_is_left():
    error = PooledError(0.01, 45, 0.0, 0.5)

    def words(shift: float, small: float | None = 0.03) -> str:
        differences = [shift + 0.001 * place for place in (-2, -1, 0, 0, 1, 2)]
        return corrected_tests([differences], error=error)[0].pooled_verdict("more", "less", small)

    half = stats.t.ppf(0.975, 45) * 0.01 * (2 / 6) ** 0.5
    assert words(half + 0.001) == "more"
    assert words(-half - 0.001) == "less"
    assert words(half - 0.001) == "below 0.03 either way"
    assert words(half - 0.001, small=0.02) == words(half - 0.001, small=None) == "undecided"
    assert corrected_tests([SEEDS])[0].pooled_verdict("more", "less") == ""


@pytest.mark.parametrize("cells", [2, 4])
def test_the_p_of_a_spread_is_even_where_nothing_but_chance_is_at_work(cells: int):
    random = np.random.default_rng(7)
    found = []
    for _ in range(600):
        error = PooledError(0.02 * np.sqrt(random.chisquare(20) / 20), 20, 0.0, 0.5)
        differences = random.normal(size=6) * 0.02 * cells**0.5
        found.append(corrected_tests([differences.tolist()], error=error, cells=[cells])[0].spread_p)
    assert stats.kstest(found, "uniform").pvalue > 0.01
    close, far = ([0.007 + scale * value for value in (-1, -0.5, 0, 0.5, 1)] for scale in (0.001, 0.2))
    error = PooledError(0.02, 20, 0.0, 0.5)
    close, far = (corrected_tests([values], error=error, cells=[cells])[0].spread_p for values in (close, far))
    assert close < 0.01 < 0.99 < far
    assert corrected_tests([SEEDS])[0].spread_p is None


def test_steps_to_an_accuracy_counts_to_the_first_mean_of_three_that_reaches_it():
    rising = [0.5, 0.9, 0.7, 0.8, 0.9, 0.6]
    assert steps_to(rising, 0.7) == (3, True)
    assert steps_to(rising, 0.8) == (4, True)
    assert steps_to(rising, 0.81) == (7, False), "one step more than there were"
    assert steps_to([0.9], 0.8) == (1, True)
    assert steps_to([0.7, 0.7, 0.7], 0.7) == (3, True), "0.7 three times has a mean of 0.7"


def test_the_area_is_the_mean_height():
    assert area([0.5] * 12) == pytest.approx(0.5)
    assert area([0.0, 0.5, 1.0]) == pytest.approx(0.5)
    assert area([0.2, 0.8, 0.2]) == pytest.approx(0.5)
    assert area([0.3]) == 0.3
