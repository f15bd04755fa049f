"""Gamma of the groups of a step by the formulas of `recipe.sophiavl.trust_estimator`, as loops over plain numbers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence


def plain_gammas(
    right: Sequence[bool], thinking: Sequence[float], groups: Sequence[Hashable], estimator: str
) -> dict[Hashable, float]:
    """The gamma of each group of a step: of all rows of a dump, since all but ``paper`` look at the whole batch.

    Args:
        right: whether each response is on the correct side.
        thinking: the thinking reward of each response that counts in the means; NaN for one that does not.
    """
    sides = defaultdict(lambda: ([], []))
    for is_right, score, name in zip(right, thinking, groups, strict=True):
        if not math.isnan(score):
            sides[name][0 if is_right else 1].append(score)
    every = [side for pair in sides.values() for side in pair if side]
    freedom = sum(len(side) - 1 for side in every)
    deviations = sum((score - _mean(side)) ** 2 for side in every for score in side)
    noise = deviations / freedom if freedom else 0.0
    both = {name: pair for name, pair in sides.items() if pair[0] and pair[1]}
    difference = {name: _mean(correct) - _mean(wrong) for name, (correct, wrong) in both.items()}
    precision = {name: 1 / (1 / len(correct) + 1 / len(wrong)) for name, (correct, wrong) in both.items()}
    centre, signal = _prior(difference, precision, noise, pool=estimator == "pooled")
    gammas = dict.fromkeys(groups, 1.0)
    for name, d in difference.items():
        if d >= -1e-12:
            continue
        error = noise / precision[name]
        kept = signal / (signal + error) if signal + error else 1.0
        estimate = d if estimator == "paper" else centre + kept * (d - centre)
        gammas[name] = min(1.0, math.exp(estimate))
    return gammas


def _prior(difference: dict, precision: dict, noise: float, *, pool: bool) -> tuple[float, float]:
    """c and s."""
    if not difference:
        return 0.0, 0.0
    total, count = sum(precision.values()), len(difference)
    if not pool:
        return 0.0, max(0.0, sum(precision[name] * d**2 for name, d in difference.items()) - count * noise) / total
    centre = sum(precision[name] * d for name, d in difference.items()) / total
    if count == 1:
        return centre, 0.0
    around = sum(precision[name] * (d - centre) ** 2 for name, d in difference.items())
    return centre, max(0.0, around - (count - 1) * noise) / (total - sum(p**2 for p in precision.values()) / total)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
