"""Whether the thinking reward can be trusted: collected a step at a time, told as points, distributions and AUC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from recipe.sophiavl.report.auc import LEVEL, RESAMPLES, AucCounts, question_weights, with_interval
from recipe.sophiavl.report.dumps import StepDump
from recipe.sophiavl.report.run_data import Auc, Trust, TrustBin, TrustPoint, Verdict
from recipe.sophiavl.report.sampling import Sample, priority

BINS = 20
DISTRIBUTION_CELLS = 11
# No better than a coin's; a TRM that is right about nothing is there, and below it one that is deceived.
WARNING = (0.0, 0.5)

_NOTES = {
    "points": "Each point is a group of a training step in which both the right and the wrong responses have scores: "
    "the mean thinking reward of either side, as the trainer used it. Below the diagonal the wrong ones scored higher: "
    "gamma is below 1 there, and the group is distrusted.",
    "distributions": "Responses that the TRM scored, by the nearest tenth of their thinking reward; right: outcome "
    "reward at or above the run's threshold of correctness. Responses whose thinking reward is 0 by rule are left out.",
    "auc": "The chance that a right response has a higher thinking reward than a wrong one (ties count one half) over "
    "all responses of the steps that the TRM scored, and over pairs of the same group alone. Scores are rounded to "
    f"1/1000. Intervals: {LEVEL:.0%} of {RESAMPLES} Poisson bootstrap resamples that draw whole questions. At 0.5 and "
    "below the thinking reward tells right from wrong no better than a coin.",
}


class TrustCollector:
    """Takes the dumps of a run in the order of their steps.

    Args:
        steps: all steps that have a dump, ascending: they are cut into at most `BINS` bins.
        points: how many points are kept at most.
    """

    def __init__(self, steps: Sequence[int], *, points: int, seed: int) -> None:
        parts = np.array_split(np.array(steps, dtype=int), min(BINS, len(steps)) or 1)
        self._bins = [part.tolist() for part in parts if part.size]
        side = max(1, len(self._bins) // 5)
        self._first = set().union(*self._bins[:side]) if len(self._bins) > 1 else set()
        self._last = set().union(*self._bins[-side:]) if len(self._bins) > 1 else set()
        self._early, self._late, self._now = AucCounts(), AucCounts(), AucCounts()
        self._done: list[TrustBin] = []
        self._points: Sample[TrustPoint] = Sample(points)
        self._seed = seed
        self._groups = self._distrusted = 0

    def add(self, dump: StepDump, right: npt.NDArray[np.bool_]) -> None:
        """Take a step.

        Args:
            right: which responses are on the correct side, shape (B,).
        """
        self._advance(dump.step)
        thinking = dump.numbers["thinking_reward"]
        scored = dump.asked & np.isfinite(thinking) & np.isfinite(dump.numbers["outcome_reward"])
        if scored.any():
            weights = question_weights(dump.questions, self._seed)
            for counts, steps in ((self._now, None), (self._early, self._first), (self._late, self._last)):
                if steps is None or dump.step in steps:
                    counts.add(thinking[scored], right[scored], dump.group[scored], weights)
        self._add_groups(dump)

    def _advance(self, step: int) -> None:
        """End the bins before the one that holds the step."""
        while len(self._done) < len(self._bins) and step > self._bins[len(self._done)][-1]:
            self._end_bin()

    def _end_bin(self) -> None:
        steps = self._bins[len(self._done)]
        right, wrong = self._now.distribution(DISTRIBUTION_CELLS)
        pooled, within = _aucs(self._now)
        self._done.append(TrustBin(steps[0], steps[-1], right, wrong, pooled, within))
        self._now = AucCounts()

    def _add_groups(self, dump: StepDump) -> None:
        members = np.flatnonzero(dump.used)
        first = members[np.unique(dump.group[members], return_index=True)[1]]
        gamma, correct, wrong = (dump.numbers[name][first] for name in ("gamma", "mu_correct", "mu_wrong"))
        self._groups += int(np.isfinite(gamma).sum())
        self._distrusted += int((gamma < 1).sum())
        sizes = np.bincount(dump.group)
        for place in np.flatnonzero(np.isfinite(gamma) & np.isfinite(correct) & np.isfinite(wrong)):
            group = dump.group[first[place]]
            values = float(correct[place]), float(wrong[place]), float(gamma[place]), int(sizes[group])
            rank = priority(self._seed, dump.step, dump.names[group])
            self._points.offer(rank, lambda values=values: TrustPoint(dump.step, *values))

    def finish(self) -> Trust | None:
        """What was found; None where no response had a thinking reward."""
        while len(self._done) < len(self._bins):
            self._end_bin()
        if not self._groups and not any(sum(one.right) + sum(one.wrong) for one in self._done):
            return None
        points = sorted(self._points, key=lambda point: point.step)
        notes = dict(_NOTES)
        if self._points.seen > len(points):
            notes["points"] += f" Shown are {len(points):,} of {self._points.seen:,}, drawn at random."
        return Trust(
            points=points,
            points_of=self._points.seen,
            groups=self._groups,
            distrusted=self._distrusted,
            cells=[place / (DISTRIBUTION_CELLS - 1) for place in range(DISTRIBUTION_CELLS)],
            bins=self._done,
            warning=WARNING,
            verdict=self._verdict(),
            notes=notes,
        )

    def _verdict(self) -> Verdict:
        if not self._first:
            text = "One training step tells nothing about the course of the AUC of the thinking reward."
            return Verdict("unknown", text, Auc(None, reason="one step"))
        change = self._late.pooled() - self._early.pooled()
        reason = self._late.why_none() or self._early.why_none()
        spans = {"first": self._first, "last": self._last}
        return verdict(_aucs(self._early), _aucs(self._late), with_interval(change, reason), spans)


def _aucs(counts: AucCounts) -> tuple[Auc, Auc]:
    """Over all pairs, and over those of one group."""
    within = counts.why_none() or "no group has scored responses of both sides"
    return with_interval(counts.pooled(), counts.why_none()), with_interval(counts.within(), within)


def verdict(early: tuple[Auc, Auc], late: tuple[Auc, Auc], change: Auc, spans: Mapping[str, set[int]]) -> Verdict:
    """A sentence on what became of the AUC.

    Args:
        early, late: over all pairs, and over those of one group.
        spans: the steps of the ``first`` part and of the ``last``.
    """
    names = {name: f"steps {min(steps)} to {max(steps)}" for name, steps in spans.items()}
    if change.value is None:
        return Verdict(
            "unknown",
            "Whether the thinking reward still tells right answers from wrong ones can't be said: "
            f"no AUC for {names['first'] if early[0].value is None else names['last']} "
            f"({early[0].reason or late[0].reason or change.reason}).",
            change,
        )
    course = f"{shown(early[0])} in {names['first']}, {shown(late[0])} in {names['last']}"
    if late[1].value is not None:
        course += f" (within groups there {shown(late[1])})"
    if change.low is None:
        return Verdict("unknown", f"AUC of the thinking reward: {course}; {change.reason}.", change)
    told = f"change {change.value:+.2f}, 95 % interval {change.low:+.2f} to {change.high:+.2f}"
    if change.high < 0:
        return Verdict(
            "warning",
            f"The thinking reward tells right answers from wrong ones less well than at the start: AUC {course}; "
            f"{told}. That can be an early sign of a thinking reward that is being hacked: read the gallery's right "
            "thinking with wrong answers.",
            change,
        )
    if late[0].low is not None and late[0].low <= 0.5:
        worse = late[0].high < 0.5
        what = "worse than a coin" if worse else "no better than a coin, as far as these data show"
        return Verdict(
            "warning", f"The thinking reward tells right answers from wrong ones {what}: AUC {course}; {told}.", change
        )
    trend = "better than at the start" if change.low > 0 else "as well as at the start, as far as these data show"
    text = f"The thinking reward tells right answers from wrong ones {trend}: AUC {course}; {told}."
    return Verdict("ok", text, change)


def shown(auc: Auc) -> str:
    """``0.81 [0.78, 0.84]``."""
    return f"{auc.value:.2f}" + (f" [{auc.low:.2f}, {auc.high:.2f}]" if auc.low is not None else "")
