"""What is measured: how the TRM's scores agree with the reference, tell right from wrong, and weigh groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from recipe.sophiavl.trm_training.evaluate.rows import EvaluationSet
from recipe.sophiavl.trm_training.evaluate.scoring import UNREADABLE, Scored, values_of
from recipe.sophiavl.trm_training.evaluate.statistics import (
    Floats,
    Statistic,
    auc_of,
    mean_at,
    mean_of,
    spearman_of,
    undefined,
)
from recipe.sophiavl.trm_training.intervals import INTERVALS, interval
from recipe.sophiavl.trust_grpo import trust_weights

WITHIN = 0.1
CORRECT = 0.5
# Scores are decimal fractions, or means of some: what rounding takes from 0.7 must not move it below 0.7.
_ROUNDING = 1e-9
_NAMES = ("the TRM's scores", "the reference")
_SIDES = "no group has a score on both sides"

TITLES = {
    "mae": "mean absolute error",
    "within_0.1": "within 0.1 of the reference",
    "spearman": "Spearman's correlation with the reference",
    "spearman_missing_as_mean": "Spearman's correlation, missing scores as the mean",
    "scored_share": "share with a score",
    "auc": "AUC for the correct outcome",
    "auc_reference": "AUC of the reference for the correct outcome",
    "gamma": "mean trust weight gamma",
    "gamma_reference": "mean trust weight gamma with the reference's scores",
    "distrusted": "share of groups with gamma < 1",
    "distrusted_reference": "share of groups with gamma < 1 with the reference's scores",
    "parse_failures": "replies without a readable score",
}
"""Titles of the figures, in the order in which they are shown; failures by kind (``failure.<kind>``) follow."""


def statistics_of(data: EvaluationSet, scores: Sequence[Scored]) -> dict[str, Statistic]:
    """All figures but the sensitivity, in the order of `TITLES`."""
    trm = values_of(scores)
    parts = agreement(data, trm) | correctness(data, trm) | trust(data, trm) | failures(scores)
    return {name: parts[name] for name in [*TITLES, *(name for name in parts if name not in TITLES)]}


def agreement(data: EvaluationSet, trm: Floats) -> dict[str, Statistic]:
    """Agreement with the reference over the rows that have both scores, and the share that has one."""
    scored = ~np.isnan(trm)
    both = scored & ~np.isnan(data.reference)
    distance = np.abs(trm - data.reference)
    return {
        "mae": mean_of(distance, both, "no row has both scores"),
        "within_0.1": mean_of((distance <= WITHIN + _ROUNDING).astype(float), both, "no row has both scores"),
        "spearman": spearman_of(trm, data.reference, both, _NAMES),
        "spearman_missing_as_mean": _with_missing(data, trm),
        "scored_share": mean_of(scored.astype(float), np.ones(trm.size, dtype=bool)),
    }


def _with_missing(data: EvaluationSet, trm: Floats) -> Statistic:
    """Missing scores tell nothing of their row: they stand at the mean of the others."""
    scored = ~np.isnan(trm)
    if not scored.any():
        return undefined("no row has a score")
    filled = np.where(scored, trm, trm[scored].mean())
    return spearman_of(filled, data.reference, ~np.isnan(data.reference), _NAMES)


def correctness(data: EvaluationSet, trm: Floats) -> dict[str, Statistic]:
    """AUC of both scores as predictors of an outcome of at least `CORRECT`.

    The reference's is over the same rows where it can be, so that the two compare.
    """
    if "outcome" not in data.columns:
        missing = undefined("the file has no column outcome")
        return {"auc": missing, "auc_reference": missing}
    correct = data.outcome >= CORRECT
    judged = ~np.isnan(data.outcome) & ~np.isnan(trm)
    return {
        "auc": auc_of(trm, correct, judged),
        "auc_reference": auc_of(data.reference, correct, judged & ~np.isnan(data.reference)),
    }


def trust(data: EvaluationSet, trm: Floats) -> dict[str, Statistic]:
    """Mean gamma and the share of distrusted groups, over groups with a score on both sides.

    Not quite training's: `collect` leaves out repeated responses, and those without the required format, which training
    counts as wrong with thinking 0.
    """
    names = ("gamma", "distrusted", "gamma_reference", "distrusted_reference")
    lacking = [name for name in ("outcome", "group") if name not in data.columns]
    if lacking:
        return dict.fromkeys(names, undefined(f"the file has no column {' and none of '.join(lacking)}"))
    questions: dict[str, set[str]] = {}
    for row in data.rows:
        if row.group is not None:
            questions.setdefault(row.group, set()).add(row.question_id)
    mixed = sorted(group for group, members in questions.items() if len(members) > 1)
    if mixed:
        return dict.fromkeys(names, undefined(f"group {mixed[0]!r} holds {len(questions[mixed[0]])} questions"))
    return {
        **dict(zip(names[:2], _trust(data, trm), strict=True)),
        **dict(zip(names[2:], _trust(data, data.reference), strict=True)),
    }


def _trust(data: EvaluationSet, thinking: Floats) -> tuple[Statistic, Statistic]:
    # A side without a score would leave gamma at 1, which says nothing about the scores: such groups are left out.
    grouped = np.array([row.group is not None for row in data.rows], dtype=bool)
    rows = np.flatnonzero(grouped & ~np.isnan(data.outcome) & ~np.isnan(thinking))
    if not rows.size:
        return undefined(_SIDES), undefined(_SIDES)
    groups = [str(data.rows[row].group) for row in rows]
    _, first, code = np.unique(groups, return_index=True, return_inverse=True)
    correct = data.outcome[rows] >= CORRECT
    sides = [np.bincount(code, weights=side) > 0 for side in (correct, ~correct)]
    chosen = sides[0] & sides[1]
    gamma = trust_weights(data.outcome[rows], thinking[rows], groups, correct_threshold=CORRECT)[first][chosen]
    places = rows[first][chosen]
    return mean_at(gamma, places, _SIDES), mean_at((gamma < 1).astype(float), places, _SIDES)


def failures(scores: Sequence[Scored]) -> dict[str, Statistic]:
    """Share of the replies that hold no readable score, and of all rows those that each reason left without one."""
    kinds = sorted({score.error for score in scores if score.error is not None})
    unreadable = np.array([score.error in UNREADABLE for score in scores], dtype=bool)
    replied = unreadable | np.array([score.error is None for score in scores], dtype=bool)
    everywhere = np.ones(len(scores), dtype=bool)
    shares = {
        f"failure.{kind}": mean_of(np.array([float(score.error == kind) for score in scores]), everywhere)
        for kind in kinds
    }
    return {"parse_failures": mean_of(unreadable.astype(float), replied, "no reply came"), **shares}


def interval_of(scores: Floats) -> np.ndarray:
    """Number of the interval [0, 0.1), [0.1, 0.2) … [0.9, 1.0] of each score, shape as given; as `balance.interval`."""
    return np.vectorize(interval, otypes=[int])(scores)


def confusion(reference: Floats, trm: Floats) -> list[list[int]]:
    """Rows by interval of the reference (first index) and of the TRM's score (second), where both are there."""
    both = ~np.isnan(reference) & ~np.isnan(trm)
    table = np.zeros((INTERVALS, INTERVALS), dtype=int)
    np.add.at(table, (interval_of(reference[both]), interval_of(trm[both])), 1)
    return table.tolist()


def reliability(reference: Floats, trm: Floats) -> dict[str, Statistic]:
    """Mean reference of the rows whose TRM score is in each interval, as ``reliability.0`` … ``reliability.9``."""
    place = _places(reference, trm)
    return {f"reliability.{k}": mean_of(reference, place == k, "no rows") for k in range(INTERVALS)}


def reliability_scores(reference: Floats, trm: Floats) -> list[float | None]:
    """Mean TRM score of the rows of each interval, None without rows: no middle, for scores may all be tenths."""
    place = _places(reference, trm)
    return [mean_of(trm, place == k).value() for k in range(INTERVALS)]


def _places(reference: Floats, trm: Floats) -> np.ndarray:
    both = ~np.isnan(reference) & ~np.isnan(trm)
    return np.where(both, interval_of(np.where(both, trm, 0.0)), -1)


def roc_points(score: Floats, outcome: Floats) -> tuple[Floats, Floats] | None:
    """False and true positive rates from (0, 0) to (1, 1), one point for each score level; None without two classes."""
    judged = ~np.isnan(score) & ~np.isnan(outcome)
    correct = outcome[judged] >= CORRECT
    if not correct.any() or correct.all():
        return None
    levels, code = np.unique(-score[judged], return_inverse=True)
    rates = []
    for members in (~correct, correct):
        count = np.bincount(code, weights=members, minlength=levels.size)
        rates.append(np.concatenate(([0.0], np.cumsum(count) / count.sum())))
    return rates[0], rates[1]


def counts_of(data: EvaluationSet, scores: Sequence[Scored]) -> dict[str, Any]:
    """How many rows, questions and groups the figures stand on, and how many scores are missing for which reason."""
    errors = Counter(score.error for score in scores if score.error is not None)
    return {
        "rows_in_file": data.total,
        "rows": len(data.rows),
        "questions": len({row.question_id for row in data.rows}),
        "groups": len({row.group for row in data.rows if row.group is not None}),
        "scored": sum(score.value is not None for score in scores),
        "without_reference": int(np.isnan(data.reference).sum()),
        "missing": dict(sorted(errors.items())),
    }


def worst_rows(reference: Floats, trm: Floats, most: int) -> list[int]:
    """Places of the rows with the largest difference between both scores, the largest first."""
    distance = np.abs(reference - trm)
    order = np.argsort(-distance, kind="stable")  # NaN comes last
    return [int(place) for place in order[:most] if distance[place] > 0]
