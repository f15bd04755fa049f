"""The AUC of a stream is that of its rows, and its interval holds what drawing whole questions anew gives."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from recipe.sophiavl.report.auc import AucCounts, question_weights, with_interval

SEED = 3


def rows(groups: int, size: int, seed: int = 0, effect: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores with three decimals, sides and groups; `effect`: how much of a score its question makes."""
    generator = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), size)
    right = generator.random(group.size) < 0.4
    own = generator.normal(0, effect, groups)[group]
    return np.clip(np.round(generator.normal(0.5 + 0.1 * right + own, 0.2), 3), 0, 1), right, group


def counted(scores: np.ndarray, right: np.ndarray, group: np.ndarray, parts: int = 1) -> AucCounts:
    """The rows as several steps, cut between groups."""
    counts = AucCounts()
    names, place = np.unique(group, return_inverse=True)
    for part in np.array_split(np.arange(names.size), parts):
        inside = np.isin(place, part)
        weights = question_weights(names[part].astype(np.uint64), SEED)
        counts.add(scores[inside], right[inside], place[inside] - part[0], weights)
    return counts


def test_over_all_pairs_it_is_scikit_learns() -> None:
    scores, right, group = rows(60, 8)
    assert counted(scores, right, group, parts=7).pooled()[0] == pytest.approx(roc_auc_score(right, scores), abs=1e-12)


def test_ties_count_one_half() -> None:
    scores, right, group = rows(60, 8)
    tenths = np.round(scores, 1)
    assert counted(tenths, right, group).pooled()[0] == pytest.approx(roc_auc_score(right, tenths), abs=1e-12)


def test_within_groups_only_pairs_of_a_group_count() -> None:
    scores, right, group = rows(40, 6, effect=0.5)
    wins = pairs = 0.0
    for one in np.unique(group):
        for high in scores[(group == one) & right]:
            for low in scores[(group == one) & ~right]:
                wins, pairs = wins + (high > low) + 0.5 * (high == low), pairs + 1
    counts = counted(scores, right, group, parts=3)
    assert counts.within()[0] == pytest.approx(wins / pairs, abs=1e-12)
    assert abs(counts.within()[0] - counts.pooled()[0]) > 0.01


def test_a_resample_counts_each_row_as_often_as_its_question() -> None:
    scores, right, group = rows(30, 4)
    weights = question_weights(np.arange(30, dtype=np.uint64), SEED)
    found = counted(scores, right, group, parts=4).pooled()
    for resample in (1, 7, 400):
        expected = roc_auc_score(right, scores, sample_weight=weights[group, resample])
        assert found[resample] == pytest.approx(expected, abs=1e-12)


def test_the_interval_is_as_wide_as_that_of_questions_drawn_with_replacement() -> None:
    scores, right, group = rows(150, 8, effect=0.2)
    generator = np.random.default_rng(1)
    resampled = []
    for _ in range(400):
        weight = np.bincount(generator.integers(0, 150, 150), minlength=150)[group]
        resampled.append(roc_auc_score(right, scores, sample_weight=weight))
    found = counted(scores, right, group).pooled()
    assert np.std(found[1:]) == pytest.approx(np.std(resampled), rel=0.15)
    auc = with_interval(found, None)
    assert [auc.low, auc.high] == pytest.approx(np.quantile(resampled, [0.025, 0.975]), abs=0.012)


def test_more_responses_to_the_same_questions_do_not_narrow_it() -> None:
    scores, right, group = rows(50, 4)
    once = counted(scores, right, group)
    again = counted(np.tile(scores, 9), np.tile(right, 9), np.tile(group, 9))
    assert again.pooled() == pytest.approx(once.pooled(), abs=1e-12, nan_ok=True)


def test_weights_follow_poissons_law_and_the_question_alone() -> None:
    weights = question_weights(np.arange(500, dtype=np.uint64), SEED)
    assert np.all(weights[:, 0] == 1)
    drawn = weights[:, 1:]
    assert drawn.mean() == pytest.approx(1, abs=0.01)
    assert drawn.var() == pytest.approx(1, abs=0.02)
    assert abs(np.corrcoef(drawn[:, :60].T)[np.triu_indices(60, 1)]).mean() < 0.06
    assert np.array_equal(question_weights(np.array([7, 3], dtype=np.uint64), SEED), weights[[7, 3]])
    assert not np.array_equal(question_weights(np.array([7], dtype=np.uint64), SEED + 1), weights[[7]])


@pytest.mark.parametrize(("right", "word"), [(True, "right"), (False, "wrong")])
def test_one_side_alone_has_no_auc_and_says_why(right: bool, word: str) -> None:
    counts = counted(np.array([0.1, 0.9]), np.array([right, right]), np.array([0, 1]))
    auc = with_interval(counts.pooled(), counts.why_none())
    assert (auc.value, auc.low) == (None, None)
    assert word in auc.reason


def test_nothing_scored_has_no_auc() -> None:
    counts = AucCounts()
    assert with_interval(counts.pooled(), counts.why_none()).reason == "no response has a score"


def test_one_question_gives_a_figure_and_no_narrow_interval() -> None:
    counts = counted(np.array([0.9, 0.1]), np.array([True, False]), np.array([0, 0]))
    auc = with_interval(counts.pooled(), counts.why_none())
    assert auc.value == 1.0
    assert (auc.low, auc.high) in ((None, None), (1.0, 1.0))


def test_the_distribution_counts_each_response_once_at_the_nearest_cell() -> None:
    scores = np.array([0.0, 0.04, 0.06, 0.5, 0.96, 1.0, 1.0])
    right = np.array([True, True, True, False, True, True, False])
    found = counted(scores, right, np.arange(7)).distribution(11)
    assert found == ([2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2], [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1])
