"""What scores of whole responses are worth on public benchmarks, with intervals by tied images.

Our score is one number for a whole piece of reasoning. For a **preference pair** that is enough: the response with the
higher score is the choice. A tie, frequent among scores in tenths, counts one half (``--score-mode expected`` has few).

For **step labels** it is not. The steps up to each one are scored as if they were the whole reasoning; such a score
says whether something is wrong *so far*, not which step is: after a first wrong step it stays low, though later steps
may be right by themselves. So ``step_f1`` and ``step_auc``, over all labelled steps, are what the benchmark asks (macro
F1 of right and wrong steps) and are bounded by that; ``so_far_auc`` and ``first_wrong_found`` are what the score is
for. F1 needs a threshold, which is 0.5. Neutral steps (label 0) are in the texts and in no figure of single steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from recipe.sophiavl.trm.client import ThinkingRewardClient
from recipe.sophiavl.trm.client_settings import ClientSettings
from recipe.sophiavl.trm_training.annotate import asked_with
from recipe.sophiavl.trm_training.asking import Request
from recipe.sophiavl.trm_training.evaluate import outputs
from recipe.sophiavl.trm_training.evaluate.public_benchmarks import STEPS, Benchmark
from recipe.sophiavl.trm_training.evaluate.scoring import Scored, score_all, settled, values_of
from recipe.sophiavl.trm_training.evaluate.statistics import (
    Bools,
    Floats,
    Rows,
    Statistic,
    auc_of,
    intervals,
    mean_of,
    undefined,
)
from recipe.sophiavl.trm_training.pairs import write_pairs

FORMAT = "sophiavl-trm-benchmark/1"
THRESHOLD = 0.5
# Scores are decimal fractions: rounding makes no difference of them.
_DECIMALS = 9
_NO_PAIR = "no pair with two scores"

TITLES = {
    "accuracy": "pairs with the better response above",
    "accuracy_mean": "mean of the categories",
    "ties": "pairs with equal scores (each counts one half)",
    "step_f1": "single steps: macro F1 at 0.5",
    "step_f1_mean": "mean of the sources",
    "step_auc": "single steps: AUC",
    "so_far_auc": "AUC for no wrong step so far",
    "first_wrong_found": "largest drop at the first wrong step",
    "first_wrong_by_chance": "the same of a random step",
    "scored_share": "share of texts with a score",
}
SCORES_SCHEMA = pa.schema(
    [
        ("case", pa.string()),
        ("group", pa.string()),
        # number of the response, or of the last step of the text
        ("text", pa.int64()),
        # 1 the better response or a right step, 0 the other response or a neutral step, -1 a wrong step
        ("label", pa.int64()),
        ("score", pa.float64()),
        ("error", pa.string()),
        ("reply", pa.string()),
    ]
)


@dataclass(frozen=True)
class Measured:
    """The scores of a benchmark's texts, in order, and what they come to."""

    benchmark: Benchmark
    scores: Sequence[Scored]
    evaluation: Mapping[str, Any]


async def measure(benchmark: Benchmark, config: ClientSettings, resamples: int, seed: int) -> Measured:
    """Ask for the scores of all texts and compute the figures.

    Raises:
        ServerError: more than half of the requests failed because of the server or the way to it.
    """
    total = sum(len(labels) for *_, labels in benchmark.cases)
    config = await settled(config)
    async with ThinkingRewardClient(config) as client:
        found = await score_all(client, _requests(benchmark), total, "scoring")
    scores = [found[key] for key in range(total)]
    return Measured(benchmark, scores, _evaluation(benchmark, scores, config, resamples, seed))


def save(measured: Measured, folder: Path) -> None:
    """Write ``scores.parquet`` and ``benchmark.json`` into `folder`."""
    texts = (
        (case, group, n, label) for case, group, labels in measured.benchmark.cases for n, label in enumerate(labels)
    )
    rows = (
        dict(zip(SCORES_SCHEMA.names, (*text, score.value, score.error, score.reply), strict=True))
        for text, score in zip(texts, measured.scores, strict=True)
    )
    write_pairs(folder / "scores.parquet", rows, SCORES_SCHEMA)
    outputs.save_json(folder / "benchmark.json", measured.evaluation)


def table_of(evaluation: Mapping[str, Any]) -> outputs.Table:
    """The figures for people."""
    lines = []
    for name, figure in evaluation["figures"].items():
        measure, _, group = name.partition("/")
        lines.append((f"– {group}" if group else TITLES[measure], figure))
    return outputs.table_of(evaluation["settings"]["benchmark"], ("value",), lines)


def _requests(benchmark: Benchmark) -> Iterator[Request[int]]:
    key = 0
    for case in benchmark.read():
        for text in case.texts:
            yield Request(key, case.question, case.images, text)
            key += 1


def _evaluation(
    benchmark: Benchmark, scores: Sequence[Scored], config: ClientSettings, resamples: int, seed: int
) -> dict[str, Any]:
    lengths = [len(labels) for *_, labels in benchmark.cases]
    # Of each text its case.
    case = np.repeat(np.arange(len(lengths)), lengths)
    labels = np.array([label for *_, mine in benchmark.cases for label in mine])
    group = np.array([group for _, group, _ in benchmark.cases])[case]
    values = np.round(values_of(scores), _DECIMALS)
    measure = _steps if benchmark.name == STEPS else _pairs
    statistics = measure(values, labels, group, case)
    statistics["scored_share"] = mean_of(~np.isnan(values), np.ones(values.size, dtype=bool))
    spans = intervals(statistics, benchmark.cluster[case], resamples, seed)
    figures = {
        name: outputs.figure_of(one, spans[name], benchmark.counts(case[one.rows])) for name, one in statistics.items()
    }
    missing = Counter(score.error for score in scores if score.error is not None)
    return {
        "format": FORMAT,
        "settings": {
            "benchmark": benchmark.name,
            "folder": str(benchmark.folder),
            "urls": list(config.urls),
            **asked_with(config),
            "bootstrap": resamples,
            "seed": seed,
        },
        "counts": {
            "cases": len(lengths),
            **benchmark.counts(case),
            "texts": len(scores),
            "missing": dict(sorted(missing.items())),
        },
        "notes": [f"{missing.total()} of {len(scores)} texts have no score: figures leave them out"] * bool(missing),
        "figures": figures,
    }


def _pairs(values: Floats, labels: np.ndarray, group: np.ndarray, case: Rows) -> dict[str, Statistic]:
    """Figures of preference pairs, each at the place of its better response."""
    places = np.flatnonzero(labels == 1)
    # The other response stands beside it, before or after.
    others = np.where(places % 2 == 0, places + 1, places - 1)
    won = np.full(values.size, np.nan)
    won[places] = (np.sign(values[places] - values[others]) + 1) / 2
    known = ~np.isnan(won)
    by_group = {name: mean_of(won, known & (group == name), _NO_PAIR) for name in sorted(set(group))}
    return {
        "accuracy": mean_of(won, known, _NO_PAIR),
        "accuracy_mean": _mean(list(by_group.values())),
        **{f"accuracy/{name}": statistic for name, statistic in by_group.items()},
        "ties": mean_of(won == 0.5, known, _NO_PAIR),
    }


def _steps(values: Floats, labels: np.ndarray, group: np.ndarray, case: Rows) -> dict[str, Statistic]:
    """Figures of the scores of all beginnings, each at the place of its last step."""
    scored = ~np.isnan(values)
    judged = scored & (labels != 0)
    wrong_so_far = np.concatenate([np.logical_or.accumulate(mine == -1) for mine in _split(labels, case)])
    by_group = {name: _macro_f1(values, labels > 0, judged & (group == name)) for name in sorted(set(group))}
    found, chance = np.full(values.size, np.nan), np.full(values.size, np.nan)
    for places in _split(np.arange(values.size), case):
        wrong = np.flatnonzero(labels[places] == -1)
        if wrong.size and scored[places].all():
            # Before the first step nothing is wrong.
            drop = -np.diff(values[places], prepend=1.0).round(_DECIMALS)
            largest = drop == drop.max()
            found[places[0]], chance[places[0]] = largest[wrong[0]] / largest.sum(), 1 / places.size
    nothing = "no scored response with a wrong step"
    return {
        "step_f1": _macro_f1(values, labels > 0, judged),
        "step_f1_mean": _mean(list(by_group.values())),
        **{f"step_f1/{name}": statistic for name, statistic in by_group.items()},
        "step_auc": auc_of(values, labels > 0, judged),
        "so_far_auc": auc_of(values, ~wrong_so_far, scored),
        "first_wrong_found": mean_of(found, ~np.isnan(found), nothing),
        "first_wrong_by_chance": mean_of(chance, ~np.isnan(found), nothing),
    }


def _split(values: np.ndarray, case: Rows) -> list[np.ndarray]:
    return np.split(values, np.flatnonzero(np.diff(case)) + 1)


def _macro_f1(values: Floats, right: Bools, where: Bools) -> Statistic:
    """Mean of the F1 of right and of wrong steps, where scores of `THRESHOLD` and above say right."""
    rows = np.flatnonzero(where)
    cell = 2 * right[rows] + (values[rows] >= THRESHOLD)

    def compute(weights: Floats) -> float:
        true_wrong, false_right, false_wrong, true_right = np.bincount(cell, weights, minlength=4)
        errors = false_right + false_wrong
        if min(true_wrong + false_right, true_right + false_wrong) == 0:
            return np.nan
        return float(np.mean([2 * true / (2 * true + errors) for true in (true_wrong, true_right)]))

    if not 0 < right[rows].sum() < rows.size:
        return undefined("all scored steps are right, or all are wrong")
    return Statistic(rows, compute)


def _mean(parts: Sequence[Statistic]) -> Statistic:
    """The mean of several figures over different rows, each counting once."""
    reason = next((part.undefined for part in parts if part.undefined), None)
    if reason:
        return undefined(reason)
    ends = np.cumsum([part.n for part in parts])[:-1]

    def compute(weights: Floats) -> float:
        pieces = zip(parts, np.split(weights, ends), strict=True)
        return float(np.mean([part.compute(mine) for part, mine in pieces]))

    return Statistic(np.concatenate([part.rows for part in parts]), compute)
