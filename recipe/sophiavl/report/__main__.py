"""What a run learned: ``python -m recipe.sophiavl.report RUN_DIR`` prints a summary and draws the curves.

It may be asked while the run goes on. ``--follow PID --total-steps N`` shows the progress of that process: a bar in a
terminal, else a line for each step.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from recipe.sophiavl.progress import trained
from recipe.sophiavl.report.curves import curves
from recipe.sophiavl.report.follow import follow
from recipe.sophiavl.report.logs import Steps, load_metrics, series
from recipe.sophiavl.report.summary import CORRELATION, Change, Value, summary
from recipe.sophiavl.run_folder import CHECKPOINTS, CONFIG, LOG, METRICS_PATTERN, ROLLOUTS, VALIDATION

_LEFT_BEHIND = (
    ("training log", LOG),
    ("metrics", METRICS_PATTERN),
    ("curves", "curves.png"),
    ("responses with their rewards", ROLLOUTS),
    ("validation responses", VALIDATION),
    ("checkpoints", CHECKPOINTS),
)


def print_summary(run_dir: Path, steps: Steps, console: Console) -> None:
    """A table of what changed, and where everything is."""
    changes = summary(steps, run_dir / VALIDATION)
    done = max((step for step, data in steps.items() if trained(data)), default=0)
    planned = _planned_steps(run_dir)
    of = f" of {planned}" if planned else ""
    table = Table(
        title=f"{run_dir}: {done}{of} training steps", caption=_caption(steps, changes), caption_justify="left"
    )
    for heading in ("", "before", "after", "change"):
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=bool(heading))
    for number, change in enumerate(changes):
        if number == 0 or change.group != changes[number - 1].group:
            table.add_section()
            table.add_row(f"[bold]{change.group}")
        shown = (_shown(change.before), _shown(change.after), _shown(change.difference, sign="+"))
        whole, _, kind = change.name.partition(": ")
        table.add_row(f"    {kind}" if kind else f"  {whole}", *shown)
    console.print(table)
    for label, name in _LEFT_BEHIND:
        if any(run_dir.glob(name)):
            console.print(f"  {label}: {run_dir / name}", highlight=False)


def _planned_steps(run_dir: Path) -> int | None:
    """How many steps the run is to take; None where its configuration is not there or counts epochs."""
    file = run_dir / CONFIG
    return OmegaConf.select(OmegaConf.load(file), "trainer.total_training_steps") if file.is_file() else None


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
    parser.add_argument("run_dir", type=Path, help=f"folder with the run's {METRICS_PATTERN}")
    parser.add_argument("--follow", type=int, metavar="PID", help="show progress until this training process ends")
    parser.add_argument("--total-steps", type=int, help="number of training steps, for --follow")
    options = parser.parse_args(arguments)
    console = Console()
    if options.follow is not None:
        if options.total_steps is None:
            parser.error("--follow needs --total-steps")
        follow(options.run_dir, options.total_steps, options.follow, console)
        return 0
    if not options.run_dir.is_dir():
        console.print(f"no folder {options.run_dir}: name the run's own, with its {METRICS_PATTERN}", highlight=False)
        return 1
    steps = load_metrics(sorted(options.run_dir.glob(METRICS_PATTERN)))
    if not steps:
        console.print(
            f"no metrics in {options.run_dir}/{METRICS_PATTERN}: nothing has been logged yet, or trainer.logger is "
            "without file",
            highlight=False,
        )
        return 1
    curves(steps).savefig(options.run_dir / "curves.png", dpi=120)
    print_summary(options.run_dir, steps, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
