"""How far a run is, in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_STEP_S = "timing_s/step"
_RECENT = 10
_REWARDS = (
    ("outcome", "outcome_reward/mean"),
    ("thinking", "thinking_reward/mean"),
    ("gamma", "trust/gamma_mean"),
)


def trained(data: Mapping[str, float]) -> bool:
    """Whether a step's metrics are of training, and not of a validation alone."""
    return "outcome_reward/mean" in data


def rewards(data: Mapping[str, float]) -> str:
    """Rewards and trust weight of a training step, and the validations after it: ``outcome 0.53, gamma 0.95``."""
    parts = [f"{label} {data[name]:.2f}" for label, name in _REWARDS if name in data]
    return ", ".join(parts + validations(data))


def validations(data: Mapping[str, float]) -> list[str]:
    """The outcome of each validation in a step's metrics: ``greedy validation 0.61 ± 0.02``."""
    found = []
    for name, value in data.items():
        section, _, rest = name.partition("/")
        if section == "validation" and rest.count("/") == 2 and rest.endswith("/outcome_reward/mean"):
            error = data.get(name.removesuffix("mean") + "stderr")
            mode = rest.partition("/")[0].replace("_", " ")
            found.append(f"{mode} validation {value:.2f}" + (f" ± {error:.2f}" if error is not None else ""))
    return found


def step_line(step: int, total_steps: int, data: Mapping[str, float], step_seconds: Sequence[float]) -> str:
    """``step 12 of 40: outcome 0.53, thinking 0.81, gamma 0.95, 11.2 s, 5 min left``.

    Args:
        data: the step's metrics.
        step_seconds: how long the steps so far took, in seconds; the newest ones tell how long the others will.
    """
    parts = [rewards(data)]
    if _STEP_S in data:
        parts.append(f"{data[_STEP_S]:.1f} s")
    return f"step {step} of {total_steps}: {', '.join(parts + time_left(step, total_steps, step_seconds))}"


def step_times(steps: Mapping[int, Mapping[str, float]]) -> list[float]:
    """Seconds of each training step that has been logged, in order."""
    return [data[_STEP_S] for data in steps.values() if _STEP_S in data]


def time_left(step: int, total_steps: int, step_seconds: Sequence[float]) -> list[str]:
    """``5 min left``: what the other steps take at the pace of the newest ones, without validations; nothing after the
    last step, or where none was timed."""
    recent = step_seconds[-_RECENT:]
    if not recent or step >= total_steps:
        return []
    minutes = (total_steps - step) * sum(recent) / len(recent) / 60
    if minutes < 1:
        return ["under a minute left"]
    hours, rest = divmod(round(minutes), 60)
    return [f"{hours} h {rest:02d} min left" if hours else f"{rest} min left"]
