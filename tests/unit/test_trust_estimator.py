"""Estimators of gamma: worked by hand, against a slow reference in plain Python, and what holds for any batch."""

from __future__ import annotations

import math
from statistics import mean
from typing import get_args

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from recipe.sophiavl.trust_estimator import TrustEstimator, estimate_trust, sides_of
from recipe.sophiavl.trust_grpo import TrustGRPOConfig, combine_rewards, trust_weights
from tests.support.trust import plain_gammas

NAN = float("nan")
ESTIMATORS = get_args(TrustEstimator)
SHRINKING = [name for name in ESTIMATORS if name != "paper"]

# Scores as a TRM replies them: their differences are 0 or far from it, and no rounding decides a side.
TENTHS = st.integers(0, 10).map(lambda tenths: tenths / 10)
SCORE = TENTHS | st.just(NAN)
RESPONSE = st.tuples(st.booleans(), SCORE, st.integers(0, 4))
BATCH = st.lists(RESPONSE, min_size=1, max_size=40).map(lambda rows: tuple(map(np.array, zip(*rows, strict=True))))


def gammas(batch, estimator: TrustEstimator) -> np.ndarray:
    """Of each response."""
    right, thinking, groups = batch
    return trust_weights(np.asarray(right, dtype=float), thinking, groups, estimator=estimator)


def of_groups(*groups: tuple[list[float], list[float]]) -> tuple[list, list, list]:
    """A batch from the scores of the right and of the wrong responses of each group."""
    rows = [
        (right, score, number)
        for number, sides in enumerate(groups)
        for right, scores in zip((True, False), sides, strict=True)
        for score in scores
    ]
    return tuple(map(list, zip(*rows, strict=True)))


# ---- by hand ---------------------------------------------------------------------------------------------------------


def test_shrunk_by_hand() -> None:
    """d = -0.4, +0.2; p = 1, 3/4; v = (0.02 + 0.02 + 0.02) / 4 = 0.015; s = (0.16 + 0.03 - 0.03) / 1.75."""
    batch = of_groups(([0.3, 0.5], [0.7, 0.9]), ([0.6], [0.3, 0.4, 0.5]))
    kept = (0.16 / 1.75) / (0.16 / 1.75 + 0.015)
    first, *_, last = gammas(batch, "shrunk")
    assert first == pytest.approx(math.exp(-0.4 * kept))
    assert last == 1


def test_pooled_by_hand() -> None:
    """The same batch: c = (-0.4 + 0.15) / 1.75."""
    batch = of_groups(([0.3, 0.5], [0.7, 0.9]), ([0.6], [0.3, 0.4, 0.5]))
    centre = (-0.4 + 0.75 * 0.2) / 1.75
    around = (-0.4 - centre) ** 2 + 0.75 * (0.2 - centre) ** 2
    signal = (around - 0.015) / (1.75 - (1 + 0.75**2) / 1.75)
    kept = signal / (signal + 0.015)
    first, *_, last = gammas(batch, "pooled")
    assert first == pytest.approx(math.exp(centre + kept * (-0.4 - centre)))
    assert last == 1, "its own right responses think better, whatever the batch's mean"


def test_noise_alone_distrusts_nobody_when_shrunk() -> None:
    batch = of_groups(([0.2, 0.8], [0.3, 0.9]), ([0.9, 0.3], [0.8, 0.2]))
    assert gammas(batch, "paper").min() == pytest.approx(math.exp(-0.1))
    assert np.all(gammas(batch, "shrunk") == 1)


def test_pooled_takes_the_batchs_mean_where_the_groups_differ_by_noise_alone() -> None:
    batch = of_groups(([0.2, 0.4], [0.5, 0.9]), ([0.1, 0.5], [0.6, 0.7]))
    assert gammas(batch, "pooled") == pytest.approx(np.full(8, math.exp(-0.375)))


@pytest.mark.parametrize("estimator", SHRINKING)
@pytest.mark.parametrize(
    "groups",
    [
        [([0.2], [0.8])],
        [([0.2], [0.8]), ([0.4], [0.5]), ([0.9], [0.1])],  # no side has two scores
        [([0.2, 0.2], [0.8]), ([0.4, 0.4, 0.4], [0.5, 0.5])],  # scores never differ within a side
        [([0.1, 0.1, 0.1], [0.3, 0.3])],
        [([0.5, 0.5], [0.5]), ([0.5], [0.5])],
        [([0.2, 0.4], []), ([], [0.9, 0.1]), ([0.3], [NAN])],  # no group has both sides
        [([NAN], [NAN])],
    ],
)
def test_as_the_paper_where_nothing_tells_noise_from_difference(estimator, groups) -> None:
    batch = of_groups(*groups)
    np.testing.assert_allclose(gammas(batch, estimator), gammas(batch, "paper"), rtol=1e-12)


def test_one_group_alone() -> None:
    """Shrunk: p = 1 and v = 0.02, so that 1 - v / d^2 remains of d, or nothing. Pooled: the paper's."""
    batch = of_groups(([0.3, 0.5], [0.7, 0.9]))
    assert gammas(batch, "shrunk") == pytest.approx(np.full(4, math.exp(-0.4 * (1 - 0.02 / 0.16))))
    assert gammas(batch, "pooled") == pytest.approx(np.full(4, math.exp(-0.4)))
    assert np.all(gammas(of_groups(([0.3, 0.5], [0.4, 0.6])), "shrunk") == 1)


def test_uniform_groups_tell_of_the_noise() -> None:
    """A group with one side has no difference, but its scores say how much scores vary."""
    lone = ([0.2], [0.8])
    assert gammas(of_groups(lone), "shrunk")[0] == pytest.approx(math.exp(-0.6))
    batch = of_groups(lone, ([0.1, 0.5, 0.9], []))  # v = 0.16, s = max(0, 0.18 - 0.16) / 0.5
    assert gammas(batch, "shrunk")[0] == pytest.approx(math.exp(-0.6 * (0.04 / (0.04 + 0.32))))


# ---- any batch -------------------------------------------------------------------------------------------------------


@given(BATCH, st.sampled_from(ESTIMATORS))
def test_equals_the_reference(batch, estimator) -> None:
    right, thinking, groups = (column.tolist() for column in batch)
    expected = plain_gammas(right, thinking, groups, estimator)
    found = gammas(batch, estimator)
    np.testing.assert_allclose(found, [expected[name] for name in groups], atol=1e-9)


@given(BATCH, st.sampled_from(ESTIMATORS))
def test_gamma_is_in_range_and_below_1_only_where_wrong_thinks_better(batch, estimator) -> None:
    found, paper = gammas(batch, estimator), gammas(batch, "paper")
    assert np.all((found > math.exp(-1) - 1e-12) & (found <= 1))
    assert np.all(found[paper == 1] == 1)
    if estimator == "shrunk":
        assert np.all(found >= paper)


@given(BATCH)
def test_the_papers_gamma_is_what_it_was_bit_for_bit(batch) -> None:
    right, thinking, groups = batch
    expected = np.ones(groups.max() + 1)
    present = ~np.isnan(thinking)
    for name in set(groups.tolist()):
        sides = [thinking[(groups == name) & (right == side) & present] for side in (True, False)]
        if all(side.size for side in sides):
            # Summed from first to last, as np.bincount does; np.mean sums in pairs.
            difference = sum(sides[0].tolist()) / sides[0].size - sum(sides[1].tolist()) / sides[1].size
            expected[name] = np.exp(difference) if difference < -1e-12 else 1.0
    assert gammas(batch, "paper").tolist() == expected[groups].tolist()


@given(BATCH, st.sampled_from(ESTIMATORS), st.randoms(use_true_random=False))
def test_order_of_groups_and_of_responses_does_not_matter(batch, estimator, random) -> None:
    order = list(range(len(batch[0])))
    random.shuffle(order)
    names = random.sample(range(100), 5)
    shuffled = [column[order] for column in batch]
    shuffled[2] = np.array([f"question {names[number]}" for number in shuffled[2]])
    np.testing.assert_allclose(gammas(shuffled, estimator), gammas(batch, estimator)[order], atol=1e-9)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=30),
    st.lists(st.integers(0, 5), min_size=4, max_size=4),
    st.sampled_from(ESTIMATORS),
)
def test_scores_may_lie_higher_or_lower_in_a_group(rows, shifts, estimator) -> None:
    """A constant added to all scores of a group is not a difference between its sides."""
    right, tenths, groups = map(np.array, zip(*rows, strict=True))
    low, high = tenths / 10, (tenths + np.array(shifts)[groups]) / 10
    np.testing.assert_allclose(
        gammas((right, low, groups), estimator), gammas((right, high, groups), estimator), atol=1e-9
    )


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 3)), min_size=2, max_size=30),
    st.sampled_from(ESTIMATORS),
)
def test_the_better_its_right_responses_think_the_more_a_group_is_trusted(rows, estimator) -> None:
    right, tenths, groups = map(np.array, zip(*rows, strict=True))
    raised = right & (groups == groups[0])
    assume(raised.any())
    before = gammas((right, tenths / 10, groups), estimator)
    after = gammas((right, (tenths + raised) / 10, groups), estimator)
    assert after[0] >= before[0] - 1e-9


@pytest.mark.parametrize("estimator", SHRINKING)
def test_many_responses_give_the_papers_gamma(estimator) -> None:
    rng = np.random.default_rng(0)
    errors = []
    for size in (10, 100, 1000, 10000):
        groups = np.repeat(np.arange(8), size)
        right = rng.random(groups.size) < 0.5
        differences = np.linspace(-0.4, 0.2, 8)[groups]
        thinking = np.clip(rng.normal(0.5 + differences * np.where(right, 0.5, -0.5), 0.2), 0, 1)
        batch = (right, thinking, groups)
        errors.append(np.abs(gammas(batch, estimator) - gammas(batch, "paper")).max())
    assert errors[-1] < 1e-3
    assert errors == sorted(errors, reverse=True)


def test_a_leading_axis_is_many_batches() -> None:
    """As the benchmark asks: each row of groups is a batch of its own."""
    rng = np.random.default_rng(1)
    right, thinking = rng.random((3, 40)) < 0.5, rng.integers(0, 11, (3, 40)) / 10
    number = np.arange(40) // 8
    for estimator in ESTIMATORS:
        flat = sides_of(right.ravel(), thinking.ravel(), (number + 5 * np.arange(3)[:, None]).ravel())
        stacked = type(flat)(**{name: value.reshape(3, 5) for name, value in vars(flat).items()})
        alone = [estimate_trust(sides_of(*row, number), estimator) for row in zip(right, thinking, strict=True)]
        np.testing.assert_allclose(estimate_trust(stacked, estimator), alone, rtol=1e-12)


def test_an_empty_batch_has_no_gamma() -> None:
    for estimator in ESTIMATORS:
        assert trust_weights([], [], [], estimator=estimator).shape == (0,)


# ---- in the reward ---------------------------------------------------------------------------------------------------


@given(BATCH, st.sampled_from(ESTIMATORS), st.lists(st.booleans(), min_size=40, max_size=40))
def test_rewards_are_equation_5_with_that_gamma_and_the_means_are_plain(batch, estimator, formatted) -> None:
    right, thinking, groups = batch
    formatted = np.array(formatted[: right.size])
    outcome, scored = (right & formatted).astype(float), np.where(formatted, thinking, 0.0)
    config = TrustGRPOConfig(trust_estimator=estimator, schedule="constant", on_missing="drop_response")
    result = combine_rewards(outcome, scored, groups, step=1, total_steps=9, config=config, formatted=formatted)
    in_means = np.where(formatted, thinking, NAN)
    gamma = plain_gammas(outcome > 0, in_means.tolist(), groups.tolist(), estimator)
    gamma = np.array([gamma[name] for name in groups.tolist()])
    np.testing.assert_allclose(result.gamma, gamma, atol=1e-9)
    np.testing.assert_allclose(result.reward, outcome + 0.3 * gamma * np.nan_to_num(scored), atol=1e-9)
    for place, name in enumerate(groups.tolist()):
        members = in_means[(groups == name) & (outcome > 0) & ~np.isnan(in_means)].tolist()
        assert result.mu_correct[place] == pytest.approx(mean(members) if members else NAN, nan_ok=True)


def test_without_trust_no_estimator_is_asked() -> None:
    batch = of_groups(([0.2, 0.3], [0.8, 0.9]))
    outcome = np.array(batch[0], dtype=float)
    for estimator in ESTIMATORS:
        config = TrustGRPOConfig(trust=False, trust_estimator=estimator)
        assert np.all(combine_rewards(outcome, *batch[1:], step=1, total_steps=9, config=config).gamma == 1)
