"""What calls for attention is said, and nothing else."""

from __future__ import annotations

import math

import pytest

from recipe.sophiavl.report.summary import CORRELATION
from recipe.sophiavl.watch.signs import DIFFERENCE, duration, signs

WELL = {
    **{"outcome_reward/mean": 0.5, "timing_s/step": 10.0, "thinking_reward/coverage": 1.0},
    **{"thinking_reward/group_coverage": 1.0, "response_length/clip_ratio": 0.02, "outcome_reward/format_ok": 0.98},
    **{CORRELATION: 0.999, DIFFERENCE: 0.01},
}


def said(*changes: dict[str, float], silent_s: float = 5.0, finished: bool = False) -> list[str]:
    return signs({step: WELL | change for step, change in enumerate(changes, 1)}, silent_s, finished)


def test_nothing_is_said_of_a_run_that_is_well() -> None:
    assert said({}, {}) == []
    assert signs({}, None, False) == []
    assert signs({0: {"validation/greedy/outcome_reward/mean": 0.5}}, 1e6, False) == []
    assert signs({1: {"outcome_reward/mean": 0.5}}, 5.0, False) == [], "an older version, or plain GRPO"


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (
            {"thinking_reward/coverage": 0.8, "thinking_reward/failed/timeout": 3, "thinking_reward/failed/http": 9},
            ("lost scores: 10.0%", "the last 2 steps", "(http 9, timeout 3)", "0.0% of the groups"),
        ),
        ({"thinking_reward/group_coverage": 0.5}, ("25.0% of the groups lost their thinking term",)),
        ({"response_length/clip_ratio": 0.4}, ("clipped: 21% of the responses",)),
        ({"outcome_reward/format_ok": 0.0}, ("format: 51% of the responses",)),
        ({CORRELATION: 0.5}, ("rollout mismatch: in 1 of the last 2 steps", "correlation 0.500")),
        ({CORRELATION: math.nan}, ("rollout mismatch",)),
        ({"actor/grad_norm": math.nan}, ("not a number in the newest step: actor/grad_norm",)),
    ],
)
def test_what_is_wrong_is_said(change: dict[str, float], parts: tuple[str, ...]) -> None:
    sentences = said({}, change)
    for part in parts:
        assert any(part in sentence for sentence in sentences), sentences


def test_what_was_wrong_long_ago_is_not_said() -> None:
    assert said({"response_length/clip_ratio": 1.0, CORRELATION: 0.1}, *[{}] * 10) == []


def test_a_run_is_silent_for_too_long_by_the_measure_of_its_own_steps() -> None:
    assert said({}, silent_s=59) == []
    assert "no step for 2 min (the longest of the last ones took 10 s)" in said({}, silent_s=120)[0]
    assert said({"timing_s/testing": 60.0}, silent_s=120) == [], "a validation takes its time"
    assert said({}, silent_s=1e6, finished=True) == []


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (89, "89 s"), (600, "10 min"), (11_100, "3 h 05 min")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
