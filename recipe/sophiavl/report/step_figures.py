"""Figures of each training step from its dump: what the metrics do not hold, and what they hold where they are gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from recipe.sophiavl.report.dumps import StepDump

QUANTILES = {"gamma/q05": 0.05, "gamma/q25": 0.25, "gamma/q50": 0.5, "gamma/q75": 0.75}


@dataclass
class DumpTotals:
    """What the dumps of a run hold in all, and by step.

    Attributes:
        metrics: figures by step, by the name that the metrics use for them.
        asked, lost: responses that the TRM was asked about, and those without a score.
        errors: lost responses by error.
        unformatted: responses without the required format, of `format_known`.
    """

    responses: int = 0
    groups: int = 0
    asked: int = 0
    lost: int = 0
    unformatted: int = 0
    format_known: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    metrics: dict[int, dict[str, float]] = field(default_factory=dict)

    def add(self, dump: StepDump) -> None:
        """Take a step."""
        asked = dump.asked
        lost = asked & np.isnan(dump.numbers["thinking_reward"])
        known = ~np.isnan(dump.flags["format_ok"])
        self.responses += dump.group.size
        self.groups += len(dump.names)
        self.asked += int(asked.sum())
        self.lost += int(lost.sum())
        self.format_known += int(known.sum())
        self.unformatted += int((dump.flags["format_ok"] == 0).sum())
        self.errors.update(dump.errors[place] or "no reason given" for place in np.flatnonzero(lost))
        self.metrics[dump.step] = step_figures(dump)


def step_figures(dump: StepDump) -> dict[str, float]:
    """Means over the responses of a step; gamma counts each group with a thinking term once."""
    figures = {
        "outcome_reward/mean": _mean(dump.numbers["outcome_reward"]),
        "outcome_reward/format_ok": _mean(dump.flags["format_ok"]),
        "thinking_reward/mean": _mean(dump.numbers["thinking_reward"]),
    }
    if asked := int(dump.asked.sum()):
        scored = np.isfinite(dump.numbers["thinking_reward"][dump.asked]).sum()
        figures["thinking_reward/coverage"] = float(scored / asked)
    gamma = group_gammas(dump)
    if gamma.size:
        figures |= {"trust/gamma_mean": float(gamma.mean()), "trust/distrusted_frac": float(np.mean(gamma < 1))}
        figures |= zip(QUANTILES, np.quantile(gamma, list(QUANTILES.values())).tolist(), strict=True)
    return {name: value for name, value in figures.items() if np.isfinite(value)}


def group_gammas(dump: StepDump) -> npt.NDArray[np.float64]:
    """Gamma of each group with a thinking term, those without a gamma left out."""
    used = np.flatnonzero(dump.used)
    gamma = dump.numbers["gamma"][used[np.unique(dump.group[used], return_index=True)[1]]]
    return gamma[np.isfinite(gamma)]


def _mean(values: npt.NDArray[np.float64]) -> float:
    present = values[np.isfinite(values)]
    return float(present.mean()) if present.size else np.nan


def completed(
    logged: Mapping[int, Mapping[str, float]], dumped: Mapping[int, Mapping[str, float]]
) -> dict[int, dict[str, float]]:
    """The metrics of each step, with what only its dump tells."""
    return {step: {**dumped.get(step, {}), **logged.get(step, {})} for step in sorted({*logged, *dumped})}
