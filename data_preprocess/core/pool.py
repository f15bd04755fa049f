"""Jobs on several processes, results in order, with a bounded number under way."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import TypeVar

from data_preprocess.core.errors import WorkError

Job = TypeVar("Job")
Result = TypeVar("Result")
_JOBS_PER_WORKER = 2


def default_workers() -> int:
    """One process per core that this process may use, 8 at most."""
    return min(8, len(os.sched_getaffinity(0)))


def ordered_results(work: Callable[[Job], Result], jobs: Iterable[Job], workers: int) -> Iterator[Result]:
    """The results of `work` in the order of `jobs`, which is read no further ahead than keeps `workers` busy.

    One worker means this process itself.

    Raises:
        WorkError: a worker process died.
    """
    if workers == 1:
        yield from map(work, jobs)
        return
    # Spawned, not forked: threads and the folder's lock stay with the parent.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)
    try:
        under_way: deque[Future[Result]] = deque()
        for job in jobs:
            under_way.append(pool.submit(work, job))
            if len(under_way) >= workers * _JOBS_PER_WORKER:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    except BrokenProcessPool as error:
        raise WorkError(
            "a worker process died, perhaps for lack of memory; run again to go on, with fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Let this worker die with its parent: after a kill -9 of the parent it would wait for jobs for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
