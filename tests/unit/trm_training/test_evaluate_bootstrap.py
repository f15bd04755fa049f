"""Intervals by question."""

import numpy as np
import pytest

from recipe.sophiavl.trm_training.evaluate.bootstrap import intervals, resampled_weights
from recipe.sophiavl.trm_training.evaluate.statistics import auc_of, mean_of, spearman_of, undefined


def mean(values):
    return mean_of(np.array(values, dtype=float), np.ones(len(values), dtype=bool))


def test_all_rows_of_a_question_move_together():
    question = np.array([0, 1, 0, 2, 1, 0])
    for weights in resampled_weights(question, 50, seed=0):
        for number in range(3):
            assert len(set(weights[question == number])) == 1
        assert weights[[0, 1, 3]].sum() == 3


def test_as_drawing_questions_and_writing_their_rows_out():
    generator = np.random.default_rng(1)
    question, x, y = generator.integers(0, 12, 60), generator.random(60).round(1), generator.random(60).round(1)
    question = np.unique(question, return_inverse=True)[1]
    everywhere = np.ones(60, dtype=bool)
    statistics = {
        "mean": mean_of(x, everywhere),
        "spearman": spearman_of(x, y, everywhere),
        "auc": auc_of(x, y > 0.5, everywhere),
    }
    found = intervals(statistics, question, 200, seed=5)

    drawing = np.random.default_rng(5)
    number = question.max() + 1
    naive = {name: [] for name in statistics}
    for _ in range(200):
        rows = np.concatenate([np.flatnonzero(question == drawn) for drawn in drawing.integers(0, number, number)])
        all_rows = np.ones(rows.size, dtype=bool)
        naive["mean"].append(x[rows].mean())
        naive["spearman"].append(spearman_of(x[rows], y[rows], all_rows).value())
        naive["auc"].append(auc_of(x[rows], y[rows] > 0.5, all_rows).value())
    for name, values in naive.items():
        low, high = np.quantile(values, [0.025, 0.975])
        assert (found[name].low, found[name].high) == (pytest.approx(low), pytest.approx(high))


def test_rows_of_one_question_are_no_independent_rows():
    values = np.repeat([0.0, 1.0] * 10, 10)
    by_question = intervals({"m": mean(values)}, np.repeat(np.arange(20), 10), 500, 0)["m"]
    by_row = intervals({"m": mean(values)}, np.arange(200), 500, 0)["m"]
    assert by_question.high - by_question.low > 2.5 * (by_row.high - by_row.low)


def test_a_95_percent_interval_holds_the_truth_about_that_often():
    generator = np.random.default_rng(2)
    hits = 0
    for seed in range(200):
        values = generator.normal(0.5, 0.1, 40)
        span = intervals({"m": mean(values)}, np.arange(40), 200, seed)["m"]
        hits += span.low <= 0.5 <= span.high
    assert 0.87 <= hits / 200 <= 0.99


def test_the_seed_decides():
    question, statistic = np.arange(30), {"m": mean(np.linspace(0, 1, 30))}
    assert intervals(statistic, question, 50, 3) == intervals(statistic, question, 50, 3)
    assert intervals(statistic, question, 50, 3) != intervals(statistic, question, 50, 4)


@pytest.mark.parametrize(
    ("statistic", "question", "resamples", "reason"),
    [
        (mean([0.1, 0.2]), [0, 0], 10, "one question"),
        (mean([0.1, 0.2]), [0, 1], 0, "--bootstrap 0"),
        (undefined("no column"), [0, 1], 10, "no column"),
        # One row in thirty: most resamples of questions miss it.
        (
            auc_of(np.array([0.1, 0.2, *[np.nan] * 28]), np.arange(30) == 0, np.arange(30) < 2),
            list(range(30)),
            100,
            "undefined in",
        ),
    ],
)
def test_where_there_is_no_interval_there_is_a_reason(statistic, question, resamples, reason):
    span = intervals({"s": statistic}, np.array(question), resamples, 0)["s"]
    assert (span.low, span.high) == (None, None)
    assert reason in span.reason


def test_resamples_without_a_value_are_left_out():
    values = np.array([0.25, 0.75, np.nan])
    span = intervals({"m": mean_of(values, ~np.isnan(values))}, np.arange(3), 300, 0)["m"]
    assert (span.low, span.high) == (0.25, 0.75)
