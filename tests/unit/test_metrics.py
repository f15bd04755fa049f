"""Reward metrics of a small batch, counted by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from recipe.sophiavl.metrics import missing_counts, reward_metrics
from recipe.sophiavl.reward_manager import ThinkingRewardManager
from recipe.sophiavl.settings import ThinkingRewardSettings
from recipe.sophiavl.trust_grpo import TrustGRPOConfig

SETTINGS = ThinkingRewardSettings(client={"urls": ("http://127.0.0.1:1/v1",), "model": "trm"})


def component(outcome: float, thinking: float | None, **changes: Any) -> dict[str, Any]:
    return {
        "outcome_reward": outcome,
        "format_ok": True,
        "answer": "x",
        "problem_type": "numerical",
        "thinking_reward": thinking,
        "thinking_asked": True,
        "thinking_error": "",
        "thinking_latency_s": 1.0,
        "thinking_requests": 1,
        "thinking_cached": False,
    } | changes


def measure(
    components: list[dict[str, Any]], groups: list[str], settings: ThinkingRewardSettings = SETTINGS
) -> dict[str, float]:
    schedule = {"step": 5, "total_steps": 10, "settings": settings}
    rewards = ThinkingRewardManager.weigh_groups(components, groups, **schedule)
    return reward_metrics(components, groups, rewards, **schedule)


def test_trusted_and_distrusted_groups() -> None:
    components = [component(1, 0.9), component(0, 0.1), component(1, 0.2), component(0, 0.8)]
    metrics = measure(components, ["a", "a", "b", "b"])
    gamma = math.exp(0.2 - 0.8)
    assert metrics["trust/gamma_mean"] == pytest.approx((1 + gamma) / 2)
    assert metrics["trust/gamma_lowest"] == pytest.approx(gamma)
    assert metrics["trust/distrusted_frac"] == 0.5
    assert metrics["trust/mu_correct"] == pytest.approx(0.55)
    assert metrics["trust/mu_wrong"] == pytest.approx(0.45)
    assert metrics["thinking_reward/anneal"] == pytest.approx(math.exp(-0.5))
    assert metrics["thinking_reward/mean"] == pytest.approx(0.5)
    thinking_term = 0.3 * math.exp(-0.5) * (0.9 + 0.1 + gamma * 0.2 + gamma * 0.8) / 4
    assert metrics["reward/mean"] == pytest.approx(0.5 + thinking_term)


# Of group a the outcomes 1, 1, 0 become 1/sqrt(3), the same, -2/sqrt(3), and those of b 1/sqrt(2), -1/sqrt(2).
TOTALS = (3**-0.5 + 0.5, 3**-0.5 - 0.5, -2 * 3**-0.5, 0.5**0.5, -(0.5**0.5))
SCALE = math.sqrt(sum(total**2 for total in TOTALS) / 4)


@pytest.mark.parametrize(("rival", "squares", "scale"), [("gdpo", 2.0, SCALE), ("process_aware", 1.0, 1.0)])
def test_advantages_have_spreads_in_the_place_of_a_mean_and_of_trust(rival: str, squares: float, scale: float) -> None:
    components = [component(1, 0.9), component(1, 0.1), component(0, 0.5), component(1, 0.5), component(0, 0.5)]
    trust = TrustGRPOConfig(combine=rival, alpha=0.5, schedule="constant")
    metrics = measure(components, [*"aaabb"], ThinkingRewardSettings(trust=trust, client=SETTINGS.client))
    assert metrics["advantage/thinking_std"] == pytest.approx(0.5 * math.sqrt(squares / 5) / scale, rel=1e-4)
    assert metrics["advantage/outcome_std"] == pytest.approx(math.sqrt(3 / 5) / scale, rel=1e-4)
    if rival == "gdpo":
        assert metrics["advantage/std"] == pytest.approx(math.sqrt(4 / 5), rel=1e-4)
    assert metrics["advantage/thinking_groups_frac"] == 0.5, "in b all scores are equal"
    assert (metrics["thinking_reward/coverage"], metrics["thinking_reward/anneal"]) == (1.0, 1.0)
    assert not [name for name in metrics if name.startswith("trust/") or name == "reward/mean"]


def test_the_spread_of_scores_is_of_those_that_the_trm_gave() -> None:
    """A response without the format is 0 by rule, and would hide a TRM that always says the same."""
    by_rule = component(0, 0.0, thinking_asked=False)
    components = [component(1, 0.5), component(0, 0.5), component(0, None), by_rule]
    assert measure(components, ["a", "a", "b", "c"])["thinking_reward/std"] == 0
    assert measure([component(1, 0.5), component(0, 0.7)], ["a", "a"])["thinking_reward/std"] == pytest.approx(0.1)
    assert "thinking_reward/std" not in measure([by_rule], ["a"])


def test_groups_count_once_whatever_their_size() -> None:
    components = [component(1, 0.9), *(component(o, t) for o, t in ((1, 0.0), (0, 1.0), (0, 1.0), (0, 1.0)))]
    metrics = measure(components, ["a", "b", "b", "b", "b"])
    assert metrics["trust/gamma_mean"] == pytest.approx((1 + math.exp(-1)) / 2)


def test_missing_scores_lower_coverage_and_are_counted_by_kind() -> None:
    components = [
        component(1, 0.9, thinking_requests=0, thinking_cached=True),
        component(0, None, thinking_error="timeout", thinking_requests=3),
        component(0, 0.0, thinking_asked=False, thinking_latency_s=None),
    ]
    metrics = measure(components, ["a", "a", "b"])
    assert metrics["thinking_reward/coverage"] == 0.5
    assert metrics["thinking_reward/failed/timeout"] == 1
    assert metrics["thinking_reward/asked_frac"] == pytest.approx(2 / 3)
    assert metrics["trust/used_frac"] == pytest.approx(1 / 3)
    assert metrics["thinking_reward/requests_mean"] == 1.5
    assert metrics["thinking_reward/cached_frac"] == 0.5


def test_a_group_is_dropped_where_a_missing_score_took_the_thinking_term_from_all_of_it() -> None:
    components = [component(1, 0.9), component(0, None), component(1, 0.5), component(0, 0.4)]
    groups = ["a", "a", "b", "b"]
    assert measure(components, groups)["thinking_reward/group_coverage"] == 0.5
    by_response = ThinkingRewardSettings(trust=TrustGRPOConfig(on_missing="drop_response"), client=SETTINGS.client)
    assert measure(components, groups, by_response)["thinking_reward/group_coverage"] == 1.0
    rewards = ThinkingRewardManager.weigh_groups(components, groups, step=1, total_steps=1, settings=SETTINGS)
    expected = {"asked": 4, "missing": 1, "groups": 2, "dropped": 1}
    assert missing_counts(components, groups, rewards) == expected


def test_types_are_separate_only_where_mixed() -> None:
    mixed = [component(1, 0.5), component(0, 0.7, problem_type="multiple choice")]
    metrics = measure(mixed, ["a", "b"])
    assert metrics["outcome_reward/numerical/mean"] == 1
    assert metrics["outcome_reward/multiple_choice/mean"] == 0
    assert metrics["thinking_reward/multiple_choice/mean"] == pytest.approx(0.7)
    assert not any("numerical" in name for name in measure([component(1, 0.5)], ["a"]))


def test_types_that_differ_in_case_only_are_one() -> None:
    mixed = [component(1, 0.5), component(0, 0.7, problem_type=" Numerical"), component(0, 0.1, problem_type="OCR")]
    metrics = measure(mixed, ["a", "b", "c"])
    assert metrics["outcome_reward/numerical/mean"] == 0.5
    assert metrics["thinking_reward/numerical/mean"] == pytest.approx(0.6)


def test_without_thinking_reward_the_reward_is_the_outcome() -> None:
    off = ThinkingRewardSettings(enable=False)
    components = [component(1, None, thinking_asked=False), component(0, None, thinking_asked=False)]
    metrics = measure(components, ["a", "a"], off)
    assert metrics["reward/mean"] == 0.5
    assert not any(name.startswith(("trust/", "thinking_reward/")) for name in metrics)


def test_correct_can_mean_another_outcome_for_each_answer_type() -> None:
    """An OCR answer with an outcome of 0.6 is on the wrong side where OCR needs 0.9."""
    components = [component(0.6, 0.9, problem_type="OCR"), component(1.0, 0.4, problem_type="OCR")]
    assert measure(components, ["a", "a"])["trust/gamma_mean"] == 1.0
    trust = TrustGRPOConfig(correct_threshold_by_type={"ocr": 0.9})
    strict = ThinkingRewardSettings(trust=trust, client=SETTINGS.client)
    assert measure(components, ["a", "a"], strict)["trust/gamma_mean"] == pytest.approx(math.exp(0.4 - 0.9))
