"""Trust-GRPO's reward: worked by hand, and against a slow reference in plain Python."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.sophiavl.trust_grpo import (
    MissingThinkingRewardError,
    Schedule,
    TrustGRPOConfig,
    annealing_factor,
    combine_rewards,
    trust_weights,
)

NAN = float("nan")

# ---- the slow reference ----------------------------------------------------------------------------------------------


def reference(outcome, thinking, groups, step, total_steps, config: TrustGRPOConfig) -> list[tuple]:
    """(reward, gamma, mu_correct, mu_wrong, used) of each response, one group after another."""
    thinking = [
        0.0 if config.min_outcome is not None and o < config.min_outcome else t
        for o, t in zip(outcome, thinking, strict=True)
    ]
    members = defaultdict(list)
    for i, name in enumerate(groups):
        members[name].append(i)
    horizon = config.total_steps or total_steps
    anneal = {
        "exponential": math.exp(-step / horizon),
        "linear": max(0.0, 1 - step / horizon),
        "cosine": (1 + math.cos(math.pi * min(1, step / horizon))) / 2,
        "constant": 1.0,
    }[config.schedule]
    rows: list[Any] = [None] * len(outcome)
    for indices in members.values():
        correct = [i for i in indices if outcome[i] >= config.correct_threshold]
        wrong = [i for i in indices if outcome[i] < config.correct_threshold]
        mu_correct, mu_wrong = mean([thinking[i] for i in correct]), mean([thinking[i] for i in wrong])
        gamma = 1.0
        if config.trust and mu_correct < mu_wrong:  # False with NaN
            gamma = math.exp(mu_correct - mu_wrong)
        any_missing = any(math.isnan(thinking[i]) for i in indices)
        for i in indices:
            used = not math.isnan(thinking[i])
            if config.on_missing == "drop_group" and any_missing:
                used = False
            if config.uniform_groups == "outcome_only" and not (correct and wrong):
                used = False
            reward = outcome[i] + (gamma * config.alpha * anneal * thinking[i] if used else 0.0)
            rows[i] = (reward, gamma, mu_correct, mu_wrong, used)
    return rows


def mean(values: list[float]) -> float:
    present = [value for value in values if not math.isnan(value)]
    return sum(present) / len(present) if present else NAN


# ---- strategies ------------------------------------------------------------------------------------------------------

UNIT = st.floats(0, 1)
RESPONSE = st.tuples(
    st.sampled_from([0.0, 0.1, 0.49, 0.5, 0.75, 1.0]) | UNIT,
    st.sampled_from([0.0, 0.3, 0.8, 1.0, NAN]) | UNIT,
    st.sampled_from(["a", "b", "c", "d"]),
)
BATCH = st.lists(RESPONSE, max_size=24).map(lambda rows: tuple(map(list, zip(*rows, strict=True))) or ([], [], []))
CONFIG = st.builds(
    TrustGRPOConfig,
    alpha=st.floats(0, 5),
    schedule=st.sampled_from(get_args(Schedule)),
    total_steps=st.none() | st.floats(1, 1e5),
    trust=st.booleans(),
    correct_threshold=st.floats(0.05, 1),
    uniform_groups=st.sampled_from(["keep", "outcome_only"]),
    on_missing=st.sampled_from(["drop_group", "drop_response"]),
    min_outcome=st.none() | UNIT,
)
STEP = st.floats(0, 3000)


# ---- trust weights ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "thinking", "gamma"),
    [
        ([1, 0], [0.2, 0.8], math.exp(-0.6)),
        ([1, 0], [0.8, 0.2], 1),
        ([1, 0], [0.5, 0.5], 1),
        ([1, 1, 0, 0], [0.2, 0.4, 0.5, 0.9], math.exp(0.3 - 0.7)),
        ([1, 0], [0.0, 1.0], math.exp(-1)),
        ([0.5, 0.49], [0.2, 0.8], math.exp(-0.6)),
        ([1, 1], [0.2, 0.8], 1),
        ([0, 0], [0.2, 0.8], 1),
        ([1, 0], [NAN, 0.8], 1),
        ([1, 0], [0.2, NAN], 1),
        ([1, 1, 0], [0.2, NAN, 0.8], math.exp(-0.6)),
        ([1, 1, 1, 0], [0.1, 0.2, 0.3, 0.2], 1),  # equal but for rounding
        ([1], [0.2], 1),
    ],
)
def test_gamma_of_one_group(outcome, thinking, gamma) -> None:
    assert trust_weights(outcome, thinking, ["q"] * len(outcome)) == pytest.approx([gamma] * len(outcome), abs=1e-15)
    assert np.all((trust_weights(outcome, thinking, ["q"] * len(outcome)) == 1) == (gamma == 1))


def test_groups_do_not_touch_each_other() -> None:
    gamma = trust_weights([1, 1, 0, 0, 1], [0.2, 0.9, 0.1, 0.8, 0.4], [7, 3, 3, 7, 5])
    assert gamma == pytest.approx([math.exp(-0.6), 1, 1, math.exp(-0.6), 1])
    assert gamma.dtype == np.float64


def test_threshold_decides_the_sides() -> None:
    assert trust_weights([0.6, 0.4], [0.2, 0.8], [0, 0], correct_threshold=0.7) == pytest.approx([1, 1])
    assert trust_weights([0.6, 0.4], [0.2, 0.8], [0, 0], correct_threshold=0.6) == pytest.approx([math.exp(-0.6)] * 2)


@given(BATCH, st.floats(0.05, 1))
def test_gamma_is_in_range_and_one_per_group(batch, threshold) -> None:
    gamma = trust_weights(*batch, correct_threshold=threshold)
    assert np.all((gamma >= math.exp(-1) * (1 - 1e-12)) & (gamma <= 1))
    for name in set(batch[2]):
        assert len({g for g, other in zip(gamma, batch[2], strict=True) if other == name}) == 1


@given(st.lists(st.tuples(UNIT, st.sampled_from(["a", "b"])), min_size=1), UNIT)
def test_gamma_is_one_when_all_scores_agree(rows, score) -> None:
    outcome, groups = zip(*rows, strict=True)
    assert np.all(trust_weights(outcome, [score] * len(rows), groups) == 1)


# ---- annealing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("exponential", [1, math.exp(-0.25), math.exp(-0.5), math.exp(-1), math.exp(-2)]),
        ("linear", [1, 0.75, 0.5, 0, 0]),
        ("cosine", [1, (1 + math.sqrt(0.5)) / 2, 0.5, 0, 0]),
        ("constant", [1, 1, 1, 1, 1]),
    ],
)
def test_annealing(schedule, factors) -> None:
    assert [annealing_factor(s, 1000, schedule) for s in (0, 250, 500, 1000, 2000)] == pytest.approx(factors)


def test_annealing_is_exponential_unless_told() -> None:
    assert annealing_factor(1500, 12000) == pytest.approx(0.8825, abs=1e-4)  # the published code's T
    assert annealing_factor(1500, 1500) == pytest.approx(0.3679, abs=1e-4)


@given(st.sampled_from(get_args(Schedule)), st.floats(0, 1e4), st.floats(0, 1e4), st.floats(0.1, 1e4))
def test_annealing_never_rises(schedule, step, later, total_steps) -> None:
    first, second = (annealing_factor(s, total_steps, schedule) for s in (step, step + later))
    assert 0 <= second <= first <= 1


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((-1, 10), "step=-1"),
        ((NAN, 10), "step=nan"),
        ((True, 10), "step=True"),
        (("1", 10), "step='1'"),
        ((1, 0), "total_steps=0"),
        ((1, -5), "total_steps=-5"),
        ((1, math.inf), "total_steps=inf"),
        ((1, 10, "polynomial"), "schedule='polynomial': use one of exponential, linear, cosine, constant"),
    ],
)
def test_annealing_checks_its_arguments(arguments, name) -> None:
    with pytest.raises(ValueError, match=name):
        annealing_factor(*arguments)


# ---- rewards ---------------------------------------------------------------------------------------------------------


def combine(outcome, thinking, groups=None, *, step=0, total_steps=100, **settings):
    groups = ["q"] * len(outcome) if groups is None else groups
    return combine_rewards(
        outcome, thinking, groups, step=step, total_steps=total_steps, config=TrustGRPOConfig(**settings)
    )


def test_the_papers_rule() -> None:
    result = combine([1, 0, 1, 0], [0.3, 0.7, 0.3, 0.7], step=50)
    weight = 0.3 * math.exp(-0.5) * math.exp(-0.4)
    assert result.reward == pytest.approx([1 + weight * 0.3, weight * 0.7, 1 + weight * 0.3, weight * 0.7])
    assert result.gamma == pytest.approx([math.exp(-0.4)] * 4)
    assert (result.mu_correct, result.mu_wrong) == (pytest.approx([0.3] * 4), pytest.approx([0.7] * 4))
    assert result.used.tolist() == [True] * 4


def test_settings_one_by_one() -> None:
    batch = ([1, 0], [0.2, 0.8])
    gamma = math.exp(-0.6)
    assert combine(*batch).reward == pytest.approx([1 + 0.06 * gamma, 0.24 * gamma])
    assert combine(*batch, alpha=0).reward.tolist() == [1, 0]
    assert combine(*batch, alpha=1).reward == pytest.approx([1 + 0.2 * gamma, 0.8 * gamma])
    assert combine(*batch, trust=False).reward == pytest.approx([1.06, 0.24])
    assert combine(*batch, trust=False).gamma.tolist() == [1, 1]
    assert combine(*batch, trust=False).mu_wrong == pytest.approx([0.8, 0.8])
    assert combine(*batch, step=100, schedule="linear").reward.tolist() == [1, 0]
    assert combine(*batch, step=100, schedule="constant").reward == pytest.approx([1 + 0.06 * gamma, 0.24 * gamma])
    assert combine(*batch, step=100, schedule="cosine").reward == pytest.approx([1, 0])
    result = combine_rewards(*batch, [0, 0], step=100, total_steps=100, config=TrustGRPOConfig(total_steps=200))
    assert result.reward == pytest.approx([1 + 0.06 * gamma * math.exp(-0.5), 0.24 * gamma * math.exp(-0.5)])


@pytest.mark.parametrize("outcome", [[1, 1], [0, 0]])
def test_uniform_groups(outcome) -> None:
    kept = combine(outcome, [0.2, 0.8])
    assert kept.reward == pytest.approx([outcome[0] + 0.06, outcome[1] + 0.24])
    assert np.isnan(kept.mu_wrong if outcome[0] else kept.mu_correct).all()
    dropped = combine(outcome, [0.2, 0.8], uniform_groups="outcome_only")
    assert dropped.reward.tolist() == outcome
    assert not dropped.used.any()
    mixed = combine([1, 0], [0.8, 0.2], uniform_groups="outcome_only")
    assert mixed.used.all()


def test_missing_scores() -> None:
    batch = ([1, 1, 0, 1, 0], [0.2, NAN, 0.8, 1.0, 0.5], ["a", "a", "a", "b", "b"])
    by_group = combine(*batch)
    assert by_group.used.tolist() == [False, False, False, True, True]
    assert by_group.reward == pytest.approx([1, 1, 0, 1.3, 0.15])
    by_response = combine(*batch, on_missing="drop_response")
    assert by_response.used.tolist() == [True, False, True, True, True]
    gamma = math.exp(-0.6)
    assert by_response.reward == pytest.approx([1 + 0.06 * gamma, 1, 0.24 * gamma, 1.3, 0.15])
    with pytest.raises(MissingThinkingRewardError, match=r"1 of 5 responses.*thinking_reward\.on_missing='raise'"):
        combine(*batch, on_missing="raise")
    assert combine([1, 0], [0.8, 0.2], on_missing="raise").used.all()


def test_min_outcome_counts_the_rest_as_zero() -> None:
    # never asked, so missing: but 0 by rule
    result = combine([1, 0.1, 0.2], [0.3, NAN, 0.9], min_outcome=0.2, on_missing="raise")
    assert result.mu_wrong == pytest.approx([0.45] * 3)
    gamma = math.exp(-0.15)
    assert result.reward == pytest.approx([1 + 0.09 * gamma, 0.1, 0.2 + 0.27 * gamma])
    # a score that is there is replaced too
    assert combine([1, 0], [0.3, 0.9], min_outcome=0.2).gamma.tolist() == [1, 1]


def test_empty_batch() -> None:
    result = combine([], [])
    arrays = (result.reward, result.gamma, result.mu_correct, result.mu_wrong, result.used)
    assert [a.shape for a in arrays] == [(0,)] * 5
    assert trust_weights([], [], []).shape == (0,)


def test_inputs_stay_as_they_are() -> None:
    outcome, thinking = np.array([1.0, 0.0]), np.array([0.3, NAN])
    combine(outcome, thinking, min_outcome=0.5)
    assert outcome.tolist() == [1, 0]
    assert np.isnan(thinking[1])


@given(BATCH, STEP, st.integers(1, 3000), CONFIG)
def test_equals_the_reference(batch, step, total_steps, config) -> None:
    result = combine_rewards(*batch, step=step, total_steps=total_steps, config=config)
    expected = list(zip(*reference(*batch, step, total_steps, config), strict=True)) or [()] * 5
    for name, column in zip(("reward", "gamma", "mu_correct", "mu_wrong", "used"), expected, strict=True):
        np.testing.assert_allclose(getattr(result, name), np.array(column, dtype=np.float64), atol=1e-11, err_msg=name)


@given(BATCH, CONFIG, st.randoms(use_true_random=False))
def test_order_and_names_of_groups_do_not_matter(batch, config, random) -> None:
    order = list(range(len(batch[0])))
    random.shuffle(order)
    names = {"a": 31, "b": 2, "c": 17, "d": 5}
    first = combine_rewards(*batch, step=10, total_steps=100, config=config)
    shuffled = [[column[i] for i in order] for column in batch]
    shuffled[2] = [names[name] for name in shuffled[2]]
    second = combine_rewards(*shuffled, step=10, total_steps=100, config=config)
    for name in ("reward", "gamma", "mu_correct", "mu_wrong", "used"):
        a, b = getattr(first, name), getattr(second, name)
        np.testing.assert_allclose(a[order].astype(float), b.astype(float), atol=1e-11, err_msg=name)


@given(BATCH, CONFIG)
def test_unused_is_outcome_only_and_the_bonus_is_bounded(batch, config) -> None:
    result = combine_rewards(*batch, step=10, total_steps=100, config=config)
    bonus = result.reward - np.array(batch[0], dtype=np.float64)
    assert np.all(bonus[~result.used] == 0)
    assert np.all((bonus >= 0) & (bonus <= config.alpha * (1 + 1e-12) + 1e-12))


# ---- validation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "thinking", "groups", "message"),
    [
        ([1], [0.1, 0.2], ["a"], "one length"),
        ([1, 0], [0.1, 0.2], ["a"], "one length"),
        ([[1, 0]], [[0.1, 0.2]], [["a", "b"]], "one-dimensional"),
        ([NAN], [0.1], ["a"], r"outcome must be in \[0, 1\]; found nan"),
        ([1.5], [0.1], ["a"], r"outcome must be in \[0, 1\]; found 1.5"),
        ([-0.5], [0.1], ["a"], r"outcome must be in \[0, 1\]; found -0.5"),
        ([math.inf], [0.1], ["a"], r"outcome must be in \[0, 1\]; found inf"),
        ([1], [1.5], ["a"], r"thinking must be NaN or in \[0, 1\]; found 1.5"),
        ([1], [-0.5], ["a"], r"thinking must be NaN or in \[0, 1\]; found -0.5"),
        ([1], [math.inf], ["a"], r"thinking must be NaN or in \[0, 1\]; found inf"),
        ([1], [0.5], [0.5], "groups must be integers or strings, not float64"),
    ],
)
def test_inputs_are_checked(outcome, thinking, groups, message) -> None:
    with pytest.raises(ValueError, match=message):
        trust_weights(outcome, thinking, groups)
    with pytest.raises(ValueError, match=message):
        combine(outcome, thinking, groups)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("alpha", value) for value in (-0.1, NAN, math.inf, True, "0.3", None)],
        *[("schedule", value) for value in ("exp", "", None, 1)],
        *[("total_steps", value) for value in (0, -1, NAN, math.inf, True, "100")],
        *[("trust", value) for value in (1, 0, "yes", None)],
        *[("trust_estimator", value) for value in ("Paper", "shrink", "", None, True)],
        *[("correct_threshold", value) for value in (0, -0.1, 1.1, NAN, True, None)],
        *[("uniform_groups", value) for value in ("drop", None, True)],
        *[("on_missing", value) for value in ("ignore", None)],
        *[("min_outcome", value) for value in (-0.1, 1.1, NAN, False, "0.2")],
    ],
)
def test_settings_are_checked(name, value) -> None:
    with pytest.raises(ValueError, match=rf"^thinking_reward\.{name}={value!r}: (must be set. )?Input should be "):
        TrustGRPOConfig(**{name: value})


@pytest.mark.parametrize(
    "settings",
    [
        {"alpha": 0},
        {"alpha": np.float64(0.5)},
        {"total_steps": 1},
        {"correct_threshold": 1},
        {"min_outcome": 0},
        {"min_outcome": 1},
    ],
)
def test_edges_of_the_settings_are_allowed(settings) -> None:
    TrustGRPOConfig(**settings)


@pytest.mark.parametrize("field", ["schedule", "trust_estimator", "uniform_groups", "on_missing"])
def test_every_named_value_is_allowed(field) -> None:
    for value in get_args(get_type_hints(TrustGRPOConfig)[field]):
        assert getattr(TrustGRPOConfig(**{field: value}), field) == value


@pytest.mark.parametrize(("in_means", "gamma"), [(False, math.exp(-0.3)), (True, math.exp(-0.1))])
def test_responses_without_the_format_stay_outside_the_means(in_means, gamma) -> None:
    """The TRM never saw them: a group with one must not be trusted more for it."""
    outcome, thinking = [1.0] * 4 + [0.0] * 4, [0.5] * 4 + [0.8] * 3 + [0.0]
    result = combine_rewards(
        outcome,
        thinking,
        ["a"] * 8,
        step=0,
        total_steps=10,
        config=TrustGRPOConfig(unformatted_in_means=in_means),
        formatted=[True] * 7 + [False],
    )
    assert result.gamma == pytest.approx(np.full(8, gamma))
    assert result.used.all()
    assert result.reward[-1] == 0.0
    assert result.reward[0] == pytest.approx(1 + gamma * 0.3 * 0.5)


def test_a_large_batch_of_uneven_groups() -> None:
    rng = np.random.default_rng(0)
    groups = np.array([f"uid-{i}" for i in rng.integers(0, 200, 5000)])
    outcome, thinking = rng.integers(0, 2, 5000).astype(float), rng.random(5000)
    result = combine_rewards(outcome, thinking, groups, step=5, total_steps=50, config=TrustGRPOConfig())
    expected = reference(outcome.tolist(), thinking.tolist(), groups.tolist(), 5, 50, TrustGRPOConfig())
    assert result.reward == pytest.approx([row[0] for row in expected])
