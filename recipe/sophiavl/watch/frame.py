"""What a watched run looks like in a terminal of some size."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.columns import Columns
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from page_kit.text import shown
from recipe.sophiavl.progress import step_times, time_left, trained, validations
from recipe.sophiavl.report.logs import Steps
from recipe.sophiavl.run_folder import METRICS_PATTERN
from recipe.sophiavl.watch.plots import braille, extent, sparkline
from recipe.sophiavl.watch.reading import NewestGroup, WatchedRun, number
from recipe.sophiavl.watch.signs import NAMES, RECENT, duration, signs

_WIDE = 100
_LOW = 40
_MOST_CHARS = 1000
_PLOT_HEIGHT = 4
_FEWEST_GROUP_LINES = 8
# The last turn of a prompt whose template writes its roles on lines of their own.
_LAST_TURN = re.compile(r"(?:.*\n)?user\n(.*?)(?:\nassistant\n?(?:<think>\n?)?)?\Z", re.DOTALL)


@dataclass(frozen=True)
class _Metric:
    label: str
    names: tuple[str, ...]  # the first that a run has
    form: str
    plotted: bool = False
    main: bool = True  # one that is shown in a low terminal too


_METRICS = (
    _Metric("outcome", ("outcome_reward/mean",), ".3f", plotted=True),
    _Metric("thinking", ("thinking_reward/mean",), ".3f", plotted=True),
    _Metric("gamma", ("trust/gamma_mean",), ".3f", plotted=True),
    _Metric("distrusted groups", ("trust/distrusted_frac",), ".1%"),
    _Metric("coverage", ("thinking_reward/coverage",), ".1%"),
    _Metric("format followed", ("outcome_reward/format_ok",), ".1%", main=False),
    _Metric("response tokens", ("response_length/mean",), ".1f", plotted=True),
    _Metric("KL", ("actor/kl_loss", "actor/reward_kl_penalty"), ".4f"),
    _Metric("entropy", ("actor/entropy",), ".3f", main=False),
    _Metric("gradient norm", ("actor/grad_norm",), ".3f", main=False),
    _Metric("step time (s)", ("timing_s/step",), ".1f"),
)
_OF_A_GROUP = (("gamma", "gamma"), ("mu of the right", "mu_correct"), ("of the wrong", "mu_wrong"))
WATCHED_NAMES = (*NAMES, *(name for metric in _METRICS for name in metric.names))


def frame(run: WatchedRun, console: Console, height: int | None = None) -> RenderableType:
    """All of a run that fits.

    Args:
        height: lines that there are; None: as many as it takes.
    """
    width = console.width
    parts: list[RenderableType] = [_head(run, width)]
    problems = [paragraph(problem) for problem in run.problems]
    parts += [Text(f"! {line}", "yellow") for line in (*signs(run.steps, run.silent_s, run.finished), *problems)]
    history = {step: data for step, data in run.steps.items() if trained(data)}
    if history:
        parts.append(_table(history, low=height is not None and height < _LOW))
    group: list[RenderableType] = []
    if run.group is not None and (left := _left(parts, console, height)) >= _FEWEST_GROUP_LINES:
        group.append(_newest(run.group, console, left))
    if history and _left([*parts, plots := _plots(history, width), *group], console, height) >= 0:
        parts.append(plots)
    return Group(*parts, *group)


def _left(parts: Sequence[RenderableType], console: Console, height: int | None) -> float:
    """How many lines are left below these parts."""
    return math.inf if height is None else height - len(console.render_lines(Group(*parts)))


def _head(run: WatchedRun, width: int) -> RenderableType:
    name = Text(paragraph(str(run.path)), "bold", no_wrap=True, overflow="ellipsis")
    if run.newest is None:
        what = f"no {METRICS_PATTERN} in it yet" if run.path.is_dir() else "no such folder yet"
        return Group(name, Text(f"waiting for the run's first step: {what}", "yellow"))
    said = [f"step {run.newest}" + (f" of {run.total}" if run.total else "")]
    if run.finished:
        said.append("finished")
    elif run.total:
        said += time_left(run.newest, run.total, step_times(run.steps))
    if not run.finished:
        said.append(f"logged {duration(run.silent_s or 0.0)} ago")
    newest = [text for data in run.steps.values() for text in validations(data)]
    modes = {text.partition(" validation")[0]: text for text in newest}  # the last one of each way
    lines: list[RenderableType] = [name]
    if run.total:
        lines.append(Padding(ProgressBar(total=run.total, completed=run.newest, width=width), 0))
    return Group(*lines, Text(", ".join([*said, *modes.values()])))


class _Curve:
    """A sparkline as wide as its column."""

    def __init__(self, values: Sequence[float]) -> None:
        self._values = values

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(sparkline(self._values, options.max_width), "cyan")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(4, options.max_width)


def _table(history: Steps, low: bool) -> Table:
    table = Table(box=None, expand=True, padding=(0, 1), pad_edge=False)
    table.add_column("", no_wrap=True)
    for heading in ("now", f"last {RECENT}", "change"):
        table.add_column(heading, justify="right", no_wrap=True, min_width=7)
    table.add_column(f"steps {min(history)}–{max(history)}", no_wrap=True, ratio=1)
    for metric in _METRICS:
        values = _values(history, metric)
        if values and (metric.main or not low):
            table.add_row(metric.label, *_figures(values, metric.form), _Curve(values))
    return table


def _figures(values: Sequence[float], form: str) -> tuple[Text, Text, Text]:
    """Now, the mean of the last steps, and by how much it differs from that of as many steps before them."""
    recent, before = _mean(values[-RECENT:]), _mean(values[-2 * RECENT : -RECENT])
    change = recent - before
    style = "red" if not math.isfinite(values[-1]) else ""
    told = f"{change:+{form}}" if math.isfinite(change) else ""
    return Text(f"{values[-1]:{form}}", style), Text(f"{recent:{form}}"), Text(told)


def _plots(history: Steps, width: int) -> RenderableType:
    each = width // 4 if width >= _WIDE else width // 2
    panels = []
    for metric in _METRICS:
        values = _values(history, metric) if metric.plotted else []
        if (ends := extent(values)) is None:
            continue
        title = Text(f"{metric.label} {ends[0]:{metric.form}}…{ends[1]:{metric.form}}")
        curve = Text("\n".join(braille(values, each - 4, _PLOT_HEIGHT)), "cyan")
        panels.append(Panel(curve, title=title, width=each, height=_PLOT_HEIGHT + 2, box=box.ROUNDED))
    return Columns(panels, padding=(0, 0))


def _newest(group: NewestGroup, console: Console, height: float) -> RenderableType:
    """The question, its truth, and as many responses as fit."""
    row, width = group.rows[0], console.width - 4
    question = row.get("input")
    asked = _LAST_TURN.sub(r"\1", question) if isinstance(question, str) else question
    figures = ", ".join(f"{label} {_figure(row, name)}" for label, name in _OF_A_GROUP)
    lines = [
        *_wrapped(Text.assemble(("question ", "bold"), paragraph(asked)), console, width, 2),
        *_wrapped(Text.assemble(("truth ", "bold"), paragraph(row.get("gts"))), console, width, 1),
        *_wrapped(Text(figures), console, width, 1),
    ]
    most = 2 if width >= _WIDE else 3
    for i, row in enumerate(group.rows):
        added = _wrapped(_response(row), console, width, most)
        if len(lines) + len(added) + 3 > height:  # borders, and the line below
            lines.append(Text(f"and {len(group.rows) - i} more"))
            break
        lines += added
    return Panel(Group(*lines), title=f"newest group (step {group.step})", box=box.ROUNDED, width=console.width)


def _response(row: dict[str, Any]) -> Text:
    right = "green" if number(row.get("outcome_reward")) >= 0.5 else "red"
    error = row.get("thinking_error") or ""
    return Text.assemble(
        (f"outcome {_figure(row, 'outcome_reward')}", right),
        f" thinking {_figure(row, 'thinking_reward')} ",
        (f"({paragraph(error)[:40]}) " if error else "", "yellow"),
        paragraph(row.get("output")),
    )


def _wrapped(text: Text, console: Console, width: int, most: int) -> list[Text]:
    """The text as lines, `most` at most, the last of them with an ellipsis where something was cut."""
    lines = list(text.wrap(console, width))
    if len(lines) > most:
        lines[most - 1].truncate(width - 1)
        lines[most - 1].append("…")
    return lines[:most]


def paragraph(value: Any) -> str:
    """Untrusted text in one paragraph, cut, with all that a terminal would act upon written out."""
    text = value if isinstance(value, str) else repr(value)
    flat = re.sub(r"[ \t\r\n]+", " ", text).strip()
    return shown(flat if len(flat) <= _MOST_CHARS else f"{flat[:_MOST_CHARS]}…")


def _figure(row: dict[str, Any], name: str) -> str:
    value = number(row.get(name))
    return f"{value:.2f}" if math.isfinite(value) else "–"


def _values(history: Steps, metric: _Metric) -> list[float]:
    """The metric of each step, NaN where it is missing; nothing where a run does not have it."""
    for name in metric.names:
        if any(name in data for data in history.values()):
            return [data.get(name, math.nan) for data in history.values()]
    return []


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan
