"""What in a run's newest steps calls for attention, in sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from recipe.sophiavl.guards import rollout_mismatch
from recipe.sophiavl.progress import trained
from recipe.sophiavl.report.logs import Steps
from recipe.sophiavl.report.summary import CORRELATION
from recipe.sophiavl.settings import EngineSettings

DIFFERENCE = "training/rollout_probs_diff_mean"
RECENT = 10
_FAILED = "thinking_reward/failed/"
# A share of the responses from which on they are told.
_CLIPPED = 0.1
_UNFORMATTED = 0.5
# A step that takes so many times as long as the longest of the newest ones, and more than a minute, is a stall.
_PATIENCE = 5
_STEP_PARTS = ("timing_s/step", "timing_s/testing")

NAMES = (
    *_STEP_PARTS,
    CORRELATION,
    DIFFERENCE,
    "thinking_reward/coverage",
    "thinking_reward/group_coverage",
    "response_length/clip_ratio",
    "outcome_reward/format_ok",
)


def signs(steps: Steps, silent_s: float | None, finished: bool) -> list[str]:
    """Sentences about the last `RECENT` training steps; none where all is well.

    Args:
        steps: metrics by step, `NAMES` among them.
        silent_s: seconds since the newest step was logged.
    """
    recent = [data for data in steps.values() if trained(data)][-RECENT:]
    if not recent:
        return []
    found = [*_lost_scores(recent), *_responses(recent), *_mismatch(recent), *_no_numbers(recent[-1])]
    if not finished and silent_s is not None:
        found.extend(_stall(list(steps.values())[-RECENT:], silent_s))
    return found


def _lost_scores(recent: Sequence[Mapping[str, float]]) -> list[str]:
    lost = 1 - _mean(recent, "thinking_reward/coverage", default=1.0)
    dropped = 1 - _mean(recent, "thinking_reward/group_coverage", default=1.0)
    if lost <= 0 and dropped <= 0:
        return []
    kinds: dict[str, float] = {}
    for data in recent:
        for name, count in data.items():
            if name.startswith(_FAILED) and math.isfinite(count):
                kinds[name.removeprefix(_FAILED)] = kinds.get(name.removeprefix(_FAILED), 0) + count
    why = ", ".join(f"{kind} {count:.0f}" for kind, count in sorted(kinds.items(), key=lambda item: -item[1]))
    return [
        f"lost scores: {lost:.1%} of the thinking rewards asked for in {_steps(recent)} are missing"
        + (f" ({why})" if why else "")
        + f"; {dropped:.1%} of the groups lost their thinking term"
    ]


def _responses(recent: Sequence[Mapping[str, float]]) -> list[str]:
    found = []
    clipped = _mean(recent, "response_length/clip_ratio", default=0.0)
    if clipped > _CLIPPED:
        found.append(f"clipped: {clipped:.0%} of the responses in {_steps(recent)} are cut off at the greatest length")
    formatted = _mean(recent, "outcome_reward/format_ok", default=1.0)
    if formatted < _UNFORMATTED:
        found.append(f"format: {1 - formatted:.0%} of the responses in {_steps(recent)} don't follow it")
    return found


def _mismatch(recent: Sequence[Mapping[str, float]]) -> list[str]:
    compared = [data for data in recent if CORRELATION in data and DIFFERENCE in data]
    wrong = [data for data in compared if rollout_mismatch(data, EngineSettings()) is not None]
    if not wrong:
        return []
    return [
        f"rollout mismatch: in {len(wrong)} of {_steps(recent)} vLLM's token probabilities are not the actor's (lowest "
        f"correlation {min(data[CORRELATION] for data in wrong):.3f}); train.log has the likely causes"
    ]


def _no_numbers(newest: Mapping[str, float]) -> list[str]:
    names = [name for name, value in newest.items() if not math.isfinite(value)]
    return [f"not a number in the newest step: {', '.join(names)}"] if names else []


def _stall(recent: Sequence[Mapping[str, float]], silent_s: float) -> list[str]:
    longest = max(sum(data.get(part, 0.0) for part in _STEP_PARTS) for data in recent)
    if silent_s <= max(60.0, _PATIENCE * longest):
        return []
    return [
        f"no step for {duration(silent_s)} (the longest of the last ones took {duration(longest)}): has the run "
        "stopped? The end of train.log tells"
    ]


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def _mean(recent: Sequence[Mapping[str, float]], name: str, default: float) -> float:
    known = [data[name] for data in recent if math.isfinite(data.get(name, math.nan))]
    return sum(known) / len(known) if known else default


def _steps(recent: Sequence[Mapping[str, float]]) -> str:
    return f"the last {len(recent)} steps" if len(recent) > 1 else "the last step"
