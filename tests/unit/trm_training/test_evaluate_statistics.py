"""Each weighted statistic against a slow plain reference, and against the same rows written out."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.sophiavl.trm_training.evaluate.statistics import auc_of, mean_of, spearman_of, undefined

TENTHS = st.integers(0, 10).map(lambda tenth: tenth / 10)
PAIRS = st.lists(st.tuples(TENTHS, TENTHS, st.integers(0, 3)), min_size=2, max_size=30)


def slow_ranks(values):
    return [sum(other < value for other in values) + (values.count(value) + 1) / 2 for value in values]


def slow_spearman(first, second):
    first, second = slow_ranks(list(first)), slow_ranks(list(second))
    means = sum(first) / len(first), sum(second) / len(second)
    covariance = sum((a - means[0]) * (b - means[1]) for a, b in zip(first, second, strict=True))
    spreads = [sum((a - mean) ** 2 for a in ranks) for ranks, mean in zip((first, second), means, strict=True)]
    return covariance / math.sqrt(spreads[0] * spreads[1]) if all(spreads) else None


def slow_auc(score, positive):
    above = [s for s, p in zip(score, positive, strict=True) if p]
    below = [s for s, p in zip(score, positive, strict=True) if not p]
    won = [1.0 if a > b else 0.5 if a == b else 0.0 for a in above for b in below]
    return sum(won) / len(won) if won else None


def everywhere(values):
    return np.ones(len(values), dtype=bool)


def spearman(first, second):
    return spearman_of(np.array(first), np.array(second), everywhere(first))


def auc(score, positive):
    return auc_of(np.array(score), np.array(positive, dtype=bool), everywhere(score))


def agrees(value, expected):
    return value is None if expected is None else value == pytest.approx(expected, abs=1e-9)


@given(PAIRS)
def test_spearman_is_the_correlation_of_average_ranks(pairs):
    first, second, _ = zip(*pairs, strict=True)
    statistic = spearman(first, second)
    assert agrees(statistic.value(), slow_spearman(first, second))
    assert statistic.undefined or -1 <= statistic.value() <= 1


def test_spearman_of_worked_examples():
    # 1 - 6 * (0 + 1 + 1 + 0 + 0) / (5 * 24)
    assert spearman([0.1, 0.2, 0.3, 0.4, 0.5], [0.1, 0.3, 0.2, 0.4, 0.5]).value() == pytest.approx(0.9)
    assert spearman([0.1, 0.2, 0.3], [0.3, 0.2, 0.1]).value() == -1


@given(PAIRS)
def test_spearman_and_auc_see_only_the_order(pairs):
    first, second, _ = map(np.array, zip(*pairs, strict=True))
    assert spearman(first, second).value() == spearman(first**3 / 2, np.exp(second)).value()
    assert auc(first, second > 0.5).value() == auc(np.exp(first), second > 0.5).value()


@given(PAIRS)
def test_auc_counts_pairs(pairs):
    score, other, _ = zip(*pairs, strict=True)
    positive = [value > 0.5 for value in other]
    assert agrees(auc(score, positive).value(), slow_auc(score, positive))


@given(PAIRS)
def test_a_weight_is_a_number_of_equal_rows(pairs):
    first, second, weights = map(np.array, zip(*pairs, strict=True))
    repeated = np.repeat(first, weights), np.repeat(second, weights)
    for make, slow in (
        (lambda a, b: spearman(a, b), lambda a, b: slow_spearman(a, b) if len(a) else None),
        (lambda a, b: auc(a, b > 0.5), lambda a, b: slow_auc(a, b > 0.5)),
        (lambda a, b: mean_of(a, everywhere(a)), lambda a, b: np.mean(a) if len(a) else None),
    ):
        value = make(first, second)(weights.astype(float))
        assert agrees(None if math.isnan(value) else value, slow(*repeated))


def test_only_the_rows_asked_for_count():
    values, where = np.array([0.1, np.nan, 0.5, 0.9]), np.array([True, False, True, False])
    assert mean_of(values, where).value() == pytest.approx(0.3)
    assert mean_of(values, where).n == 2
    assert mean_of(values, where)(np.array([3.0, 9.0, 1.0, 9.0])) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("statistic", "reason"),
    [
        (mean_of(np.array([]), np.array([], dtype=bool), "nothing here"), "nothing here"),
        (spearman([0.5], [0.5]), "fewer than two"),
        (spearman([], []), "fewer than two"),
        (spearman([0.5, 0.5], [0.1, 0.2]), "first are equal"),
        (spearman([0.1, 0.2], [0.5, 0.5]), "second are equal"),
        (auc([0.1, 0.2], [True, True]), "all outcomes are correct"),
        (auc([0.1, 0.2], [False, False]), "all outcomes are wrong"),
        (auc([], []), "no rows"),
        (undefined("because"), "because"),
    ],
)
def test_what_is_undefined_has_a_reason_and_no_value(statistic, reason):
    assert statistic.value() is None
    assert reason in statistic.undefined
    assert math.isnan(statistic(np.ones(statistic.n)))


def test_means_that_differ_in_their_last_bits_are_ties():
    noisy = np.array([0.1 + 0.2, 0.3, 0.7, 0.9])
    clean = np.array([0.3, 0.3, 0.7, 0.9])
    other, right, where = np.array([0.0, 1.0, 0.5, 0.2]), np.array([True, False, False, True]), np.ones(4, dtype=bool)
    assert noisy[0] != noisy[1]
    assert spearman_of(noisy, other, where).value() == spearman_of(clean, other, where).value()
    assert auc_of(noisy, right, where).value() == auc_of(clean, right, where).value()
