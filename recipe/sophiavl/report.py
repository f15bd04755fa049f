"""What a run learned: reads the metrics that verl logged to files, prints a summary, draws the curves, follows a run.

``python -m recipe.sophiavl.report RUN_DIR`` summarises; ``--follow --total-steps N`` shows progress while a run writes.
verl's file logger starts a new file each time, so a resumed run has several; the newest value of a step counts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

METRICS_PATTERN = "metrics*.jsonl"
_EDGE_STEPS = 5
_CURVES = ("outcome_reward/mean", "thinking_reward/mean", "trust/gamma_mean", "thinking_reward/anneal")

Steps = dict[int, dict[str, float]]


def load_metrics(files: Iterable[Path]) -> Steps:
    """Metrics by global step from verl's JSON-lines logs, later files over earlier ones.

    Raises:
        ValueError: a line (other than an unfinished last one) is not JSON; names the file and the line.
    """
    steps: Steps = {}
    for file in files:
        lines = file.read_text().splitlines(keepends=True)
        for number, line in enumerate(lines, 1):
            if not line.endswith("\n"):
                continue  # still being written
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{file}, line {number}: not a line of verl's file logger ({error})") from error
            steps.setdefault(record["step"], {}).update(record["data"])
    return dict(sorted(steps.items()))


def validation_series(steps: Steps, variable: str) -> dict[int, float]:
    """Mean of a validation variable over data sources, by step (``reward`` is the outcome reward)."""
    series = {}
    for step, data in steps.items():
        values = [
            value
            for name, value in data.items()
            if name.startswith("val-") and name.split("/")[2:3] == [variable] and name.split("/")[3].startswith("mean@")
        ]
        if values:
            series[step] = float(np.mean(values))
    return series


def training_series(steps: Steps, name: str) -> dict[int, float]:
    """A training metric by step."""
    return {step: data[name] for step, data in steps.items() if name in data}


def _ends(series: dict[int, float], width: int) -> tuple[float, float] | None:
    """Mean of the first and of the last ``width`` values; None when there are fewer than two."""
    values = list(series.values())
    if len(values) < 2:
        return None
    width = min(width, len(values) // 2)
    return float(np.mean(values[:width])), float(np.mean(values[-width:]))


def summary_rows(steps: Steps) -> list[tuple[str, float, float]]:
    """(quantity, before, after) for what a run was meant to change; quantities that were not measured are left out."""
    quantities = [
        ("validation outcome reward", validation_series(steps, "reward"), 1),
        ("validation thinking reward", validation_series(steps, "thinking_reward"), 1),
        ("validation format followed", validation_series(steps, "format_ok"), 1),
        (f"training outcome reward (mean of {_EDGE_STEPS} steps)", training_series(steps, "outcome_reward/mean"), 0),
        (f"training thinking reward (mean of {_EDGE_STEPS} steps)", training_series(steps, "thinking_reward/mean"), 0),
        (f"trust weight gamma (mean of {_EDGE_STEPS} steps)", training_series(steps, "trust/gamma_mean"), 0),
        ("annealing factor", training_series(steps, "thinking_reward/anneal"), 1),
        ("rollout-actor correlation", training_series(steps, "training/rollout_actor_probs_pearson_corr"), 1),
    ]
    rows = []
    for name, series, width in quantities:
        ends = _ends(series, width or _EDGE_STEPS)
        if ends is not None:
            rows.append((name, *ends))
    return rows


def print_summary(run_dir: Path, steps: Steps, console: Console) -> None:
    """A table of what changed, and where everything is."""
    table = Table(title=f"{run_dir}: {max(steps)} training steps")
    for heading in ("", "before", "after", "change"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, before, after in summary_rows(steps):
        table.add_row(name, f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}")
    console.print(table)
    for label, name in (
        ("training log", "train.log"),
        ("metrics", METRICS_PATTERN),
        ("curves", "curves.png"),
        ("responses with their rewards", "rollouts"),
        ("validation responses", "validation"),
        ("checkpoints", "checkpoints"),
    ):
        if any(run_dir.glob(name)):
            console.print(f"  {label}: {run_dir / name}", highlight=False)


def draw_curves(steps: Steps, file: Path) -> None:
    """Reward components, trust weight and annealing by step, with the validation outcome reward on top."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    series = {name: training_series(steps, name) for name in _CURVES}
    figure, axis = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for name, values in series.items():
        if values:
            axis.plot(list(values), list(values.values()), label=name, linewidth=1)
    validation = validation_series(steps, "reward")
    axis.plot(list(validation), list(validation.values()), "ko--", label="validation outcome reward")
    axis.set(xlabel="global training step", ylim=(0, 1.05))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def follow(run_dir: Path, total_steps: int, pid: int, console: Console, poll_s: float = 1.0) -> None:
    """Show a progress bar with the newest rewards until the training process ``pid`` ends."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting Ray, FSDP and vLLM (about a minute)", total=total_steps)
        while _alive(pid):
            steps = load_metrics(sorted(run_dir.glob(METRICS_PATTERN)))
            trained = [step for step, data in steps.items() if "outcome_reward/mean" in data]
            if trained:
                progress.update(task, completed=trained[-1], description=_latest(steps[trained[-1]]))
            time.sleep(poll_s)


def _latest(data: dict[str, float]) -> str:
    parts = [f"outcome {data['outcome_reward/mean']:.2f}"]
    for label, name in (("thinking", "thinking_reward/mean"), ("gamma", "trust/gamma_mean")):
        if name in data:
            parts.append(f"{label} {data[name]:.2f}")
    return " ".join(parts)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    steps = load_metrics(sorted(options.run_dir.glob(METRICS_PATTERN)))
    if not steps:
        console.print(f"no metrics in {options.run_dir}/{METRICS_PATTERN}: was the run started with the file logger?")
        return 1
    draw_curves(steps, options.run_dir / "curves.png")
    print_summary(options.run_dir, steps, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
