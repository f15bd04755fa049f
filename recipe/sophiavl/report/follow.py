"""Progress of a run that another process computes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from recipe.sophiavl.progress import rewards, step_line, step_times, time_left, trained, validations
from recipe.sophiavl.report.logs import Steps, load_metrics
from recipe.sophiavl.run_folder import METRICS_PATTERN

_STARTING = "starting Ray, FSDP and vLLM (about a minute)"


def follow(
    run_dir: Path, total_steps: int, pid: int, console: Console, poll_s: float = 1.0, silence_s: float = 30.0
) -> None:
    """Show the steps and rewards of a run until its process ends: a bar, or lines where there is no terminal.

    Args:
        pid: the training process.
        silence_s: without a terminal, a line says at least that often that the run goes on.
    """
    updates = _updates(run_dir, pid, poll_s)
    if console.is_terminal:
        _show_bar(updates, total_steps, console)
    else:
        _print_lines(updates, total_steps, silence_s)


def _show_bar(updates: Iterator[Steps], total_steps: int, console: Console) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(_STARTING, total=total_steps)
        for steps in updates:
            done = [step for step, data in steps.items() if trained(data)]
            if done:
                parts = [rewards(steps[done[-1]]), *time_left(done[-1], total_steps, step_times(steps))]
                progress.update(task, completed=done[-1], description=", ".join(parts))


def _print_lines(updates: Iterator[Steps], total_steps: int, silence_s: float) -> None:
    """A line for each step that is new, and one after ``silence_s`` seconds without."""
    said: Steps | None = None
    started = spoken = time.monotonic()
    for steps in updates:
        if said is None:  # of a run that was resumed, only where it stands
            lines = [_line(step, total_steps, steps) for step in list(steps)[-1:]]
        else:
            lines = [_line(step, total_steps, steps) for step in steps if steps[step] != said.get(step)]
        said = steps
        if not lines and time.monotonic() - spoken >= silence_s:
            state = f"step {max(steps)} of {total_steps} was the last" if steps else _STARTING
            lines = [f"{state}; {time.monotonic() - started:.0f} s so far"]
        for line in lines:
            print(line, flush=True)
            spoken = time.monotonic()


def _line(step: int, total_steps: int, steps: Steps) -> str:
    data = steps[step]
    if not trained(data):
        return f"step {step} of {total_steps}: {', '.join(validations(data))}"
    return step_line(step, total_steps, data, step_times({s: d for s, d in steps.items() if s <= step}))


def _updates(run_dir: Path, pid: int, poll_s: float) -> Iterator[Steps]:
    """The metrics so far, every ``poll_s`` seconds until the process has ended, and once after that."""
    steps: Steps = {}
    size = -1
    alive = True
    while alive:
        alive = _alive(pid)
        files = sorted(run_dir.glob(METRICS_PATTERN))
        if (now := sum(file.stat().st_size for file in files)) != size:  # a long run's metrics are megabytes
            steps, size = load_metrics(files), now
        yield steps
        if alive:
            time.sleep(poll_s)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
