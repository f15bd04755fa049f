"""The report as one HTML page: sentences, curves, trust, and a gallery of groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from page_kit.charts import SERIES, Series, line_chart
from page_kit.page import Figure, Table, render
from page_kit.text import number, with_error
from recipe.sophiavl.report.run_data import (
    Chart,
    Comparison,
    Line,
    RunData,
    SeedGroup,
    Sentence,
    ValidationRow,
    Verdict,
)
from recipe.sophiavl.report.trust_figures import trust_figures

_TEMPLATES = Path(__file__).parent / "templates"
_AUC = "auc"  # drawn beside the other pictures of trust
_SECTIONS = {
    "Rewards": ("outcome", "outcome_by_type", "validation", "thinking", "annealing"),
    "Trust weight": ("gamma", "distrusted", "coverage"),
    "Responses": ("format", "length", "clipped"),
    "Optimisation": ("kl", "entropy", "gradient", "rollout"),
    "Time": ("time", "latency"),
}
_OTHER = "More"
_VALIDATED = ("outcome_reward", "thinking_reward", "format_ok")
_STEP = "step"


@dataclass(frozen=True)
class _Run:
    """What the page's sentences and tables show of a run."""

    name: str
    sentences: Sequence[Sentence]
    validation: Table | None
    settings: Table | None
    metrics: Table | None


@dataclass(frozen=True)
class _Trust:
    name: str
    verdict: Verdict | None
    figures: Sequence[Figure]


def alone(run: RunData) -> Comparison:
    """A single run as a comparison of one."""
    return Comparison([run], [SeedGroup(run.name, [0], [])], run.charts)


def report_page(comparison: Comparison) -> str:
    """The page of one run or of several, complete in itself."""
    runs, charts = comparison.runs, comparison.charts
    several = len(comparison.groups) > 1
    figures = {chart.key: _figure(chart, several=several, wide=chart.key == _AUC) for chart in charts}
    auc = figures.pop(_AUC, None)
    trusts = [_Trust(run.name, run.trust.verdict, trust_figures(run.trust)) for run in runs if run.trust is not None]
    return render(
        _TEMPLATES / "report.html",
        styles=[_TEMPLATES / "report.css"],
        scripts=[_TEMPLATES / "gallery.js"],
        title=runs[0].name if len(runs) == 1 else f"{len(runs)} runs compared",
        subtitle=_extent(runs[0]) if len(runs) == 1 else ", ".join(run.folder for run in runs),
        told=comparison.sentences,
        runs=[_run(run) for run in runs],
        legend=_legend(comparison.groups) if several else (),
        curves=_sections(figures),
        auc=auc,
        trust=trusts,
        gallery=_gallery(runs),
        gallery_note=" ".join(dict.fromkeys(run.gallery.note for run in runs if run.gallery is not None)),
    )


def _extent(run: RunData) -> str:
    steps = f"{run.steps:,} of {run.planned:,} steps" if run.planned else f"{run.steps:,} steps"
    state = "finished" if run.finished else "not finished"
    return f"{steps} · {run.responses:,} responses in {run.groups:,} groups · {state} · {run.folder}"


def _run(run: RunData) -> _Run:
    metrics = [
        (name, len(values), *(number(value, 4) for value in (values[0], values[-1], min(values), max(values))))
        for name, (_, values) in run.curves.items()
        if values
    ]
    settings = [(one.label, one.value, one.key) for one in run.settings]
    return _Run(
        name=run.name,
        sentences=run.sentences,
        validation=_validation(run.validation),
        settings=Table(("setting", "value", "key"), settings, texts=3) if settings else None,
        metrics=Table(("metric", "steps", "first", "last", "lowest", "highest"), metrics) if metrics else None,
    )


def _validation(rows: Sequence[ValidationRow]) -> Table | None:
    """The first and the last validation of everything that was validated; None where nothing was."""
    found: dict[tuple[str, ...], list[ValidationRow]] = {}
    for row in sorted(rows, key=lambda row: (_VALIDATED.index(row.variable), row.mode, row.kind or "")):
        name = tuple(part.replace("_", " ") for part in (row.variable, row.mode, row.kind or "all"))
        found.setdefault(name, []).append(row)
    lines = []
    for name, same in found.items():
        first, last = min(same, key=lambda row: row.step), max(same, key=lambda row: row.step)
        change = last.mean - first.mean if last.step > first.step else None
        shown = [with_error(row.mean, row.stderr) for row in (first, last)]
        after = shown[1] if change is not None else number(None)
        lines.append((*name, first.step, shown[0], last.step, after, number(change, sign="+"), number(last.count, 0)))
    heads = ("validated", "way", "answer type", "first step", "mean", "last step", "mean", "change", "questions")
    note = "± is one standard error over the questions."
    return Table(heads, lines, note=note, texts=3) if lines else None


def _sections(figures: dict[str, Figure]) -> list[tuple[str, list[Figure]]]:
    """The charts under their headings, in the order of the headings; what has no heading comes last."""
    left = dict(figures)
    found = [(name, [left.pop(key) for key in keys if key in left]) for name, keys in _SECTIONS.items()]
    return [(name, some) for name, some in [*found, (_OTHER, list(left.values()))] if some]


def _figure(chart: Chart, *, several: bool, wide: bool = False) -> Figure:
    series = _runs_series(chart.lines) if several else _series(chart.lines)
    if not series:
        return Figure(chart.title, None, chart.note, chart.unit, anchor=f"chart-{chart.key}")
    svg, readout = line_chart(
        series,
        xlabel=_STEP,
        limits=chart.limits,
        stacked=chart.kind == "stack" and not several,
        warning=chart.warning,
        size=(6.2, 3) if wide else (4.2, 2.5),
        description=chart.title,
    )
    # What a colour stands for is said once for all charts of several runs, unless a run has several lines.
    if not several:
        legend = [(one.colour, one.label) for one in series]
    elif any(one.dash for one in series):
        legend = [(f"{one.colour} dash{one.dash % 4}", one.label) for one in series]
    else:
        legend = []
    if chart.warning is not None:
        legend.append(("warn", "calls for attention"))
    shown = legend if len(legend) > 1 or several else ()
    return Figure(chart.title, svg, chart.note, chart.unit, shown, readout, f"chart-{chart.key}")


def _series(lines: Sequence[Line]) -> list[Series]:
    """The lines of one run, a colour each."""
    colours = ("accent",) if len(lines) == 1 else SERIES
    return [_one_series(line, colours[place % len(colours)]) for place, line in enumerate(lines)]


def _runs_series(lines: Sequence[Line]) -> list[Series]:
    """The lines of several runs: a colour for each run, and a dash for each line of its own."""
    seen: Counter[int] = Counter()
    found = []
    for line in lines:
        found.append(_one_series(line, SERIES[line.run % len(SERIES)], seen[line.run]))
        seen[line.run] += 1
    return found


def _one_series(line: Line, colour: str, dash: int = 0) -> Series:
    return Series(line.label, line.steps, line.values, line.low, line.high, colour, dash)


def _legend(groups: Sequence[SeedGroup]) -> list[tuple[str, str]]:
    differ = [", ".join(group.differs) for group in groups]
    return [
        (SERIES[place % len(SERIES)], f"{group.label}{f' ({what})' if what else ''}")
        for place, (group, what) in enumerate(zip(groups, differ, strict=True))
    ]


def _gallery(runs: Sequence[RunData]) -> dict[str, Any] | None:
    """What the gallery's script reads; None where no run has groups. The kinds' counts are of all runs."""
    shown = [(place, run.gallery) for place, run in enumerate(runs) if run.gallery is not None]
    groups = [
        {**asdict(group), "run": place, "key": group.id if len(runs) == 1 else f"{place}-{group.id}"}
        for place, gallery in shown
        for group in gallery.groups
    ]
    kinds: dict[str, dict[str, Any]] = {}
    for _, gallery in shown:
        for stratum in gallery.strata:
            same = kinds.setdefault(stratum.key, {**asdict(stratum), "groups": 0, "responses": 0})
            same["groups"] += stratum.groups
            same["responses"] += stratum.responses
    return {"runs": [run.name for run in runs], "kinds": kinds, "groups": groups} if groups else None
