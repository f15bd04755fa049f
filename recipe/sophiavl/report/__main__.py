"""What a run learned: ``python -m recipe.sophiavl.report RUN_DIR`` prints a summary and writes a page to look at.

The page is RUN_DIR/report.html: what was learned in sentences, curves, whether the thinking reward can be trusted, and
a gallery of responses. Several folders are compared on one page, comparison.html in the first of them (or --out); runs
that differ in nothing but their seeds are drawn as one. It may be asked while a run goes on.

``--follow PID --total-steps N`` shows the progress of that process: a bar in a terminal, else a line for each step.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from data_preprocess.core.files import replacing
from recipe.sophiavl.progress import trained
from recipe.sophiavl.report.follow import follow
from recipe.sophiavl.report.load import changes, load_run, load_runs
from recipe.sophiavl.report.logs import Steps, series
from recipe.sophiavl.report.page import alone, report_page
from recipe.sophiavl.report.problems import Problems
from recipe.sophiavl.report.settings_words import RunConfig
from recipe.sophiavl.report.step_log import read_metrics
from recipe.sophiavl.report.summary import CORRELATION, Change, Value
from recipe.sophiavl.run_folder import (
    CHECKPOINTS,
    COMPARISON,
    LOG,
    METRICS_PATTERN,
    REPORT,
    ROLLOUTS,
    VALIDATION,
)

_LEFT_BEHIND = (
    ("training log", LOG),
    ("metrics", METRICS_PATTERN),
    ("responses with their rewards", ROLLOUTS),
    ("validation responses", VALIDATION),
    ("checkpoints", CHECKPOINTS),
)


def print_summary(run_dir: Path, steps: Steps, console: Console) -> None:
    """A table of what changed, and where everything is."""
    problems = Problems()
    found = changes(steps, run_dir, problems)
    done = max((step for step, data in steps.items() if trained(data)), default=0)
    planned = RunConfig(run_dir, problems).number("trainer.total_training_steps")  # none where it counts epochs
    of = f" of {planned:.0f}" if planned else ""
    table = Table(title=f"{run_dir}: {done}{of} training steps", caption=_caption(steps, found), caption_justify="left")
    for heading in ("", "before", "after", "change"):
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=bool(heading))
    for number, change in enumerate(found):
        if number == 0 or change.group != found[number - 1].group:
            table.add_section()
            table.add_row(f"[bold]{change.group}")
        shown = (_shown(change.before), _shown(change.after), _shown(change.difference, sign="+"))
        whole, _, kind = change.name.partition(": ")
        table.add_row(f"    {kind}" if kind else f"  {whole}", *shown)
    console.print(table)
    for text in problems.texts():
        console.print(f"  {text}", style="red", markup=False, highlight=False)
    for label, name in _LEFT_BEHIND:
        if any(run_dir.glob(name)):
            console.print(f"  {label}: {run_dir / name}", highlight=False)


def _shown(value: Value | None, sign: str = "") -> str:
    if value is None:
        return ""
    return f"{value.mean:{sign}.3f}" + (f" ± {value.error:.3f}" if value.error is not None else "")


def _caption(steps: Steps, changes: list[Change]) -> str:
    parts = ["± is one standard error: of validation over its questions, of training over the steps of the mean."]
    validated = [change.paired for change in changes if change.paired is not None]
    if validated and all(validated):
        parts.append("A validation's change compares each question with itself.")
    elif validated:
        parts.append(
            "A validation's change is of means that count as independent: its dumps hold no pairs of questions."
        )
    if correlations := series(steps, CORRELATION):
        step = min(correlations, key=correlations.get)
        parts.append(f"Lowest rollout-actor correlation: {correlations[step]:.4f} (step {step}).")
    return " ".join(parts)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m recipe.sophiavl.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_dirs", type=Path, nargs="+", metavar="RUN_DIR", help=f"folder with {METRICS_PATTERN}")
    parser.add_argument("--out", type=Path, help="page to write (default: in the first folder)")
    parser.add_argument("--follow", type=int, metavar="PID", help="show progress until this training process ends")
    parser.add_argument("--total-steps", type=int, help="number of training steps, for --follow")
    options = parser.parse_args(arguments)
    console = Console()
    if options.follow is not None:
        if options.total_steps is None:
            parser.error("--follow needs --total-steps")
        if len(options.run_dirs) > 1:
            parser.error("--follow shows one run")
        follow(options.run_dirs[0], options.total_steps, options.follow, console)
        return 0
    for run_dir in options.run_dirs:
        if (missing := _missing(run_dir)) is not None:
            console.print(missing, highlight=False, markup=False, soft_wrap=True)
            return 1
    for run_dir in options.run_dirs:
        if steps := read_metrics(sorted(run_dir.glob(METRICS_PATTERN)), Problems()):
            print_summary(run_dir, steps, console)
    page = options.out or options.run_dirs[0] / (REPORT if len(options.run_dirs) == 1 else COMPARISON)
    try:
        write_page(options.run_dirs, page)
    except OSError as error:
        console.print(f"the page cannot be written: {error}", style="red", highlight=False, markup=False)
        return 1
    console.print(f"  page to look at: {page}", highlight=False, markup=False, soft_wrap=True)
    return 0


def _missing(run_dir: Path) -> str | None:
    """Why there is nothing to show of this run; None where there is something."""
    if not run_dir.is_dir():
        return f"no folder {run_dir}: name the run's own, with its {METRICS_PATTERN}"
    if any(file.stat().st_size for file in run_dir.glob(METRICS_PATTERN)) or any(run_dir.glob(f"{ROLLOUTS}/*.jsonl")):
        return None
    return f"no metrics in {run_dir}/{METRICS_PATTERN}: nothing has been logged yet, or trainer.logger is without file"


def write_page(run_dirs: Sequence[Path], page: Path) -> None:
    """Write the page of one run, or of several compared.

    Raises:
        OSError: the page cannot be written.
    """
    text = report_page(alone(load_run(run_dirs[0])) if len(run_dirs) == 1 else load_runs(run_dirs))
    with replacing(page) as new:
        new.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
