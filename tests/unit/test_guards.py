"""Guards stop what should stop, say why, and leave healthy runs alone."""

from __future__ import annotations

import numpy as np
import pytest

from recipe.sophiavl.guards import (
    Guards,
    RolloutMismatchError,
    ThinkingRewardLostError,
    Window,
    constant_scores,
    rollout_mismatch,
)
from recipe.sophiavl.settings import EngineSettings, ThinkingRewardSettings

SETTINGS = EngineSettings()


def measured(correlation: float, difference: float) -> dict[str, float]:
    return {
        "training/rollout_actor_probs_pearson_corr": correlation,
        "training/rollout_probs_diff_mean": difference,
    }


GOOD, BAD = measured(0.999, 0.01), measured(0.79, 0.1)


def guards(*, window: int = 3, total_steps: int = 100, **thinking: object) -> Guards:
    given = {"client": {"urls": ["http://h/v1"], "model": "m"}, "missing_window_steps": window, **thinking}
    return Guards(ThinkingRewardSettings(**given), EngineSettings(rollout_window_steps=window), total_steps)


@pytest.mark.parametrize(
    ("correlation", "difference"),
    [(0.999, 0.01), (0.95, 0.2), (0.3, 0.001), (float("nan"), 0.0)],
    ids=["matching", "at the threshold", "no spread to correlate", "constant probabilities"],
)
def test_healthy_rollouts_pass(correlation: float, difference: float) -> None:
    assert rollout_mismatch(measured(correlation, difference), SETTINGS) is None


@pytest.mark.parametrize(("correlation", "difference"), [(0.79, 0.1), (float("nan"), 0.5), (-0.2, 0.02)])
def test_a_mismatch_is_told_with_the_likely_causes(correlation: float, difference: float) -> None:
    problem = rollout_mismatch(measured(correlation, difference), SETTINGS)
    for part in ("mm_device_do_normalize", "load_format", "sophiavl.min_rollout_correlation=0.95", "top_k"):
        assert part in problem


def test_one_wrong_correlation_stops_no_run_and_a_window_of_them_does(caplog: pytest.LogCaptureFixture) -> None:
    guard = guards(window=3)
    for step, metrics in enumerate([BAD, BAD, GOOD, BAD, BAD], 1):
        guard.compare_rollout(metrics, step=step)
        assert guard.end_step() is None
    assert "step 1: correlation 0.790" in caplog.text, "said at once"
    guard.compare_rollout(BAD, step=6)
    stop = guard.end_step()
    assert isinstance(stop, RolloutMismatchError)
    assert "last 3 steps; step 6: correlation 0.790" in str(stop)


def test_a_short_run_is_guarded_too() -> None:
    guard = guards(window=3, total_steps=1)
    guard.compare_rollout(BAD, step=1)
    assert isinstance(guard.end_step(), RolloutMismatchError)


def test_a_run_that_measures_nothing_stops() -> None:
    with pytest.raises(RolloutMismatchError, match="calculate_log_probs=true"):
        guards().compare_rollout({}, step=1)


def test_the_check_can_be_off() -> None:
    guard = Guards(ThinkingRewardSettings(enable=False), EngineSettings(check_rollout=False), 1)
    guard.compare_rollout({}, step=1)
    assert guard.end_step() is None


def test_missing_scores_are_judged_over_a_full_window() -> None:
    guard = guards(window=3)
    lost = {"asked": 10, "missing": 10, "groups": 0, "dropped": 0}
    for _ in range(2):
        guard.count_scores(**lost)
        assert guard.end_step() is None, "the window is not full yet"
    guard.count_scores(**lost)
    stop = guard.end_step()
    assert isinstance(stop, ThinkingRewardLostError)
    assert "Of 30 in the last 3 steps 30 thinking rewards are missing" in str(stop)
    assert "thinking_reward.max_missing_frac=0.5" in str(stop)
    for _ in range(2):
        guard.count_scores(**lost | {"missing": 0})
        stop = guard.end_step()
    assert stop is None, "old steps leave the window"


def test_exactly_the_accepted_share_goes_on_and_unasked_steps_do_not_count() -> None:
    guard = guards(window=2)
    guard.count_scores(asked=10, missing=5, groups=2, dropped=1)
    assert guard.end_step() is None
    assert guard.end_step() is None


def test_the_parts_of_an_asynchronous_step_are_one_step() -> None:
    window = Window(2)
    for _ in range(2):
        for _ in range(4):
            window.count(3, 4)
        window.end_step()
    assert window.counts == (24, 32, 2)


def test_scores_missing_at_random_are_noticed_by_the_groups_that_they_cost() -> None:
    """A fifth of the scores missing leaves 17 % of groups of 8 whole: the share of responses alone says nothing."""
    missing = np.random.default_rng(0).random((64, 8)) < 0.2
    counts = {
        "asked": missing.size,
        "missing": int(missing.sum()),
        "groups": 64,
        "dropped": int(missing.any(axis=1).sum()),
    }
    for limit, stops in ((0.5, True), (1.0, False)):
        guard = guards(window=1, max_dropped_groups_frac=limit)
        guard.count_scores(**counts)
        assert isinstance(guard.end_step(), ThinkingRewardLostError) == stops


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "thinking rewards of the last" in record.getMessage()]


def test_scores_that_never_vary_are_a_warning_once_a_window_and_stop_nothing(caplog: pytest.LogCaptureFixture) -> None:
    guard = guards(window=3)
    for step in range(1, 8):
        guard.watch_scores([0.5] * 16)
        assert guard.end_step() is None
        assert len(warnings(caplog)) == step // 3
    assert warnings(caplog)[0].startswith("All 48 thinking rewards of the last 3 steps are 0.500: ")
    for setting in ("model", "prompt_path", "max_tokens", "structured_output"):
        assert f"thinking_reward.{setting}" in warnings(caplog)[0]


def test_one_other_score_in_a_window_is_enough_to_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    guard = guards(window=2)
    guard.watch_scores([0.5] * 63)
    guard.end_step()
    guard.watch_scores([0.4])
    guard.end_step()
    assert warnings(caplog) == []
    for _ in range(2):
        guard.watch_scores([0.5] * 16)
        guard.end_step()
    assert len(warnings(caplog)) == 1, "the next window is looked at on its own"


def test_few_scores_prove_nothing_and_windows_go_on_until_there_are_enough(caplog: pytest.LogCaptureFixture) -> None:
    guard = guards(window=1)
    for step in range(1, 5):
        guard.watch_scores([1.0] * 8)
        guard.end_step()
        assert len(warnings(caplog)) == step // 4
    assert "All 32 thinking rewards of the last 4 steps" in warnings(caplog)[0]


def test_rounding_is_no_variation() -> None:
    assert constant_scores([0.5, 0.5 + 1e-9] * 20, 1) is not None
    assert constant_scores([0.5, 0.51] * 20, 1) is None
