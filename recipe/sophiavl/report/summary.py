"""What a run changed: values before and after with standard errors, as pure functions of its metrics and dumps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recipe.sophiavl.metrics import slug
from recipe.sophiavl.report.dumps import number
from recipe.sophiavl.report.logs import Steps, read_lines, series, validation_modes, validation_parts

CORRELATION = "training/rollout_actor_probs_pearson_corr"
_VALIDATED = {"outcome_reward": "outcome reward", "thinking_reward": "thinking reward", "format_ok": "format followed"}
# Of how many steps a mean is at most; the annealing factor is computed, not measured.
_TRAINED = {
    "outcome_reward/mean": ("outcome reward", 5),
    "thinking_reward/mean": ("thinking reward", 5),
    "trust/gamma_mean": ("trust weight gamma", 5),
    CORRELATION: ("rollout-actor correlation", 5),
    "thinking_reward/anneal": ("annealing factor", 1),
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
        group: where it was measured: in training, as a mean of so many steps, or in one way of validation.
        after: None where it was measured once.
        difference: None where that would say nothing: a single training step against another.
        paired: whether the error of the difference is that of the questions' own differences; None where there is no
            difference between validations.
    """

    group: str
    name: str
    before: Value
    after: Value | None = None
    difference: Value | None = None
    paired: bool | None = None


def summary(steps: Steps, validation_dir: Path) -> list[Change]:
    """What a run was meant to change; quantities that were not measured are left out.

    Args:
        validation_dir: validation's dumps. Where those of the first and of the last validation hold the same questions,
            the error of a difference is that of the questions' own differences.
    """
    rows = []
    for mode in validation_modes(steps):
        folder = validation_dir / mode if (validation_dir / mode).is_dir() else validation_dir
        questions = list(series(steps, f"validation/{mode}/questions").values())[-1]
        group = f"{mode.replace('_', ' ')} validation (n = {questions:.0f})"
        for variable, label in _VALIDATED.items():
            for part in validation_parts(steps, mode, variable):
                kind = part.partition("/")[2].replace("_", " ")
                name = f"{label}: {kind}" if kind else label
                rows.append(_validated(steps, group, name, f"validation/{mode}/{part}", folder))
    for metric, (name, most) in _TRAINED.items():
        if values := series(steps, metric):
            rows.append(_trained(name, list(values.values()), most))
    return rows


def _validated(steps: Steps, group: str, name: str, metric: str, folder: Path) -> Change:
    means, errors = series(steps, f"{metric}/mean"), series(steps, f"{metric}/stderr")
    first, last = min(means), max(means)
    before, after = (Value(means[step], errors.get(step)) for step in (first, last))
    if first == last:
        return Change(group, name, before)
    difference = after.minus(before)
    _, _, variable, *kind = metric.split("/")
    pairs = paired_difference(folder / f"{first}.jsonl", folder / f"{last}.jsonl", variable, *kind)
    paired = pairs is not None and math.isclose(pairs.mean, difference.mean, abs_tol=1e-6)
    return Change(group, name, before, after, pairs if paired else difference, paired)


def _trained(name: str, values: list[float], most: int) -> Change:
    """Mean of the first and of the last steps: as many as there are on both sides, ``most`` at most."""
    width = max(1, min(most, len(values) // 2))
    group = f"training, means of {width} steps" if width > 1 else "training, 1 step"
    before, after = _mean(values[:width]), _mean(values[-width:])
    if len(values) == 1:
        return Change(group, name, before)
    return Change(group, name, before, after, after.minus(before) if width > 1 else None)


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
        if row[variable] is None:
            continue
        if not _sound(row, variable):
            raise ValueError(
                f"{file}: {variable}={row[variable]!r:.60} or the row of the data is not what a run writes"
            )
        if kind in (None, slug(row["problem_type"])):
            values.setdefault(tuple(row[name] for name in _ROW), {}).setdefault(row["group"], []).append(row[variable])
    if any(len(groups) > 1 for groups in values.values()):
        return pd.Series(dtype=float)
    return pd.Series({row: np.mean(found) for row, groups in values.items() for found in groups.values()}, dtype=float)


def _sound(row: Mapping[str, Any], variable: str) -> bool:
    """Whether the values of a dumped row are of the kinds that a run writes."""
    texts = all(isinstance(row[name], str | int | None) for name in (*_ROW, "group"))
    measured = isinstance(row[variable], bool) or 0 <= number(row[variable]) <= 1
    return texts and isinstance(row["problem_type"], str) and measured
