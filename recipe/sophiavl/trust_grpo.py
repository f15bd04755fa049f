"""Trust-GRPO's reward (SophiaVL-R1, arXiv 2505.17018, section 3): pure maths on NumPy arrays.

For one question with a group of responses, outcome rewards ``Ro`` and thinking rewards ``Rt`` in [0, 1]:

    C = {i : Ro_i >= threshold},  W = {i : Ro_i < threshold}                    (Eq. 1, 2)
    gamma = 1 if mean_C(Rt) >= mean_W(Rt) else exp(mean_C(Rt) - mean_W(Rt))     (Eq. 3)
    R_i = Ro_i + gamma * alpha * exp(-step / T) * Rt_i                          (Eq. 4, 5)

The means run over all responses of a side that were scored: a response without the required format has Rt = 0 by rule
and stays outside them. A side without any score leaves gamma at 1. A missing score is NaN.
The group-relative advantage (Eq. 6) is the engine's own. `rivals` combines the same rewards in two other ways.

A batch holds groups of any sizes in any order: every function takes flat arrays of length B, and ``groups`` says which
responses belong together. Nothing here loops over groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import Field

from recipe.sophiavl.rivals import Advantages, gdpo, process_aware
from recipe.sophiavl.trust_estimator import TrustEstimator, estimate_trust, sides_of
from recipe.sophiavl.validation import settings_group

Combine = Literal["trust_grpo", "gdpo", "process_aware"]
Schedule = Literal["exponential", "linear", "cosine", "constant"]
Threshold = Annotated[float, Field(gt=0, le=1)]


class MissingThinkingRewardError(RuntimeError):
    """A thinking reward is missing and ``thinking_reward.on_missing`` is ``raise``."""


@settings_group("thinking_reward")
class TrustGRPOConfig:
    """Settings of the thinking term (``thinking_reward`` in the run's configuration).

    Attributes:
        combine: how outcome and thinking reward become one: ``trust_grpo`` (Eq. 5), or as advantages by ``gdpo`` or
            ``process_aware`` (`rivals`), for which ``trust`` does not hold.
        alpha: weight of the thinking reward in Eq. 5, or of its advantage, >= 0.
        schedule: how the term fades with the step; see :func:`annealing_factor`.
        total_steps: T of the schedule, > 0; None takes the run's number of training steps.
        trust: weigh groups by gamma; False is the paper's ablation, gamma = 1.
        trust_estimator: how gamma comes from a group's two means: ``paper`` (Eq. 3), or with the noise of so few scores
            in mind ``shrunk`` or ``pooled`` (`trust_estimator`), which look at all groups of the batch.
        correct_threshold: least outcome reward of the correct side, in (0, 1].
        correct_threshold_by_type: another one for single problem types, by name in lower case.
        uniform_groups: groups with an empty side: ``keep`` (gamma = 1) or ``outcome_only`` (no thinking term).
        on_missing: a missing score: ``drop_group`` (its whole group gets the outcome reward only), ``drop_response``
            (only this response does; the means run over the others) or ``raise``.
        unformatted_in_means: whether responses without the required format count as thinking 0 in the means (with
            gdpo: whether the thinking reward is normalised over them too).
        min_outcome: a response with an outcome reward below this counts as thinking 0, in [0, 1]; None: no such rule.

    Raises:
        SettingsError: a value of the wrong type or out of range; the message names the setting.
    """

    combine: Combine = "trust_grpo"
    alpha: Annotated[float, Field(ge=0)] = 0.3
    schedule: Schedule = "exponential"
    total_steps: Annotated[float, Field(gt=0)] | None = None
    trust: bool = True
    trust_estimator: TrustEstimator = "paper"
    correct_threshold: Threshold = 0.5
    correct_threshold_by_type: dict[str, Threshold] = field(default_factory=dict)
    uniform_groups: Literal["keep", "outcome_only"] = "keep"
    on_missing: Literal["drop_group", "drop_response", "raise"] = "drop_group"
    unformatted_in_means: bool = False
    min_outcome: Annotated[float, Field(ge=0, le=1)] | None = None


@dataclass(frozen=True)
class GroupRewards:
    """Eq. 5 for a batch, or advantages in its place. Arrays of length B, in the order of the input.

    Attributes:
        reward: float64, R_i; equals the outcome reward (with ``advantages``, its share) where ``used`` is False.
        gamma: float64 in (0, 1], the group's trust weight over the scores present; 1 with ``trust`` off; NaN, as both
            means, with ``advantages``.
        mu_correct: float64, the group's mean thinking reward of the correct side; NaN where it has no score.
        mu_wrong: float64, the same of the wrong side.
        used: bool, whether the thinking term was applied to this response (the term may be 0: process_aware's is for
            wrong ones).
        advantages: of what ``reward`` consists where ``combine`` is not trust_grpo; None: it is Eq. 5.
    """

    reward: npt.NDArray[np.float64]
    gamma: npt.NDArray[np.float64]
    mu_correct: npt.NDArray[np.float64]
    mu_wrong: npt.NDArray[np.float64]
    used: npt.NDArray[np.bool_]
    advantages: Advantages | None = None


def annealing_factor(step: float, total_steps: float, schedule: Schedule = "exponential") -> float:
    """Weight of the thinking term at a training step (Eq. 4 is the exponential one).

    Args:
        step: global training step, >= 0.
        total_steps: T, in steps, > 0.
        schedule: ``exponential`` exp(-step/T); ``linear`` 1 - step/T, 0 from T on; ``cosine`` half a cosine from 1 to
            0 at T, 0 beyond; ``constant`` 1.

    Returns:
        A float in [0, 1] that never rises with the step.

    Raises:
        ValueError: an argument is out of range or the schedule unknown.
    """
    if not (_is_number(step) and step >= 0):
        raise ValueError(f"step={step!r}: must be a number of 0 or more")
    if not (_is_number(total_steps) and total_steps > 0):
        raise ValueError(f"total_steps={total_steps!r}: must be a number above 0")
    progress = step / total_steps
    if schedule == "exponential":
        return math.exp(-progress)
    if schedule == "linear":
        return max(0.0, 1.0 - progress)
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))
    if schedule == "constant":
        return 1.0
    raise ValueError(f"schedule={schedule!r}: use one of {', '.join(get_args(Schedule))}")


def trust_weights(
    outcome: npt.ArrayLike,
    thinking: npt.ArrayLike,
    groups: npt.ArrayLike | Sequence[str],
    *,
    correct_threshold: float | npt.ArrayLike = 0.5,
    estimator: TrustEstimator = "paper",
) -> npt.NDArray[np.float64]:
    """Trust weight gamma of each response's group (Eq. 1 to 3).

    Args:
        outcome: outcome rewards in [0, 1], shape (B,).
        thinking: thinking rewards in [0, 1], shape (B,); NaN is missing and left out of the means.
        groups: which group each response belongs to, integers or strings, shape (B,).
        correct_threshold: least outcome reward of the correct side: one for all, or one each, shape (B,).
        estimator: of gamma; all but ``paper`` look at all groups of the batch (`trust_estimator`).

    Returns:
        float64 of shape (B,), in (0, 1], equal within a group; 1 where a side has no score.

    Raises:
        ValueError: shapes differ, or a value is out of range.
    """
    outcome, thinking, group = _checked(outcome, thinking, groups)
    sides = sides_of(outcome >= np.asarray(correct_threshold), thinking, group)
    return estimate_trust(sides, estimator)[group]


def combine_rewards(
    outcome: npt.ArrayLike,
    thinking: npt.ArrayLike,
    groups: npt.ArrayLike | Sequence[str],
    *,
    step: float,
    total_steps: float,
    config: TrustGRPOConfig,
    formatted: npt.ArrayLike | None = None,
    problem_types: Sequence[str] | None = None,
) -> GroupRewards:
    """Reward of each response (Eq. 1 to 5), or its advantage where ``config.combine`` says so.

    Args:
        outcome: outcome rewards in [0, 1], shape (B,).
        thinking: thinking rewards in [0, 1], shape (B,); NaN is missing.
        groups: which group each response belongs to, integers or strings, shape (B,).
        step: global training step, >= 0.
        total_steps: the run's number of training steps, > 0; ``config.total_steps`` goes first.
        config: the settings.
        formatted: bool of shape (B,), which responses have the required format; None: all.
        problem_types: answer type of each response, length B, for ``config.correct_threshold_by_type``; None: unknown.

    Returns:
        Arrays of shape (B,); B = 0 gives empty ones.

    Raises:
        MissingThinkingRewardError: a score is missing and ``config.on_missing`` is ``raise``.
        ValueError: shapes differ, or a value is out of range.
    """
    outcome, thinking, group = _checked(outcome, thinking, groups)
    horizon = total_steps if config.total_steps is None else config.total_steps
    weight = config.alpha * annealing_factor(step, horizon, config.schedule)
    if config.min_outcome is not None:
        thinking = np.where(outcome < config.min_outcome, 0.0, thinking)
    in_means = thinking
    if formatted is not None and not config.unformatted_in_means:
        in_means = np.where(np.asarray(formatted, dtype=bool), thinking, np.nan)
    correct = outcome >= _thresholds(config, problem_types, outcome.size)
    used = _used(thinking, correct, group, config)
    if config.combine != "trust_grpo":
        scored = used & ~np.isnan(in_means)
        if config.combine == "gdpo":
            found = gdpo(outcome, thinking, group, scored=scored, weight=weight)
        else:
            found = process_aware(outcome, thinking, group, scored=scored, correct=correct, weight=weight)
        none = np.full(outcome.size, np.nan)
        return GroupRewards(found.reward, none, none, none, used, found)
    sides = sides_of(correct, in_means, group)
    gamma = estimate_trust(sides, config.trust_estimator) if config.trust else np.ones_like(sides.mu_correct)
    # The missing scores are NaN, and NaN * 0 is NaN: replace, don't multiply.
    term = np.where(used, weight * gamma[group] * thinking, 0.0)
    return GroupRewards(
        reward=outcome + term,
        gamma=gamma[group],
        mu_correct=sides.mu_correct[group],
        mu_wrong=sides.mu_wrong[group],
        used=used,
    )


def _checked(
    outcome: npt.ArrayLike, thinking: npt.ArrayLike, groups: npt.ArrayLike | Sequence[str]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.intp]]:
    """The inputs as arrays of one length, the groups numbered from 0."""
    outcome = np.asarray(outcome, dtype=np.float64)
    thinking = np.asarray(thinking, dtype=np.float64)
    groups = np.asarray(groups)
    shapes = {"outcome": outcome.shape, "thinking": thinking.shape, "groups": groups.shape}
    if outcome.ndim != 1 or len(set(shapes.values())) > 1:
        raise ValueError(f"outcome, thinking and groups must be one-dimensional and of one length, not {shapes}")
    if groups.size and groups.dtype.kind not in "iuUSO":
        raise ValueError(f"groups must be integers or strings, not {groups.dtype}")
    # Written so that NaN fails the test of the outcome and passes that of the thinking reward.
    if not np.all((outcome >= 0) & (outcome <= 1)):
        raise ValueError(f"outcome must be in [0, 1]; found {outcome[~((outcome >= 0) & (outcome <= 1))][0]}")
    if np.any((thinking < 0) | (thinking > 1)):
        raise ValueError(f"thinking must be NaN or in [0, 1]; found {thinking[(thinking < 0) | (thinking > 1)][0]}")
    _, group = np.unique(groups, return_inverse=True)
    return outcome, thinking, group


def _thresholds(config: TrustGRPOConfig, problem_types: Sequence[str] | None, size: int) -> npt.NDArray[np.float64]:
    """Least outcome reward of the correct side for each response."""
    by_type = config.correct_threshold_by_type
    if not by_type or problem_types is None:
        return np.full(size, config.correct_threshold)
    return np.array([by_type.get(name.strip().lower(), config.correct_threshold) for name in problem_types])


def _used(
    thinking: npt.NDArray[np.float64],
    correct: npt.NDArray[np.bool_],
    group: npt.NDArray[np.intp],
    config: TrustGRPOConfig,
) -> npt.NDArray[np.bool_]:
    """Which responses keep their thinking term: no missing score and no rule of the settings takes it."""
    missing = np.isnan(thinking)
    if config.on_missing == "raise" and missing.any():
        raise MissingThinkingRewardError(
            f"{missing.sum()} of {missing.size} responses have no thinking reward, and "
            "thinking_reward.on_missing='raise'; use drop_group or drop_response to train on without them"
        )
    used = ~missing
    if config.on_missing == "drop_group":
        used &= ~_any_in_group(missing, group)
    if config.uniform_groups == "outcome_only":
        used &= _any_in_group(correct, group) & _any_in_group(~correct, group)
    return used


def _any_in_group(flag: npt.NDArray[np.bool_], group: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """For each response: whether ``flag`` is set for any response of its group."""
    return np.bincount(group, weights=flag)[group] > 0


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float | np.integer | np.floating)
        and not isinstance(value, bool)
        and math.isfinite(value)
    )
