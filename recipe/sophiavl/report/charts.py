"""The small multiples: which metrics are drawn together, with what note; one meaning an axis."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from recipe.sophiavl.report.run_data import Chart, Line, RunData, SeedGroup, TrustBin, ValidationRow
from recipe.sophiavl.report.trust_data import WARNING

Curves = Mapping[str, tuple[Sequence[int], Sequence[float]]]

_STAGES = "timing_s/"
_WHOLE_STEP = "timing_s/step"


@dataclass(frozen=True)
class _Spec:
    """A chart: each metric with its legend's label; the first stands for the run where several runs are overlaid."""

    key: str
    title: str
    metrics: tuple[tuple[str, str], ...]
    note: str
    unit: str = ""
    limits: tuple[float, float] | None = None
    warning: tuple[float, float] | None = None


_SHARE = (0.0, 1.0)
_SPECS = (
    _Spec("outcome", "Outcome reward", (("outcome_reward/mean", "mean"),), "Mean over a step's responses.", "", _SHARE),
    _Spec(
        "thinking",
        "Thinking reward",
        (("thinking_reward/mean", "mean"),),
        "Mean over a step's responses that have one; a response without the required format counts as 0.",
        "",
        _SHARE,
    ),
    _Spec(
        "gamma",
        "Trust weight gamma",
        (("trust/gamma_mean", "mean"), ("gamma/q50", "median"), ("gamma/q25", "25 %"), ("gamma/q05", "5 %")),
        "Mean and quantiles over a step's groups with a thinking term, each group once (quantiles interpolate "
        "linearly). 1: the right responses scored no lower than the wrong ones.",
        "",
        _SHARE,
    ),
    _Spec(
        "distrusted",
        "Distrusted groups",
        (("trust/distrusted_frac", "share"),),
        "Share of a step's groups with a thinking term whose gamma is below 1.",
        "share",
        _SHARE,
    ),
    _Spec(
        "annealing",
        "Annealing",
        (("thinking_reward/anneal", "factor"),),
        "The factor of the thinking term at each step, as computed from the schedule.",
        "",
        _SHARE,
    ),
    _Spec(
        "coverage",
        "Coverage",
        (("thinking_reward/coverage", "responses"), ("thinking_reward/group_coverage", "groups")),
        "Share of the responses that the TRM was asked about which have their score, and of the groups that kept their "
        "thinking term.",
        "share",
        _SHARE,
    ),
    _Spec(
        "format",
        "Required format",
        (("outcome_reward/format_ok", "share"),),
        "Share of a step's responses with the required format.",
        "share",
        _SHARE,
    ),
    _Spec(
        "length",
        "Response length",
        (("response_length/mean", "mean"), ("response_length/max", "longest")),
        "Over a step's responses, as verl counts them.",
        "tokens",
    ),
    _Spec(
        "clipped",
        "Clipped responses",
        (("response_length/clip_ratio", "share"),),
        "Share of a step's responses that reach the length limit.",
        "share",
        _SHARE,
    ),
    _Spec(
        "kl",
        "KL to the reference policy",
        (("actor/kl_loss", "estimate"),),
        "verl's estimate over a step's tokens, before its coefficient.",
    ),
    _Spec("entropy", "Entropy", (("actor/entropy", "mean"),), "Of the policy, mean over a step's tokens.", "nats"),
    _Spec("gradient", "Gradient norm", (("actor/grad_norm", "norm"),), "Of the policy, before clipping."),
    _Spec(
        "rollout",
        "Rollout against actor",
        (("training/rollout_actor_probs_pearson_corr", "correlation"),),
        "Pearson's correlation of the token probabilities that vLLM and the actor compute for the same responses.",
    ),
    _Spec(
        "latency",
        "Latency of a thinking reward",
        (("thinking_reward/latency_p95", "95 %"), ("thinking_reward/latency_p50", "median")),
        "From question to score, with retries, over a step's responses that the TRM was asked about.",
        "s",
    ),
)
DRAWN = frozenset(metric for spec in _SPECS for metric, _ in spec.metrics)


def drawn(metric: str) -> bool:
    """Whether a metric is part of a chart."""
    return metric in DRAWN or metric.startswith(_STAGES) or _answer_type(metric) is not None


def _answer_type(metric: str) -> str | None:
    """The answer type of ``outcome_reward/ocr/mean``."""
    parts = metric.split("/")
    return parts[1] if len(parts) == 3 and parts[0] == "outcome_reward" and parts[2] == "mean" else None


def charts(curves: Curves, validation: Sequence[ValidationRow], bins: Sequence[TrustBin], points: int) -> list[Chart]:
    """The charts of one run, those that have a line."""
    made = []
    for spec in _SPECS:
        lines = [Line(label, *curves[metric]) for metric, label in spec.metrics if metric in curves]
        made.append(_chart(spec, lines))
        if spec.key == "outcome":
            made += [_by_type(curves), _validated(validation)]
    made += [_auc(bins), _stages(curves)]
    return [thinned(chart, points) for chart in made if chart.lines]


def _chart(spec: _Spec, lines: Sequence[Line]) -> Chart:
    return Chart(spec.key, spec.title, spec.unit, lines, spec.note, spec.limits, warning=spec.warning)


def _by_type(curves: Curves) -> Chart:
    lines = [Line(kind.replace("_", " "), *curves[name]) for name in sorted(curves) if (kind := _answer_type(name))]
    note = "Mean over a step's responses to questions of a type, where several are mixed."
    return Chart("outcome_by_type", "Outcome reward by answer type", "", lines, note, _SHARE)


def _validated(rows: Sequence[ValidationRow]) -> Chart:
    note = (
        "Mean over the validation questions, each the mean of its responses; the band is the 95 % interval of that "
        "mean (1.96 standard errors over questions)."
    )
    modes = dict.fromkeys(row.mode for row in rows)
    lines = [validation_line(rows, mode) for mode in modes]
    return Chart("validation", "Outcome reward in validation", "", [one for one in lines if one.steps], note, _SHARE)


def validation_line(rows: Iterable[ValidationRow], mode: str) -> Line:
    """The outcome reward of all validation questions in one way of validation."""
    own = [row for row in rows if (row.mode, row.variable, row.kind) == (mode, "outcome_reward", None)]
    means = [row.mean for row in own]
    band = {}
    if own and all(row.stderr is not None for row in own):
        band = {
            "low": [max(0.0, row.mean - 1.96 * row.stderr) for row in own],
            "high": [min(1.0, row.mean + 1.96 * row.stderr) for row in own],
        }
    return Line(mode.replace("_", " "), [row.step for row in own], means, **band)


def _auc(bins: Sequence[TrustBin]) -> Chart:
    note = (
        "The chance that a right response has a higher thinking reward than a wrong one, ties counting one half: over "
        "all scored responses of some steps in a row, and within groups. Drawn at the last of these steps; the band is "
        "the 95 % interval (bootstrap over questions). In the marked range it is no better than a coin."
    )
    lines = []
    for label, name in (("all pairs", "auc"), ("within groups", "auc_within")):
        found = [(one.last, getattr(one, name)) for one in bins if getattr(one, name).value is not None]
        band = {}
        if found and all(auc.low is not None for _, auc in found):
            band = {"low": [auc.low for _, auc in found], "high": [auc.high for _, auc in found]}
        if found:
            lines.append(Line(label, [step for step, _ in found], [auc.value for _, auc in found], **band))
    title = "AUC of the thinking reward for right answers"
    return Chart("auc", title, "", lines, note, _SHARE, warning=WARNING)


def _stages(curves: Curves) -> Chart:
    """The stages of a step, and what is left of its time: they add up to it; a stage that a step has not is 0."""
    names = sorted(name for name in curves if name.startswith(_STAGES) and name != _WHOLE_STEP and name.count("/") == 1)
    steps, whole = curves.get(_WHOLE_STEP, ([], []))
    parts = {name: dict(zip(*curves[name], strict=True)) for name in names}
    stages = {name: [part.get(step, 0.0) for step in steps] for name, part in parts.items()}
    lines = [Line(name.removeprefix(_STAGES), steps, values) for name, values in stages.items() if steps]
    if steps:
        known = np.sum(list(stages.values()), axis=0) if stages else np.zeros(len(steps))
        lines.append(Line("other", steps, np.maximum(np.asarray(whole) - known, 0.0).tolist()))
    note = "Seconds of each stage, as verl measures them; other: what is left of the whole step's"
    return Chart("time", "Time of a step by stage", "s", lines, f"{note}.", kind="stack")


def thinned(chart: Chart, points: int) -> Chart:
    """The chart with at most so many points a line: more steps are averaged in blocks, which the note says."""
    if all(len(line.steps) <= points for line in chart.lines):
        return chart
    lines = [_blocks(line, points) for line in chart.lines]
    return replace(chart, lines=lines, note=f"{chart.note} Averaged over blocks of steps, {points} a line.")


def _blocks(line: Line, points: int) -> Line:
    if len(line.steps) <= points:
        return line
    parts = np.array_split(np.arange(len(line.steps)), points)

    def means(values: Sequence[float] | None) -> list[float] | None:
        return None if values is None else [float(np.mean(np.asarray(values)[part])) for part in parts]

    steps = [int(line.steps[part[-1]]) for part in parts]
    return replace(line, steps=steps, values=means(line.values), low=means(line.low), high=means(line.high))


def compared(runs: Sequence[RunData], groups: Sequence[SeedGroup], points: int) -> list[Chart]:
    """The charts of several runs: a line for each group of seeds, their mean with the lowest and highest as a band."""
    made = []
    for spec in _SPECS:
        metric, label = spec.metrics[0]
        lines = _overlaid(groups, [run.curves.get(metric) for run in runs])
        note = f"{spec.note} Drawn: {label}." if len(spec.metrics) > 1 else spec.note
        made.append(replace(_chart(spec, lines), note=note))
        if spec.key == "outcome":
            made.append(_compared_validations(runs, groups))
    auc = [_as_curve(_auc(run.trust.bins) if run.trust else None) for run in runs]
    made.append(replace(_auc([]), lines=_overlaid(groups, auc)))
    whole = _overlaid(groups, [run.curves.get(_WHOLE_STEP) for run in runs])
    made.append(Chart("time", "Time of a step", "s", whole, "Seconds of a whole step, as verl measures them."))
    seeds = any(len(group.runs) > 1 for group in groups)
    word = " Of several seeds: the mean over them at the steps that all have, the band from the lowest to the highest."
    drawn_charts = [replace(chart, note=chart.note + word * seeds) for chart in made if chart.lines]
    return [thinned(chart, points) for chart in drawn_charts]


def _as_curve(chart: Chart | None) -> tuple[Sequence[int], Sequence[float]] | None:
    return (chart.lines[0].steps, chart.lines[0].values) if chart and chart.lines else None


def _compared_validations(runs: Sequence[RunData], groups: Sequence[SeedGroup]) -> Chart:
    modes = dict.fromkeys(row.mode for run in runs for row in run.validation)
    lines = []
    for mode in modes:
        own = [validation_line(run.validation, mode) for run in runs]
        curves = [(line.steps, line.values) if line.steps else None for line in own]
        found = _overlaid(groups, curves)
        which = f", {mode.replace('_', ' ')}" if len(modes) > 1 else ""
        lines += [replace(line, label=f"{line.label}{which}") for line in found]
    note = "Mean over the validation questions, each the mean of its responses."
    return Chart("validation", "Outcome reward in validation", "", lines, note, _SHARE)


def _overlaid(
    groups: Sequence[SeedGroup], curves: Sequence[tuple[Sequence[int], Sequence[float]] | None]
) -> list[Line]:
    lines = []
    for place, group in enumerate(groups):
        own = [dict(zip(*curves[run], strict=True)) for run in group.runs if curves[run] is not None]
        steps = sorted(set.intersection(*map(set, own))) if own else []
        if not steps:
            continue
        values = np.array([[curve[step] for step in steps] for curve in own])
        band = {"low": values.min(axis=0).tolist(), "high": values.max(axis=0).tolist()} if len(own) > 1 else {}
        lines.append(Line(group.label, steps, values.mean(axis=0).tolist(), run=place, **band))
    return lines
