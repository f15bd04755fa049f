"""A run in the terminal: ``python -m recipe.sophiavl.watch RUN_DIR`` shows progress, curves and the newest group.

The folder may be watched before it is there, while its run is stopped and started again, and after its end. Without a
terminal each step is a line, until the run has finished. Ctrl-C ends the watching, not the run. In the table, "last 10"
is the mean of the last ten steps, "change" that less the mean of the ten before.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.live import Live

from recipe.sophiavl.progress import rewards, step_line, step_times, trained, validations
from recipe.sophiavl.report.logs import Steps
from recipe.sophiavl.watch.frame import WATCHED_NAMES, frame, paragraph
from recipe.sophiavl.watch.reading import WatchedRun


def show(run: WatchedRun, console: Console, poll_s: float) -> None:
    """Show the run in the whole terminal until Ctrl-C; the last frame stays behind."""
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                run.update()
                live.update(frame(run, console, console.height), refresh=True)
                time.sleep(poll_s)
    except KeyboardInterrupt:
        console.print(frame(run, console))


def print_lines(run: WatchedRun, poll_s: float) -> None:
    """A line for each step that is new, until the run has finished; of what was there before, only the last."""
    said: Steps | None = None
    told: set[str] = set()
    while True:
        run.update()
        if said is None and not run.steps:
            print(f"waiting for the first step of {paragraph(str(run.path))}", flush=True)
        new = [step for step, data in run.steps.items() if said is None or data != said.get(step)]
        lines = [_line(run, step) for step in (new[-1:] if said is None else new)]
        for line in (*lines, *(paragraph(problem) for problem in run.problems if problem not in told)):
            print(line, flush=True)
        told.update(run.problems)
        said = run.steps
        if run.finished:
            return
        time.sleep(poll_s)


def _line(run: WatchedRun, step: int) -> str:
    data = run.steps[step]
    if run.total is None or not trained(data):
        of = f" of {run.total}" if run.total else ""
        return f"step {step}{of}: {rewards(data) if trained(data) else ', '.join(validations(data))}"
    return step_line(step, run.total, data, step_times({s: d for s, d in run.steps.items() if s <= step}))


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code: 1 where ``--once`` finds no step, else 0."""
    parser = argparse.ArgumentParser(
        prog="python -m recipe.sophiavl.watch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_dir", type=Path, help="the run's folder (run_dir=), which need not exist yet")
    parser.add_argument("--once", action="store_true", help="print one frame and exit; with 1 where no step is logged")
    parser.add_argument("--poll", type=float, default=1.0, metavar="S", help="seconds between two looks (%(default)s)")
    options = parser.parse_args(arguments)
    if not 0 < options.poll < 3600:
        parser.error(f"--poll={options.poll}: seconds, above 0")
    run = WatchedRun(options.run_dir, WATCHED_NAMES)
    if hasattr(sys.stdout, "reconfigure"):  # a terminal that knows no Unicode gets question marks, not a traceback
        sys.stdout.reconfigure(errors="replace")
    console = Console(highlight=False)
    if options.once:
        run.update()
        console.print(frame(run, console))
        return 0 if run.steps else 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaves the alternate screen
    try:
        if console.is_terminal and not console.is_dumb_terminal:
            show(run, console, options.poll)
        else:
            print_lines(run, options.poll)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:  # whoever read the lines has gone; nothing more can be flushed at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
