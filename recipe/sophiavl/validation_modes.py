"""Validation of a policy in several ways (``sophiavl.validation_modes``): how each samples, means and their errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from recipe.sophiavl.metrics import slug

# What a validation measures of each response; the first two also by answer type, where several are mixed.
VARIABLES = ("outcome_reward", "thinking_reward", "format_ok")
_BY_TYPE = VARIABLES[:2]
# How a score was had: no measure of a policy, of which verl would draw bootstrap samples.
BOOKKEEPING = ("thinking_asked", "thinking_latency_s", "thinking_requests", "thinking_cached")


def sampling(mode: str, rollout: Mapping[str, Any]) -> dict[str, Any]:
    """Sampling parameters of a validation.

    Args:
        mode: ``as_configured`` (``val_kwargs``), ``sampled`` (as in training) or ``greedy`` (the likeliest token).
        rollout: the group ``actor_rollout_ref.rollout``.

    Returns:
        Values for ``val_kwargs``: ``temperature``, ``top_p``, ``top_k`` and ``n`` (responses to a question).
    """
    configured = rollout["val_kwargs"]
    if mode == "greedy":  # a second response would be the first one
        return {"temperature": 0, "top_p": 1.0, "top_k": -1, "n": 1}
    source = rollout if mode == "sampled" else configured
    return {name: source[name] for name in ("temperature", "top_p", "top_k")} | {"n": configured["n"]}


def validation_metrics(mode: str, questions: Sequence[str], infos: Mapping[str, Sequence[Any]]) -> dict[str, float]:
    """Means over questions, and their standard errors, of one validation.

    The responses to a question are averaged first: they are no independent samples.

    Args:
        mode: a part of every name: ``validation/greedy/outcome_reward/mean``.
        questions: the question of each response; length B >= 1.
        infos: ``reward_extra_info`` of the responses by key, each of length B. None = not measured, and left out.

    Returns:
        Plain floats. A mean over nothing and a standard error of one question are left out, never invented.
    """
    names = [name for name in VARIABLES if name in infos]
    table = pd.DataFrame({name: pd.array(infos[name], dtype="Float64") for name in names})
    types = np.array([slug(name) for name in infos["problem_type"]])
    kinds = sorted(set(types)) if len(set(types)) > 1 else []
    parts = {name: slice(None) for name in names}
    parts |= {f"{name}/{kind}": types == kind for name in names if name in _BY_TYPE for kind in kinds}
    metrics = {f"validation/{mode}/questions": float(len(set(questions)))}
    for part, rows in parts.items():
        values = table[part.split("/")[0]][rows]
        means = values.groupby(np.asarray(questions)[rows]).mean().dropna()
        for name, value in (("mean", means.mean()), ("stderr", means.sem())):
            if pd.notna(value):
                metrics[f"validation/{mode}/{part}/{name}"] = float(value)
    return metrics
