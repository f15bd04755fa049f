"""math-verify in worker processes: safe in threads, bounded in time and memory.

math-verify's own timeouts are signals, which only a main thread can use and which can't break into a long big-integer
operation. So comparisons run in child processes, each with a limit of processor time per comparison that the kernel
enforces, a limit of memory, and, should it hang without computing, a limit of wall time. The children are fresh
interpreters (no fork of a process full of threads; nothing of the parent's main module is imported again, which
multiprocessing's spawn would do in a Ray worker). They start when first needed, and end with the parent at the latest.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import queue
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

logger = logging.getLogger(__name__)

_SCRIPT = Path(__file__).with_name("math_worker.py")
_WORKERS = 2
_CPU_SECONDS = 3.0
# Far beyond what is needed even on an overloaded machine: running into these means that something hangs.
_WALL_SECONDS = 300.0
_STARTUP_SECONDS = 600.0
_ATTEMPTS = 2
_MEMORY_BYTES = 2 * 2**30


class MathWorkerError(RuntimeError):
    """The worker process can't start: the installation is at fault, not the answer."""


class _WorkerDied(Exception):
    """The worker ended before it answered; ``at_limit``: for taking too long, which a second try would too."""

    def __init__(self, reason: str, at_limit: bool = False) -> None:
        super().__init__(reason)
        self.at_limit = at_limit


class _Worker:
    """One child process."""

    def __init__(self, cpu_seconds: float) -> None:
        command = [sys.executable, str(_SCRIPT), str(cpu_seconds), str(_MEMORY_BYTES)]
        # A session of its own: Ctrl-C in the terminal is the parent's to handle.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
        )
        try:
            ready = self._read(_STARTUP_SECONDS)
        except _WorkerDied as death:
            self.close_pipes()
            raise MathWorkerError(f"{' '.join(command)} did not start: {death}; see its messages above") from death
        assert ready == b"R", ready

    def ask(self, comparison: tuple[str, str, float], wall_seconds: float) -> bool | None:
        """None if the library could not decide. Raises _WorkerDied if there is no answer."""
        try:
            self._process.stdin.write(json.dumps(comparison).encode() + b"\n")
        except BrokenPipeError as error:
            raise _WorkerDied("it had ended before") from error
        return {b"1": True, b"0": False, b"?": None}[self._read(wall_seconds)]

    def end(self) -> None:
        """End the process and take its exit status, so that no zombie stays. Any thread may, at any time."""
        self._process.kill()
        self._process.wait()

    def close_pipes(self) -> None:
        """Only the thread that uses the worker may."""
        self._process.stdin.close()
        self._process.stdout.close()

    def _read(self, seconds: float) -> bytes:
        # poll, not select: a training process has more than 1024 files open.
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        in_time = bool(poll.poll(seconds * 1000))
        data = self._process.stdout.read(1) if in_time else b""
        if data:
            return data
        self.end()
        if not in_time:
            raise _WorkerDied(f"no answer in {seconds:g} s", at_limit=True)
        status = self._process.returncode
        if status == -signal.SIGPROF:
            raise _WorkerDied("it took too much processor time", at_limit=True)
        raise _WorkerDied(f"the worker ended with exit status {status}")


class MathPool:
    """Up to ``workers`` child processes, started when first needed. Thread-safe: callers wait for a free one.

    Args:
        workers: most processes at once.
        cpu_seconds: processor time of one comparison; the kernel ends the process beyond.
        wall_seconds: time of one comparison, should it neither compute nor answer.
    """

    def __init__(
        self, workers: int = _WORKERS, cpu_seconds: float = _CPU_SECONDS, wall_seconds: float = _WALL_SECONDS
    ) -> None:
        self._workers = workers
        self._cpu_seconds = cpu_seconds
        self._wall_seconds = wall_seconds
        self.forget()

    def same_mathematics(self, answer: str, truth: str, tolerance: float = 0.0) -> bool:
        """Whether two expressions are equal; False if that can't be decided within the limits (logged).

        Args:
            answer: LaTeX expression, one line.
            truth: the same.
            tolerance: share of a true number by which an answer may be off.

        Raises:
            MathWorkerError: a worker can't start.
        """
        # A worker may have been ended by something else (the machine ran out of memory): a second one decides.
        for _ in range(_ATTEMPTS):
            try:
                equal = self._ask_once((answer, truth, tolerance))
                if equal is not None:
                    return equal
                death = "the library gave up"
                break
            except _WorkerDied as error:
                death = error
                if error.at_limit:
                    break
        logger.warning("not comparable, so not equal: %.200r and %.200r: %s", answer, truth, death)
        return False

    def close(self) -> None:
        """End all workers, busy ones too, for good."""
        with self._lock:
            self._closed = True
            for worker in self._alive:
                worker.end()

    def forget(self) -> None:
        """Let go of all workers without ending them: after a fork they are the parent's."""
        self._lock = threading.Lock()
        self._closed = False
        self._alive: set[_Worker] = set()
        self._idle: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(self._workers):
            self._idle.put(None)

    def _ask_once(self, comparison: tuple[str, str, float]) -> bool | None:
        worker = self._idle.get()
        answered = False
        try:
            if worker is None:
                worker = self._start()
            equal = worker.ask(comparison, self._wall_seconds)
            answered = True
        finally:
            # A worker that has not answered (it died, or this thread was interrupted) would answer the wrong caller.
            if not answered:
                self._discard(worker)
                worker = None
            self._idle.put(worker)
        return equal

    def _start(self) -> _Worker:
        if self._closed:
            raise MathWorkerError("the pool of math workers is closed")
        worker = _Worker(self._cpu_seconds)
        with self._lock:
            self._alive.add(worker)
            if self._closed:
                worker.end()
        return worker

    def _discard(self, worker: _Worker | None) -> None:
        if worker is not None:
            worker.end()
            worker.close_pipes()
            with self._lock:
                self._alive.discard(worker)


_POOL = MathPool()
atexit.register(_POOL.close)
os.register_at_fork(after_in_child=_POOL.forget)


def same_mathematics(answer: str, truth: str, tolerance: float = 0.0) -> bool:
    """:meth:`MathPool.same_mathematics` of this process's own pool."""
    return _POOL.same_mathematics(answer, truth, tolerance)
