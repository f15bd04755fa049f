"""Ends a process whose run has come to a standstill.

verl waits for ever where Ray has killed one of its processes, for want of memory for instance: the responses that the
process was writing never come.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from recipe.sophiavl.run_folder import LOG

_POLL_S = 5.0
_END_S = 60.0


@contextlib.contextmanager
def ended_when_stalled(run_dir: Path, limit_s: float, tell: Callable[[str], None], code: int) -> Iterator[None]:
    """While active, send this process SIGTERM once the run has written nothing for so long, and end it if that fails.

    Args:
        run_dir: folder of the run. Its log does not count: a process that waits may still print.
        limit_s: seconds; more than a start, a step or a validation takes.
        tell: is told why, before.
        code: exit code where SIGTERM does not end it within a minute.
    """
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(run_dir, limit_s, tell, code, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _watch(run_dir: Path, limit_s: float, tell: Callable[[str], None], code: int, over: threading.Event) -> None:
    started = time.time()
    while not over.wait(min(_POLL_S, limit_s / 2)):
        still_s = time.time() - max(started, _last_written(run_dir))
        if still_s > limit_s:
            tell(f"{run_dir}: the run wrote nothing for {still_s:.0f} s; its log may say who was killed")
            os.kill(os.getpid(), signal.SIGTERM)
            if not over.wait(_END_S):
                os._exit(code)
            return


def _last_written(folder: Path) -> float:
    """When a file of the run other than its log was written last, in seconds since the epoch; 0 where there is none."""
    newest = 0.0
    with contextlib.suppress(FileNotFoundError):  # a temporary file or folder: look again soon
        for file in folder.rglob("*"):
            if file.name != LOG:
                newest = max(newest, file.stat().st_mtime)
    return newest
