"""Training metrics of the reward's components, as pure functions of one step's responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recipe.sophiavl.rivals import Advantages
from recipe.sophiavl.settings import ThinkingRewardSettings
from recipe.sophiavl.trust_grpo import GroupRewards, annealing_factor


def reward_metrics(
    components: Sequence[Mapping[str, Any]],
    groups: Sequence[str],
    rewards: GroupRewards,
    *,
    step: int,
    total_steps: int,
    settings: ThinkingRewardSettings,
) -> dict[str, float]:
    """Metrics of one step.

    Args:
        components: ``reward_extra_info`` of each response; length B >= 1.
        groups: group of each response; length B.
        rewards: what ``weigh_groups`` made of them.

    Returns:
        Plain floats. Gamma and mu count each group once. A mean over nothing is left out, never invented. Where the
        rewards are advantages, their mean is 0 by construction: ``advantage/*`` stands in the place of ``reward/mean``
        and ``trust/*``.
    """
    outcome = np.array([component["outcome_reward"] for component in components], dtype=np.float64)
    metrics = {
        "outcome_reward/mean": float(outcome.mean()),
        "outcome_reward/format_ok": float(np.mean([component["format_ok"] for component in components])),
    }
    if rewards.advantages is None:
        metrics["reward/mean"] = float(rewards.reward.mean())
    types = np.array([slug(component["problem_type"]) for component in components])
    by_type = {name: types == name for name in np.unique(types)}
    if len(by_type) > 1:
        for name, members in by_type.items():
            metrics[f"outcome_reward/{name}/mean"] = float(outcome[members].mean())
    if settings.enable:
        if rewards.advantages is None:
            metrics |= _trust_metrics(groups, rewards)
        else:
            metrics |= _advantage_metrics(groups, rewards.advantages)
        metrics |= _thinking_metrics(components, by_type)
        counts = missing_counts(components, groups, rewards)
        asked, kept = max(1, counts["asked"]), counts["groups"] - counts["dropped"]
        metrics |= {
            "thinking_reward/asked_frac": counts["asked"] / len(components),
            "thinking_reward/coverage": 1.0 - counts["missing"] / asked,
            "thinking_reward/group_coverage": kept / max(1, counts["groups"]),
        }
        trust = settings.trust
        metrics["thinking_reward/anneal"] = annealing_factor(step, trust.total_steps or total_steps, trust.schedule)
    return metrics


def missing_counts(
    components: Sequence[Mapping[str, Any]], groups: Sequence[str], rewards: GroupRewards
) -> dict[str, int]:
    """How many responses the TRM was ``asked`` about and how many of those are ``missing``; how many ``groups`` there
    are in which it was asked, and how many of those are ``dropped``: no response of theirs kept its thinking term,
    because a score is missing. Arguments as for `reward_metrics`."""
    asked = np.array([component["thinking_asked"] for component in components], dtype=bool)
    missing = asked & np.array([component["thinking_reward"] is None for component in components], dtype=bool)
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    asked_of, missing_of, used_of = (np.bincount(group, weights=flag) for flag in (asked, missing, rewards.used))
    return {
        "asked": int(asked.sum()),
        "missing": int(missing.sum()),
        "groups": int((asked_of > 0).sum()),
        "dropped": int(((missing_of > 0) & (used_of == 0)).sum()),
    }


def asked_scores(components: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """The thinking rewards that the TRM gave: float64 in [0, 1], without those that are 0 by rule or missing."""
    asked = [component["thinking_reward"] for component in components if component["thinking_asked"]]
    return np.array([score for score in asked if score is not None], dtype=np.float64)


def _trust_metrics(groups: Sequence[str], rewards: GroupRewards) -> dict[str, float]:
    metrics = {"trust/used_frac": float(rewards.used.mean())}
    # A group without a thinking term was neither trusted nor distrusted.
    used = np.flatnonzero(rewards.used)
    first = used[np.unique(np.asarray(groups)[used], return_index=True)[1]]
    if first.size == 0:
        return metrics
    gamma = rewards.gamma[first]
    metrics |= {
        "trust/gamma_mean": float(gamma.mean()),
        "trust/gamma_lowest": float(gamma.min()),
        "trust/distrusted_frac": float(np.mean(gamma < 1)),
    }
    for name, mu in (("mu_correct", rewards.mu_correct[first]), ("mu_wrong", rewards.mu_wrong[first])):
        if np.isfinite(mu).any():
            metrics[f"trust/{name}"] = float(np.nanmean(mu))
    return metrics


def _advantage_metrics(groups: Sequence[str], advantages: Advantages) -> dict[str, float]:
    """How far the advantages and their parts spread, the thinking part as it is weighted; and in how large a share of
    the groups it tells the responses apart."""
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    telling = np.bincount(group, weights=advantages.thinking != 0) > 0
    return {
        "advantage/std": float(advantages.reward.std()),
        "advantage/outcome_std": float(advantages.outcome.std() / advantages.scale),
        "advantage/thinking_std": float(advantages.weight * advantages.thinking.std() / advantages.scale),
        "advantage/thinking_groups_frac": float(telling.mean()),
    }


def _thinking_metrics(components: Sequence[Mapping[str, Any]], by_type: Mapping[str, np.ndarray]) -> dict[str, float]:
    thinking = np.array([component["thinking_reward"] for component in components], dtype=np.float64)  # None -> NaN
    present = np.isfinite(thinking)
    metrics = {}
    if present.any():
        metrics["thinking_reward/mean"] = float(thinking[present].mean())
    if (given := asked_scores(components)).size:
        metrics["thinking_reward/std"] = float(given.std())
    if len(by_type) > 1:
        for name, members in by_type.items():
            if (members & present).any():
                metrics[f"thinking_reward/{name}/mean"] = float(thinking[members & present].mean())
    asked = [component for component in components if component["thinking_asked"]]
    if asked:
        p50, p95 = np.percentile([component["thinking_latency_s"] for component in asked], (50, 95))
        metrics |= {
            "thinking_reward/latency_p50": float(p50),
            "thinking_reward/latency_p95": float(p95),
            "thinking_reward/requests_mean": float(np.mean([component["thinking_requests"] for component in asked])),
            "thinking_reward/cached_frac": float(np.mean([component["thinking_cached"] for component in asked])),
        }
    for kind in sorted({component["thinking_error"] for component in components} - {""}):
        count = sum(component["thinking_error"] == kind for component in components)
        metrics[f"thinking_reward/failed/{slug(kind)}"] = float(count)
    return metrics


def slug(name: str) -> str:
    """An answer type or a kind of failure as a part of a metric's name."""
    return name.strip().lower().replace(" ", "_")
