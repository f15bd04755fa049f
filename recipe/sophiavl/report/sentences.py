"""What a reader should know after ten seconds, in plain sentences with numbers: pure functions of what was read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import t

from recipe.sophiavl.report.logs import Steps, series
from recipe.sophiavl.report.run_data import Sentence, Trust
from recipe.sophiavl.report.settings_words import RunConfig, data_names, method, policy
from recipe.sophiavl.report.step_figures import DumpTotals
from recipe.sophiavl.report.summary import CORRELATION, Change

# A share below this is told as no problem, one above it as one.
_MANY = 0.05
DIFFERENCE = "training/rollout_probs_diff_mean"
_STALL_TIMES, _STALL_S = 5.0, 30.0


def what(config: RunConfig) -> list[Sentence]:
    """What was trained on what, and how."""
    who, data, how = policy(config), data_names(config, "data.train_files"), method(config)
    if not (who or data or how):
        return []
    on = f" on {data}" if data else ""
    by = f" with {how}" if how else ""
    prompts, responses = config.number("data.train_batch_size"), config.number("actor_rollout_ref.rollout.n")
    size = f", {prompts:.0f} questions x {responses:.0f} responses a step" if prompts and responses else ""
    return [Sentence("what", f"{who or 'A policy'} was trained{on}{by}{size}.")]


def extent(done: int, planned: int | None, finished: bool, totals: DumpTotals, started: int) -> Sentence:
    """How many steps of how many, and of how many responses."""
    of = f" of {planned}" if planned else ""
    plural = "" if done == 1 else "s"
    ends = "; the run came to its end" if finished else "; the run goes on or was stopped"
    read = f", {totals.responses:,} responses in {totals.groups:,} groups" if totals.responses else ""
    starts = f" It was started {started} times." if started > 1 else ""
    return Sentence("progress", f"{done}{of} training step{plural}{read}{ends}.{starts}")


def progress(changes: Sequence[Change], steps: Steps) -> list[Sentence]:
    """How far the outcome came: each way of validation, and training."""
    found = []
    for change in changes:
        if change.name == "outcome reward" and "validation" in change.group:
            found.append(Sentence("progress", _validated(change)))
    if not found:
        found.append(Sentence("missing", "The run was not validated: how far it came is told by training alone."))
    if trained := _trained(series(steps, "outcome_reward/mean")):
        found.append(Sentence("progress", trained))
    return found


def _validated(change: Change) -> str:
    group = change.group[0].upper() + change.group[1:]
    if change.after is None or change.difference is None:
        return f"{group}: outcome reward {change.before.mean:.3f}{_interval(change.before.mean, change.before.error)}."
    difference = change.difference
    if difference.error is None:
        verb = "went"
    elif abs(difference.mean) > 1.96 * difference.error:
        verb = "rose" if difference.mean > 0 else "fell"
    else:
        verb = "did not change as far as these questions show:"
    paired = ", each question compared with itself" if change.paired else ""
    interval = _interval(difference.mean, difference.error, sign="+")
    return (
        f"{group}: the outcome reward {verb} from {change.before.mean:.3f} to {change.after.mean:.3f} "
        f"({difference.mean:+.3f}{interval}{paired})."
    )


def _interval(mean: float, error: float | None, sign: str = "") -> str:
    if error is None:
        return ""
    return f", 95 % interval {mean - 1.96 * error:{sign}.3f} to {mean + 1.96 * error:{sign}.3f}"


def _trained(outcome: Mapping[int, float]) -> str | None:
    """The first fifth of the steps against the last one, with Welch's interval over steps."""
    values = list(outcome.values())
    if len(values) < 2:
        return f"Training: outcome reward {values[0]:.3f} at its one step." if values else None
    width = max(1, len(values) // 5)
    first, last = np.array(values[:width]), np.array(values[-width:])
    text = f"Training: the outcome reward went from {first.mean():.3f} to {last.mean():.3f}"
    if width < 3:
        return f"{text} (first and last {'step' if width == 1 else f'{width} steps'})."
    error = math.hypot(first.std(ddof=1), last.std(ddof=1)) / math.sqrt(width)
    reach = float(t.ppf(0.975, width - 1)) * error
    change = float(last.mean() - first.mean())
    return (
        f"{text} (first and last {width} steps; {change:+.3f}, 95 % interval {change - reach:+.3f} to "
        f"{change + reach:+.3f}, steps taken as independent)."
    )


def problems(config: RunConfig, steps: Steps, totals: DumpTotals, trust: Trust | None) -> list[Sentence]:
    """What went wrong, or was looked for and not found."""
    found = []
    if config.thinking:
        found += [_verdict(trust), _lost(steps, totals)]
    found += [_format(totals), _clipped(steps), _mismatch(config, steps), _stalls(steps)]
    told = [sentence for sentence in found if sentence is not None]
    return sorted(told, key=lambda sentence: sentence.kind != "problem")


def _verdict(trust: Trust | None) -> Sentence | None:
    if trust is None or trust.verdict is None:
        return None
    kind = {"ok": "fine", "warning": "problem", "unknown": "missing"}[trust.verdict.level]
    share = ""
    if trust.groups:
        share = (
            f" {trust.distrusted:,} of {trust.groups:,} groups ({trust.distrusted / trust.groups:.0%}) were distrusted."
        )
    return Sentence(kind, trust.verdict.text + share)


def _lost(steps: Steps, totals: DumpTotals) -> Sentence | None:
    if not totals.asked:
        return Sentence("missing", "The TRM was asked about no response, as far as the dumps tell.")
    if not totals.lost:
        return Sentence("fine", f"No thinking score was lost, of {totals.asked:,}.")
    kinds = ", ".join(f"{kind[:100]} ({count:,})" for kind, count in totals.errors.most_common(3))
    lowest = series(steps, "thinking_reward/group_coverage")
    dropped = f" Groups that kept their thinking term: {min(lowest.values()):.0%} at the worst step." if lowest else ""
    text = f"{totals.lost:,} of {totals.asked:,} thinking scores were lost ({totals.lost / totals.asked:.1%}): {kinds}."
    return Sentence("problem", text + dropped)


def _format(totals: DumpTotals) -> Sentence | None:
    if not totals.format_known:
        return None
    share = totals.unformatted / totals.format_known
    text = f"{totals.unformatted:,} of {totals.format_known:,} responses ({share:.1%}) lacked the required format"
    by_step = [data.get("outcome_reward/format_ok") for data in totals.metrics.values()]
    known = [value for value in by_step if value is not None]
    width = max(1, len(known) // 5)
    early, late = (1 - float(np.mean(part)) for part in (known[:width], known[-width:]))
    if len(known) > 1:
        text += f": {early:.1%} in the first fifth of the steps, {late:.1%} in the last"
    return Sentence("problem" if late > _MANY else "fine", f"{text}.")


def _clipped(steps: Steps) -> Sentence | None:
    values = list(series(steps, "response_length/clip_ratio").values())
    if not values:
        return None
    width = max(1, len(values) // 5)
    late = float(np.mean(values[-width:]))
    text = (
        f"{np.mean(values):.1%} of the responses reached the length limit, {late:.1%} in the last fifth of the steps "
        f"(at most {max(values):.1%} in a step)."
    )
    return Sentence("problem" if late > _MANY else "fine", text)


def _mismatch(config: RunConfig, steps: Steps) -> Sentence | None:
    values = series(steps, CORRELATION)
    if not values:
        return None
    least = config.number("sophiavl.min_rollout_correlation") or 0.95
    worst = min(values, key=values.get)
    # As the guard counts: a nearly deterministic policy has no spread to correlate.
    apart = series(steps, DIFFERENCE)
    most = config.number("sophiavl.max_rollout_diff") or 0.0
    below = sum(value < least and apart.get(step, 1.0) > most for step, value in values.items())
    text = f"Rollout and actor: lowest correlation of their token probabilities {values[worst]:.4f} (step {worst})"
    if below:
        return Sentence("problem", f"{text}; below {least:g} at {below} of {len(values)} steps.")
    return Sentence("fine", f"{text}.")


def _stalls(steps: Steps) -> Sentence | None:
    seconds = series(steps, "timing_s/step")
    if len(seconds) < 3:
        return None
    usual = float(np.median(list(seconds.values())))
    slow = {step: value for step, value in seconds.items() if value > max(_STALL_TIMES * usual, usual + _STALL_S)}
    if not slow:
        return Sentence(
            "fine", f"No step stalled: {usual:.1f} s is the median, {max(seconds.values()):.1f} s the longest."
        )
    worst = max(slow, key=slow.get)
    plural = "step" if len(slow) == 1 else "steps"
    return Sentence(
        "problem",
        f"{len(slow)} {plural} took more than {_STALL_TIMES:.0f} times as long as the median of {usual:.1f} s: the "
        f"longest was step {worst} with {slow[worst]:.0f} s; together they cost {sum(slow.values()) / 60:.0f} min.",
    )
