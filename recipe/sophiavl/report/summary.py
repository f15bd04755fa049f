"""What a run changed: values before and after with standard errors, as pure functions of its metrics and dumps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from recipe.sophiavl.metrics import slug
from recipe.sophiavl.report.logs import Steps, read_lines, series, validation_modes, validation_parts

CORRELATION = "training/rollout_actor_probs_pearson_corr"
_EDGE_STEPS = 5
_VALIDATED = {"outcome_reward": "outcome reward", "thinking_reward": "thinking reward", "format_ok": "format followed"}
_TRAINED = {
    "outcome_reward/mean": "training outcome reward",
    "thinking_reward/mean": "training thinking reward",
    "trust/gamma_mean": "trust weight gamma",
    "thinking_reward/anneal": "annealing factor",
    CORRELATION: "rollout-actor correlation",
}
_ROW = ("data_source", "split", "index")


@dataclass(frozen=True)
class Value:
    """A mean and its standard error; None where one value has none."""

    mean: float
    error: float | None = None

    def minus(self, other: Value) -> Value:
        """The difference of two independent means; its error is None where one of theirs is."""
        known = self.error is not None and other.error is not None
        return Value(self.mean - other.mean, math.hypot(self.error, other.error) if known else None)


@dataclass(frozen=True)
class Change:
    """A quantity at the start and at the end of a run.

    Attributes:
        after: None where it was measured once.
        difference: None where that would say nothing: a single training step against another.
        paired: the difference is of the same questions, each with itself.
    """

    name: str
    before: Value
    after: Value | None = None
    difference: Value | None = None
    paired: bool = False


def summary(steps: Steps, validation_dir: Path) -> list[Change]:
    """What a run was meant to change; quantities that were not measured are left out.

    Args:
        validation_dir: validation's dumps. Where those of the first and of the last validation hold the same questions,
            the error of a difference is that of the questions' own differences.
    """
    rows = []
    for mode in validation_modes(steps):
        folder = validation_dir / mode if (validation_dir / mode).is_dir() else validation_dir
        for variable, label in _VALIDATED.items():
            for part in validation_parts(steps, mode, variable):
                kind = part.partition("/")[2].replace("_", " ")
                name = f"{mode.replace('_', ' ')} validation, {label}" + (f": {kind}" if kind else "")
                rows.append(_validated(steps, name, f"validation/{mode}/{part}", folder))
    return rows + [
        _trained(name, list(values.values())) for metric, name in _TRAINED.items() if (values := series(steps, metric))
    ]


def _validated(steps: Steps, name: str, metric: str, folder: Path) -> Change:
    means, errors = series(steps, f"{metric}/mean"), series(steps, f"{metric}/stderr")
    first, last = min(means), max(means)
    before, after = (Value(means[step], errors.get(step)) for step in (first, last))
    if first == last:
        return Change(name, before)
    _, _, variable, *kind = metric.split("/")
    pairs = paired_difference(folder / f"{first}.jsonl", folder / f"{last}.jsonl", variable, *kind)
    return Change(name, before, after, pairs or after.minus(before), paired=pairs is not None)


def _trained(name: str, values: list[float]) -> Change:
    """Mean of the first and of the last steps: as many as there are on both sides, `_EDGE_STEPS` at most."""
    width = max(1, min(_EDGE_STEPS, len(values) // 2))
    label = f"{name} (mean of {width} steps)" if width > 1 else f"{name} (1 step)"
    before, after = _mean(values[:width]), _mean(values[-width:])
    if len(values) == 1:
        return Change(label, before)
    return Change(label, before, after, after.minus(before) if width > 1 else None)


def _mean(values: list[float]) -> Value:
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None
    return Value(float(np.mean(values)), error)


def paired_difference(first: Path, last: Path, variable: str, kind: str | None = None) -> Value | None:
    """By how much the questions changed from one validation's dump to another's, each compared with itself.

    Args:
        kind: only questions of this answer type, as metrics name it.

    Returns:
        None where the dumps do not hold the same questions, at least two, each once.
    """
    if not (first.is_file() and last.is_file()):
        return None
    before, after = (_by_question(file, variable, kind) for file in (first, last))
    if len(before) < 2 or set(before.index) != set(after.index):
        return None
    difference = after - before
    return Value(float(difference.mean()), float(difference.sem()))


def _by_question(file: Path, variable: str, kind: str | None) -> pd.Series:
    """The mean of a variable by row of the data; questions without a value are left out."""
    values: dict[tuple, dict[str, list[float]]] = {}
    for row in read_lines(file, (*_ROW, "group", "problem_type", variable)):
        if row[variable] is not None and kind in (None, slug(row["problem_type"])):
            values.setdefault(tuple(row[name] for name in _ROW), {}).setdefault(row["group"], []).append(row[variable])
    if any(len(groups) > 1 for groups in values.values()):
        return pd.Series(dtype=float)
    return pd.Series({row: np.mean(found) for row, groups in values.items() for found in groups.values()}, dtype=float)
