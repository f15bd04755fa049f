"""The figures of an evaluation, from the scored answers of each question."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt

from recipe.sophiavl.evaluate.questions import Question
from recipe.sophiavl.trm_training.evaluate.outputs import figure_of
from recipe.sophiavl.trm_training.evaluate.rows import tied
from recipe.sophiavl.trm_training.evaluate.statistics import LEVEL, Interval, Statistic, intervals, mean_of

Floats = npt.NDArray[np.float64]
ALL = "all"
SOURCE, TYPE = "source/", "type/"
TITLES = {
    "accuracy": "accuracy",
    "majority": "majority vote",
    "reward": "mean reward",
    "format": "format followed",
    "cut": "cut at the limit",
    "thinking": "thinking reward",
    "tokens": "tokens",
}
_PASS = "pass@"


@dataclass(frozen=True, slots=True)
class Scored:
    """One answer and what it is worth.

    Attributes:
        reward: outcome reward in [0, 1].
        correct: whether the reward reaches the threshold of its type.
        answer: text inside ``<answer>``; None without the format.
        thinking: thinking reward in [0, 1]; None where it is missing or was not asked for.
        tokens: tokens of the response; None where the server did not say.
    """

    reward: float
    correct: bool
    answer: str | None
    cut: bool
    thinking: float | None = None
    tokens: int | None = None


def pass_at_k(answers: int, right: int, k: int) -> float:
    """The chance that one of `k` answers drawn from `answers` without replacement, `right` of them right, is right.

    The unbiased estimator 1 - C(n-c, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374).
    """
    return 1.0 - comb(answers - right, k) / comb(answers, k)


def majority_vote(scored: Sequence[Scored]) -> float:
    """Whether the most frequent answer is right, in [0, 1].

    Answers count as equal that differ in case and spacing only; what has no answer has no vote. Of a tie the share of
    the tied answers that are right, as if it were broken by lot; 0 where nobody votes.
    """
    votes: defaultdict[str, list[bool]] = defaultdict(list)
    for one in scored:
        if one.answer is not None:
            votes[" ".join(one.answer.casefold().split())].append(one.correct)
    most = max(map(len, votes.values()), default=0)
    tied_answers = [np.mean(right) for right in votes.values() if len(right) == most]
    return float(np.mean(tied_answers)) if tied_answers else 0.0


def ks_of(samples: int) -> list[int]:
    """The k of pass@k: powers of two up to the number of samples, and that number; none for one sample."""
    powers = {2**power for power in range(1, samples.bit_length())}
    return sorted(powers | ({samples} - {1}))


def measures_of(scored: Sequence[Scored], samples: int) -> dict[str, float]:
    """The measures of one question, as means over its answers; NaN where there is none to average over."""
    ks = ks_of(samples)
    known = [one.thinking for one in scored if one.thinking is not None]
    tokens = [one.tokens for one in scored if one.tokens is not None]
    right = sum(one.correct for one in scored)
    found = {
        "accuracy": _mean([one.correct for one in scored]),
        "reward": _mean([one.reward for one in scored]),
        "format": _mean([one.answer is not None for one in scored]),
        "cut": _mean([one.cut for one in scored]),
        "thinking": _mean(known),
        "tokens": _mean(tokens),
    }
    if ks:
        found["majority"] = majority_vote(scored) if scored else np.nan
    return found | {f"{_PASS}{k}": pass_at_k(len(scored), right, k) if len(scored) >= k else np.nan for k in ks}


def _mean(values: Sequence[float | bool]) -> float:
    return float(np.mean(values)) if values else np.nan


def groups_of(questions: Sequence[Question]) -> dict[str, npt.NDArray[np.bool_]]:
    """Which questions belong to each group: all of them, each data source, each answer type."""
    sources, kinds = (np.array([getattr(q, name) for q in questions]) for name in ("data_source", "problem_type"))
    groups = {ALL: np.ones(len(questions), dtype=bool)}
    groups |= {f"{SOURCE}{name}": sources == name for name in sorted(set(sources.tolist()))}
    return groups | {f"{TYPE}{name}": kinds == name for name in sorted(set(kinds.tolist()))}


def title_of(measure: str) -> str:
    """Title of a measure."""
    return TITLES.get(measure, measure)


def is_of_right_answers(measure: str) -> bool:
    """Whether a measure is about right answers, and not about how a policy answers."""
    return measure in ("accuracy", "majority", "reward") or measure.startswith(_PASS)


def order_of(measures: Iterable[str]) -> list[str]:
    """Measures as they are shown: accuracy, pass@k by k, then the others."""
    places = {name: place for place, name in enumerate(TITLES)}

    def place(name: str) -> tuple[float, int]:
        return (0.5, int(name.removeprefix(_PASS))) if name.startswith(_PASS) else (places[name], 0)

    return sorted(measures, key=place)


def figures_of(
    questions: Sequence[Question],
    values: Mapping[str, Floats],
    resamples: int,
    seed: int,
    *,
    differences: bool = False,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Each measure in each group with its interval, by resampling the questions that share images together.

    Args:
        values: measures by name, each of shape (questions,), NaN where a question has none.
        resamples: of the bootstrap; 0 gives no intervals.
        differences: whether the values are differences, and no shares.

    Returns:
        Figures as `figure_of` writes them, by group and measure; measures without any value are left out.
    """
    statistics: dict[tuple[str, str], Statistic] = {}
    for group, members in groups_of(questions).items():
        for name in order_of(values):
            known = members & ~np.isnan(values[name])
            if known.any():
                statistics[group, name] = mean_of(values[name], known)
    named = {f"{group}\0{name}": statistic for (group, name), statistic in statistics.items()}
    cluster = tied([question.keys for question in questions])
    spans = intervals(named, cluster, resamples, seed)
    found: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for (group, name), statistic in statistics.items():
        clusters = int(np.unique(cluster[statistic.rows]).size)
        share = name != "tokens" and not differences
        span = _honest(spans[f"{group}\0{name}"], values[name][statistic.rows], clusters, share=share)
        found[group][name] = figure_of(statistic, span, _counts(questions, statistic))
    return dict(found)


def _honest(span: Interval, values: Floats, clusters: int, *, share: bool) -> Interval:
    """The interval; where all values are equal, resampling cannot show how far the truth may lie.

    Of shares that are all 0 or all 1 it is Clopper and Pearson's for so many clusters (1934, Biometrika 26); of other
    values there is none.
    """
    if span.low is None or np.ptp(values) > 0:
        return span
    if share and values[0] in (0, 1):
        reach = 1 - ((1 - LEVEL) / 2) ** (1 / clusters)
        return Interval(0.0, reach) if values[0] == 0 else Interval(1 - reach, 1.0)
    return Interval(None, None, "all values are equal")


def _counts(questions: Sequence[Question], statistic: Statistic) -> dict[str, int]:
    chosen = [questions[row] for row in statistic.rows]
    return {"images": len({key for question in chosen if question.image_count for key in question.keys})}
