"""Each weighted statistic against a slow plain reference, and intervals against clusters drawn and written out."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.sophiavl.trm_training.evaluate.statistics import (
    auc_of,
    difference_of,
    intervals,
    mean_at,
    mean_of,
    resampled_weights,
    spearman_of,
    undefined,
)

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


def mean(values):
    return mean_of(np.array(values, dtype=float), np.ones(len(values), dtype=bool))


def test_all_rows_of_a_cluster_move_together():
    cluster = np.array([0, 1, 0, 2, 1, 0])
    for weights in resampled_weights(cluster, 50, seed=0):
        for number in range(3):
            assert len(set(weights[cluster == number])) == 1
        assert weights[[0, 1, 3]].sum() == 3


def test_as_drawing_clusters_and_writing_their_rows_out():
    generator = np.random.default_rng(1)
    cluster, x, y = generator.integers(0, 12, 60), generator.random(60).round(1), generator.random(60).round(1)
    cluster = np.unique(cluster, return_inverse=True)[1]
    everywhere = np.ones(60, dtype=bool)
    statistics = {
        "mean": mean_of(x, everywhere),
        "spearman": spearman_of(x, y, everywhere),
        "auc": auc_of(x, y > 0.5, everywhere),
    }
    found = intervals(statistics, cluster, 200, seed=5)

    drawing = np.random.default_rng(5)
    number = cluster.max() + 1
    naive = {name: [] for name in statistics}
    for _ in range(200):
        rows = np.concatenate([np.flatnonzero(cluster == drawn) for drawn in drawing.integers(0, number, number)])
        all_rows = np.ones(rows.size, dtype=bool)
        naive["mean"].append(x[rows].mean())
        naive["spearman"].append(spearman_of(x[rows], y[rows], all_rows).value())
        naive["auc"].append(auc_of(x[rows], y[rows] > 0.5, all_rows).value())
    for name, values in naive.items():
        low, high = np.quantile(values, [0.025, 0.975])
        assert (found[name].low, found[name].high) == (pytest.approx(low), pytest.approx(high))


def test_rows_of_one_cluster_are_no_independent_rows():
    values = np.repeat([0.0, 1.0] * 10, 10)
    by_cluster = intervals({"m": mean(values)}, np.repeat(np.arange(20), 10), 500, 0)["m"]
    by_row = intervals({"m": mean(values)}, np.arange(200), 500, 0)["m"]
    assert by_cluster.high - by_cluster.low > 2.5 * (by_row.high - by_row.low)


def test_only_clusters_of_images_give_intervals_that_hold_where_images_differ():
    """Simulated: 30 images with 4 questions of 3 responses each, and an effect of the image on all 12 of its rows."""
    image, asked = np.repeat(np.arange(30), 12), np.repeat(np.arange(120), 3)
    generator = np.random.default_rng(7)
    hits = {"image": 0, "question": 0}
    for seed in range(150):
        statistic = {"m": mean(0.5 + generator.normal(0, 0.15, 30)[image] + generator.normal(0, 0.1, 360))}
        for name, cluster in (("image", image), ("question", asked)):
            span = intervals(statistic, cluster, 200, seed)["m"]
            hits[name] += span.low <= 0.5 <= span.high
    assert hits["image"] / 150 >= 0.87
    assert hits["question"] / 150 <= 0.8


def test_a_paired_interval_sees_that_both_move_together():
    generator = np.random.default_rng(3)
    shared = generator.normal(0, 0.3, 60)
    first, second = mean(0.6 + shared), mean(0.5 + shared + generator.normal(0, 0.01, 60))
    spans = intervals({"first": first, "d": difference_of(first, second)}, np.arange(60), 300, 0)
    assert difference_of(first, second).value() == pytest.approx(first.value() - second.value())
    assert 0.08 < spans["d"].low < 0.1 < spans["d"].high < 0.12
    assert spans["first"].high - spans["first"].low > 5 * (spans["d"].high - spans["d"].low)


def test_a_difference_needs_both_and_may_be_over_different_rows():
    assert difference_of(mean([0.5]), undefined("no such column")).undefined == "no such column"
    values, where = np.array([0.2, 0.4, 0.9]), np.array([True, True, False])
    difference = difference_of(mean_of(values, ~where), mean_at(np.array([0.2, 0.4, 0.6]), np.array([0, 1, 1])))
    assert difference.value() == pytest.approx(0.9 - 0.4)
    # The middle row counts twice, and so do both values that it stands for.
    assert difference(np.array([1.0, 2.0, 1.0])) == pytest.approx(0.9 - (0.2 + 2 * 0.4 + 2 * 0.6) / 5)


def test_a_95_percent_interval_holds_the_truth_about_that_often():
    generator = np.random.default_rng(2)
    hits = 0
    for seed in range(200):
        values = generator.normal(0.5, 0.1, 40)
        span = intervals({"m": mean(values)}, np.arange(40), 200, seed)["m"]
        hits += span.low <= 0.5 <= span.high
    assert 0.87 <= hits / 200 <= 0.99


def test_the_seed_decides():
    cluster, statistic = np.arange(30), {"m": mean(np.linspace(0, 1, 30))}
    assert intervals(statistic, cluster, 50, 3) == intervals(statistic, cluster, 50, 3)
    assert intervals(statistic, cluster, 50, 3) != intervals(statistic, cluster, 50, 4)


@pytest.mark.parametrize(
    ("statistic", "cluster", "resamples", "reason"),
    [
        (mean([0.1, 0.2]), [0, 0], 10, "tied by their images"),
        (mean([0.1, 0.2]), [0, 1], 0, "--bootstrap 0"),
        (undefined("no column"), [0, 1], 10, "no column"),
        # One row in thirty: most resamples of clusters miss it.
        (
            auc_of(np.array([0.1, 0.2, *[np.nan] * 28]), np.arange(30) == 0, np.arange(30) < 2),
            list(range(30)),
            100,
            "undefined in",
        ),
    ],
)
def test_where_there_is_no_interval_there_is_a_reason(statistic, cluster, resamples, reason):
    span = intervals({"s": statistic}, np.array(cluster), resamples, 0)["s"]
    assert (span.low, span.high) == (None, None)
    assert reason in span.reason


def test_resamples_without_a_value_are_left_out():
    values = np.array([0.25, 0.75, np.nan])
    span = intervals({"m": mean_of(values, ~np.isnan(values))}, np.arange(3), 300, 0)["m"]
    assert (span.low, span.high) == (0.25, 0.75)
