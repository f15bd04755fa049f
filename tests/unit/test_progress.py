"""A run in one line."""

from __future__ import annotations

import pytest

from recipe.sophiavl.progress import step_line, step_times, time_left, validations


def test_a_line_says_what_was_measured_and_no_more() -> None:
    data = {
        "outcome_reward/mean": 0.531,
        "thinking_reward/mean": 0.814,
        "trust/gamma_mean": 0.95,
        "timing_s/step": 11.24,
        "validation/greedy/outcome_reward/mean": 0.61,
        "validation/greedy/outcome_reward/stderr": 0.024,
    }
    assert step_line(12, 40, data, [10.0] * 12) == (
        "step 12 of 40: outcome 0.53, thinking 0.81, gamma 0.95, greedy validation 0.61 ± 0.02, 11.2 s, 5 min left"
    )
    assert step_line(40, 40, {"outcome_reward/mean": 0.5}, []) == "step 40 of 40: outcome 0.50"


def test_only_a_whole_validation_is_in_the_line() -> None:
    data = {
        "validation/as_configured/outcome_reward/mean": 0.5,
        "validation/as_configured/outcome_reward/ocr/mean": 0.4,
        "validation/as_configured/thinking_reward/mean": 0.9,
        "val-core/s/outcome_reward/mean@1": 0.5,
    }
    assert validations(data) == ["as configured validation 0.50"]


@pytest.mark.parametrize(
    ("step", "seconds", "left"),
    [
        (1, [60.0], ["39 min left"]),
        (1, [6000.0], ["65 h 00 min left"]),
        (30, [1000.0] * 20 + [30.0] * 10, ["5 min left"]),
        (39, [5.0], ["under a minute left"]),
        (40, [5.0], []),
        (1, [], []),
    ],
    ids=["minutes", "hours", "the newest steps", "seconds", "the last step", "no step was timed"],
)
def test_time_left(step: int, seconds: list[float], left: list[str]) -> None:
    assert time_left(step, 40, seconds) == left


def test_a_step_that_was_not_timed_is_left_out() -> None:
    assert step_times({0: {}, 1: {"timing_s/step": 2.0}, 2: {"timing_s/step": 3.0}}) == [2.0, 3.0]
