"""A worker's way through a grid: the next run that is free, until none is left.

A run is counted once its file is in the folder of results. Whoever holds a run's claim works on it: several workers, of
one command or of several, share a grid. What a killed worker began is begun again.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from recipe.sophiavl.study.grid import Cell, Study
from recipe.sophiavl.study.runner import AT_LIMIT, CLAIMS, FAILED, NOTHING_LEFT, failure_file, result_file
from recipe.sophiavl.study.watchdog import ended_when_stalled

_MOST_TRIES = 2


@contextlib.contextmanager
def claimed(study: Study, results: Path, runs: Path) -> Iterator[Cell | None]:
    """The next run that nobody has made, failed at, or works on; None where there is none."""
    claims = results / CLAIMS
    claims.mkdir(parents=True, exist_ok=True)
    for cell in study.cells():
        if result_file(results, cell).exists() or failure_file(runs, cell).exists():
            continue
        with contextlib.suppress(Timeout), FileLock(claims / cell.name, timeout=0):
            if not result_file(results, cell).exists():  # somebody may have ended it just now
                yield cell
                return
    yield None


def work(
    study: Study, results: Path, runs: Path, make: Callable[[Cell], None], *, most: int = 0, stall_s: float
) -> int:
    """Make runs until none is left for this process, or so many, or one fails.

    Args:
        make: trains a run and writes its result.
        most: 0: no limit.
        stall_s: see `watchdog`.

    Returns:
        The process's exit code.
    """
    made, parent = 0, os.getppid()
    while (not most or made < most) and os.getppid() == parent:
        with claimed(study, results, runs) as cell:
            if cell is None:
                return NOTHING_LEFT
            tell = partial(_tell_failure, failure_file(runs, cell))
            tries = runs / f"{cell.name}.tries"  # stays where this process is killed
            if tries.exists() and tries.stat().st_size >= _MOST_TRIES:
                tries.unlink()
                tell(f"{cell.name}: the process that made it was killed {_MOST_TRIES} times")
                continue
            print(f"run {cell.name}", flush=True)
            try:
                with tries.open("a") as one, ended_when_stalled(runs / cell.name, stall_s, tell, FAILED):
                    one.write("x")
                    one.flush()
                    make(cell)
            except Exception:  # noqa: BLE001  (told to the parent, and this process ends)
                tell(traceback.format_exc())
                return FAILED
            finally:
                tries.unlink(missing_ok=True)
        made += 1
    return AT_LIMIT


def _tell_failure(file: Path, why: str) -> None:
    new = file.with_name(f"{file.name}.new")
    new.write_text(why, encoding="utf-8")
    new.replace(file)
    print(why, file=sys.stderr, flush=True)
