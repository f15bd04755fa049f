"""Guards stop what should stop, say why, and leave healthy runs alone."""

from __future__ import annotations

import pytest

from recipe.sophiavl.guards import MissingScoresWindow, RolloutMismatchError, check_rollout_matches_actor
from recipe.sophiavl.settings import EngineSettings

SETTINGS = EngineSettings()


def measured(correlation: float, difference: float) -> dict[str, float]:
    return {
        "training/rollout_actor_probs_pearson_corr": correlation,
        "training/rollout_probs_diff_mean": difference,
    }


@pytest.mark.parametrize(
    ("correlation", "difference"),
    [(0.999, 0.01), (0.95, 0.2), (0.3, 0.001), (float("nan"), 0.0)],
    ids=["matching", "at the threshold", "no spread to correlate", "constant probabilities"],
)
def test_healthy_rollouts_pass(correlation: float, difference: float) -> None:
    check_rollout_matches_actor(measured(correlation, difference), SETTINGS, step=1)


@pytest.mark.parametrize(("correlation", "difference"), [(0.79, 0.1), (float("nan"), 0.5), (-0.2, 0.02)])
def test_mismatch_stops_with_the_likely_causes(correlation: float, difference: float) -> None:
    with pytest.raises(RolloutMismatchError, match="step 7") as error:
        check_rollout_matches_actor(measured(correlation, difference), SETTINGS, step=7)
    for part in ("mm_device_do_normalize", "load_format", "sophiavl.min_rollout_correlation=0.95", "top_k"):
        assert part in str(error.value)


def test_a_run_that_measures_nothing_stops() -> None:
    with pytest.raises(RolloutMismatchError, match="calculate_log_probs=true"):
        check_rollout_matches_actor({}, SETTINGS, step=1)


def test_missing_scores_are_judged_over_a_full_window() -> None:
    window = MissingScoresWindow(max_missing_frac=0.5, steps=3)
    for _ in range(2):
        window.add(10, 10)
        assert window.complaint() is None, "the window is not full yet"
    window.add(10, 10)
    complaint = window.complaint()
    assert "30 of 30" in complaint
    assert "thinking_reward.max_missing_frac=0.5" in complaint
    window.add(10, 0)
    window.add(10, 0)
    assert window.complaint() is None, "old steps leave the window"


def test_exactly_the_accepted_share_goes_on_and_unasked_steps_do_not_count() -> None:
    window = MissingScoresWindow(max_missing_frac=0.5, steps=2)
    window.add(10, 5)
    window.add(0, 0)
    assert window.complaint() is None
