"""What is measured: how scores agree with the reference, tell right from wrong, and what they would do to a group.

The TRM's scores, the reference's own and those of a text-only baseline go through the same functions, over the same
rows, so that the columns of a line compare. RL uses only differences within a group of responses: pair accuracies are
over pairs of one group, where pooled figures also count that one question is easier than another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from recipe.sophiavl.trm_training.asking import UNREADABLE
from recipe.sophiavl.trm_training.evaluate.rows import EvaluationSet
from recipe.sophiavl.trm_training.evaluate.scoring import Scored, values_of
from recipe.sophiavl.trm_training.evaluate.statistics import (
    Bools,
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
_DECIMALS = 9
_NAMES = ("the scores", "the reference")
_SIDES = "no group has a score on both sides"

TITLES = {
    "mae": "mean absolute error",
    "within_0.1": "within 0.1 of the reference",
    "spearman": "Spearman's correlation with the reference",
    "spearman_missing_as_mean": "Spearman's correlation, missing scores as the mean",
    "pairs_ordered": "pairs of a group ordered as the reference does",
    "scored_share": "share with a score",
    "auc": "AUC for the correct outcome",
    "pairs_right": "pairs of a group with the right answer above the wrong one",
    "best_of_n": "accuracy of the best of a group by score",
    "best_of_n_random": "accuracy of a random one of a group",
    "best_of_n_majority": "accuracy of a group's most frequent answer",
    "best_of_n_oracle": "share of groups with a right answer",
    "gamma": "mean trust weight gamma",
    "distrusted": "share of groups with gamma < 1",
    "parse_failures": "replies without a readable score",
}
"""Titles of the figures, in the order in which they are shown; failures by kind (``failure.<kind>``) follow."""
RATERS = {"": "TRM", "_reference": "reference", "_blind": "text only"}
"""Whose scores a figure is of, by the end of its name: ``auc``, ``auc_reference``, ``auc_blind``."""


def title_of(name: str) -> str:
    """Title of a figure, without its rater."""
    return TITLES.get(name) or f"missing: {name.removeprefix('failure.')}"


def statistics_of(data: EvaluationSet, scores: Sequence[Scored], blind: Floats | None = None) -> dict[str, Statistic]:
    """All figures but the sensitivity.

    Args:
        blind: the text-only baseline's scores, shape (rows,).
    """
    trm = values_of(scores)
    scored, referenced = ~np.isnan(trm), ~np.isnan(data.reference)
    both = scored & referenced
    # Without any reference the TRM's scores still say how they order right and wrong.
    common = both if referenced.any() else scored
    raters = {"": trm, "_reference": data.reference} | ({} if blind is None else {"_blind": blind})
    parts: dict[str, Statistic] = {
        "scored_share": mean_of(scored, np.ones(trm.size, dtype=bool)),
        "spearman_missing_as_mean": _with_missing(data, trm),
        **failures(scores),
    }
    unusable = _unusable(data)
    frame = _frame(data, common)
    for end, values in raters.items():
        figures = {} if end == "_reference" else agreement(data, values, both, unusable)
        if end != "_reference" or referenced.any():
            figures |= _auc(data, values, common) | within_groups(data, frame, values, unusable)
        parts |= {f"{name}{end}": statistic for name, statistic in figures.items()}
    parts |= _picks_without_scores(frame, unusable)
    order = [name + end for name in TITLES for end in raters if name + end in parts]
    return {name: parts[name] for name in [*order, *(name for name in parts if name not in order)]}


def agreement(data: EvaluationSet, values: Floats, both: Bools, unusable: str | None) -> dict[str, Statistic]:
    """Agreement with the reference over the rows of `both`, which have both scores."""
    distance = np.abs(values - data.reference)
    return {
        "mae": mean_of(distance, both, "no row has both scores"),
        "within_0.1": mean_of(distance <= WITHIN + 10**-_DECIMALS, both, "no row has both scores"),
        "spearman": spearman_of(values, data.reference, both, _NAMES),
        "pairs_ordered": _pairs(_frame(data, both), values, data.reference, unusable),
    }


def _with_missing(data: EvaluationSet, trm: Floats) -> Statistic:
    """Missing scores tell nothing of their row: they stand at the mean of the others."""
    scored = ~np.isnan(trm)
    if not scored.any():
        return undefined("no row has a score")
    filled = np.where(scored, trm, trm[scored].mean())
    return spearman_of(filled, data.reference, ~np.isnan(data.reference), _NAMES)


def _auc(data: EvaluationSet, values: Floats, common: Bools) -> dict[str, Statistic]:
    if "outcome" not in data.columns:
        return {"auc": undefined("the file has no column outcome")}
    return {"auc": auc_of(values, data.outcome >= CORRECT, common & ~np.isnan(data.outcome))}


def _unusable(data: EvaluationSet) -> str | None:
    """Why the rows cannot be grouped; None where they can."""
    lacking = [name for name in ("outcome", "group") if name not in data.columns]
    if lacking:
        return f"the file has no column {' and none of '.join(lacking)}"
    pairs = {(row.group, row.question_id) for row in data.rows if row.group is not None}
    mixed = sorted(group for group, questions in Counter(group for group, _ in pairs).items() if questions > 1)
    return f"group {mixed[0]!r} holds {sum(group == mixed[0] for group, _ in pairs)} questions" if mixed else None


def _frame(data: EvaluationSet, where: Bools) -> pd.DataFrame:
    """Row, group, correctness and answer of the rows of `where` that have a group and an outcome."""
    rows = [row for row in np.flatnonzero(where & ~np.isnan(data.outcome)) if data.rows[row].group is not None]
    return pd.DataFrame(
        {
            "row": np.array(rows, dtype=np.intp),
            "group": [data.rows[row].group for row in rows],
            "correct": data.outcome[rows] >= CORRECT,
            "answer": pd.Series([data.rows[row].answer for row in rows], dtype=object),
        }
    )


def _pairs(frame: pd.DataFrame, values: Floats, better: Floats, unusable: str | None) -> Statistic:
    """Share of the pairs of one group that `values` order as `better` does, ties of `values` counting one half."""
    if unusable:
        return undefined(unusable)
    pairs = frame.merge(frame, on="group", suffixes=("", "_other"))
    places, others = pairs["row"].to_numpy(np.intp), pairs["row_other"].to_numpy(np.intp)
    above = np.round(better[places] - better[others], _DECIMALS) > 0
    places, others = places[above], others[above]
    won = (np.sign(np.round(values[places] - values[others], _DECIMALS)) + 1) / 2
    return mean_at(won, places, "no pair of a group differs")


def within_groups(
    data: EvaluationSet, frame: pd.DataFrame, values: Floats, unusable: str | None
) -> dict[str, Statistic]:
    """What the scores would do inside GRPO groups, over the responses of `frame`: order them, pick one, weigh them.

    Gamma is not quite training's: `collect` leaves out repeated responses, and those without the required format.
    A group with a score on one side only says nothing about the scores: its gamma of 1 is left out. Nor does a group
    of one response: of those there is nothing to pick.
    """
    names = ("pairs_right", "best_of_n", "gamma", "distrusted")
    if unusable:
        return dict.fromkeys(names, undefined(unusable))
    picked = _picked(frame.assign(score=np.round(values[frame["row"]], _DECIMALS)), "score")
    gamma, distrusted = _trust(data, frame, values)
    correct = (data.outcome >= CORRECT).astype(float)
    return dict(zip(names, (_pairs(frame, values, correct, None), picked, gamma, distrusted), strict=True))


def _picked(frame: pd.DataFrame, by: str) -> Statistic:
    """Accuracy where each group's answer is one with the highest value of `by`; the mean of those that tie."""
    groups = frame.groupby("group", sort=False)
    several = groups["row"].transform("size") > 1
    best = frame[several & (frame[by] == groups[by].transform("max"))].groupby("group", sort=False)
    return mean_at(
        best["correct"].mean().to_numpy(float), best["row"].first().to_numpy(np.intp), "no group of two or more"
    )


def _picks_without_scores(frame: pd.DataFrame, unusable: str | None) -> dict[str, Statistic]:
    """Accuracy of the picks that need no score, over the groups of `within_groups`; a majority needs answers."""
    names = ("best_of_n_random", "best_of_n_majority", "best_of_n_oracle")
    if unusable:
        return dict.fromkeys(names, undefined(unusable))
    votes = frame.groupby(["group", "answer"])["row"].transform("size")  # NaN without an answer
    answered = frame.assign(votes=votes)[votes.notna()]
    majority = _picked(answered, "votes") if len(answered) else undefined("no response with an answer is known")
    picks = (_picked(frame.assign(same=0), "same"), majority, _picked(frame, "correct"))
    return dict(zip(names, picks, strict=True))


def _trust(data: EvaluationSet, frame: pd.DataFrame, values: Floats) -> tuple[Statistic, Statistic]:
    if frame.empty:
        return undefined(_SIDES), undefined(_SIDES)
    rows = frame["row"].to_numpy(np.intp)
    gamma = trust_weights(data.outcome[rows], values[rows], frame["group"].to_list(), correct_threshold=CORRECT)
    sides = frame.groupby("group", sort=False)["correct"].transform("nunique") == 2
    firsts = (sides & ~frame.duplicated("group")).to_numpy()
    return mean_at(gamma[firsts], rows[firsts], _SIDES), mean_at(
        (gamma[firsts] < 1).astype(float), rows[firsts], _SIDES
    )


def failures(scores: Sequence[Scored]) -> dict[str, Statistic]:
    """Share of the replies that hold no readable score, and of all rows those that each reason left without one."""
    kinds = sorted({score.error for score in scores if score.error is not None})
    unreadable = np.array([score.error in UNREADABLE for score in scores], dtype=bool)
    replied = unreadable | np.array([score.error is None for score in scores], dtype=bool)
    everywhere = np.ones(len(scores), dtype=bool)
    shares = {f"failure.{kind}": mean_of([score.error == kind for score in scores], everywhere) for kind in kinds}
    return {"parse_failures": mean_of(unreadable, replied, "no reply came"), **shares}


def interval_of(scores: Floats) -> np.ndarray:
    """Number of the interval [0, 0.1), [0.1, 0.2) … [0.9, 1.0] of each score, shape as given; as `balance.interval`."""
    return np.vectorize(interval, otypes=[int])(scores)


def confusion(reference: Floats, trm: Floats) -> list[list[int]]:
    """Rows by interval of the reference (first index) and of the TRM's score (second), where both are there."""
    both = ~np.isnan(reference) & ~np.isnan(trm)
    edges = np.arange(INTERVALS + 1)
    table, *_ = np.histogram2d(interval_of(reference[both]), interval_of(trm[both]), bins=(edges, edges))
    return table.astype(int).tolist()


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


def counts_of(data: EvaluationSet, scores: Sequence[Scored]) -> dict[str, Any]:
    """How many rows, questions, images and groups the figures stand on, and how many scores are missing, and why."""
    errors = Counter(score.error for score in scores if score.error is not None)
    return {
        "rows_in_file": data.total,
        "rows": len(data.rows),
        **data.counts(np.arange(len(data.rows))),
        "tied_sets": np.unique(data.cluster).size,
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
