"""The kinds of groups that a reader looks for, and a sample of each, taken a step at a time without any text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from recipe.sophiavl.report.dumps import StepDump
from recipe.sophiavl.report.run_data import Stratum
from recipe.sophiavl.report.sampling import Sample, priority

Bools = npt.NDArray[np.bool_]

LOW, HIGH = 0.3, 0.7
ORDINARY = "ordinary"
DISTRUSTED = "distrusted"
_OF_GROUPS = (DISTRUSTED, ORDINARY)  # no single response makes its group one


@dataclass(frozen=True)
class Kind:
    """A stratum before anything was counted; `of` tells which responses make their group one."""

    key: str
    label: str
    meaning: str
    of: Callable[[StepDump, Bools], Bools]


def _scored(dump: StepDump) -> npt.NDArray[np.float64]:
    """Thinking rewards that the TRM gave; NaN elsewhere, which compares False."""
    return np.where(dump.asked, dump.numbers["thinking_reward"], np.nan)


KINDS = (
    Kind(
        "wrong_thinking_right_answer",
        "wrong thinking, right answer",
        f"A right response (outcome at the threshold or above) with a thinking reward of {LOW} or less.",
        lambda dump, right: right & (_scored(dump) <= LOW),
    ),
    Kind(
        "right_thinking_wrong_answer",
        "right thinking, wrong answer",
        f"A wrong response (outcome below the threshold) with a thinking reward of {HIGH} or more.",
        lambda dump, right: (dump.numbers["outcome_reward"] >= 0) & ~right & (_scored(dump) >= HIGH),
    ),
    Kind(
        DISTRUSTED,
        "distrusted",
        "The wrong responses of the group scored higher than its right ones: gamma is below 1.",
        lambda dump, right: dump.used & (dump.numbers["gamma"] < 1),
    ),
    Kind(
        "format_failure",
        "format failure",
        "A response without the required format: outcome 0, and the TRM was not asked.",
        lambda dump, right: dump.flags["format_ok"] == 0,
    ),
    Kind(
        "missing_score",
        "missing score",
        "The TRM was asked about a response and its score is missing.",
        lambda dump, right: dump.asked & np.isnan(dump.numbers["thinking_reward"]),
    ),
)


@dataclass(frozen=True)
class GroupRef:
    """Where a group's responses are.

    Attributes:
        offsets: of their lines in the file, in bytes.
        flags: keys of the kinds that each response makes its group one of.
        strata: keys of the kinds of the group.
        right: of each response, whether it is right.
    """

    step: int
    file: Path
    name: str
    offsets: Sequence[int]
    flags: Sequence[Sequence[str]]
    strata: Sequence[str]
    right: Sequence[bool]


class StrataCollector:
    """Takes the dumps of a run, and keeps some groups of each kind.

    Args:
        size: how many groups are chosen in all.

    Attributes:
        groups: how many were seen.
    """

    def __init__(self, *, size: int, seed: int) -> None:
        self._size, self._seed = size, seed
        keys = [*(kind.key for kind in KINDS), ORDINARY]
        self._samples: dict[str, Sample[GroupRef]] = {key: Sample(size) for key in keys}
        self._responses = dict.fromkeys(keys, 0)
        self.groups = 0

    def add(self, dump: StepDump, right: Bools) -> None:
        """Take a step; `right` as for `TrustCollector.add`."""
        flags = {kind.key: kind.of(dump, right) for kind in KINDS}
        groups = len(dump.names)
        self.groups += groups
        found = {key: np.bincount(dump.group[flag], minlength=groups) > 0 for key, flag in flags.items()}
        found[ORDINARY] = ~np.any(list(found.values()), axis=0)
        flags[ORDINARY] = found[ORDINARY][dump.group]
        for key, flag in flags.items():
            self._responses[key] += int(flag.sum())
        for group, name in enumerate(dump.names):
            strata = [key for key, of in found.items() if of[group]]
            rank = priority(self._seed, dump.step, name)
            for key in strata:
                self._samples[key].offer(rank, lambda: _ref(dump, flags, group, strata, right))  # noqa: B023 (called at once)

    def counts(self) -> list[Stratum]:
        """How many groups and responses of each kind there are."""
        told = {kind.key: (kind.label, kind.meaning) for kind in KINDS}
        told[ORDINARY] = (ORDINARY, "None of the other kinds.")
        return [
            Stratum(key, *told[key], groups=sample.seen, responses=self._responses[key])
            for key, sample in self._samples.items()
        ]

    def chosen(self) -> list[GroupRef]:
        """The groups to show, by step: the kinds take turns, each with the next of its sample, until all are taken."""
        taken: dict[tuple[int, str], GroupRef] = {}
        waiting = [iter(sample) for sample in self._samples.values()]
        while waiting and len(taken) < self._size:
            left = []
            for sample in waiting:
                new = next((ref for ref in sample if (ref.step, ref.name) not in taken), None)
                if new is not None and len(taken) < self._size:
                    taken[new.step, new.name] = new
                    left.append(sample)
            waiting = left
        return sorted(taken.values(), key=lambda ref: (ref.step, ref.name))


def _ref(dump: StepDump, flags: dict[str, Bools], group: int, strata: Sequence[str], right: Bools) -> GroupRef:
    members = np.flatnonzero(dump.group == group)
    own = [[key for key, flag in flags.items() if flag[member] and key not in _OF_GROUPS] for member in members]
    offsets = dump.offsets[members].tolist()
    return GroupRef(dump.step, dump.file, dump.names[group], offsets, own, strata, right[members].tolist())
