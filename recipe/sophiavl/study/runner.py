"""Makes the runs of a study that are missing, in worker processes, and shows how far it is."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from tqdm import tqdm

from recipe.sophiavl.run_folder import ROLLOUTS
from recipe.sophiavl.server_process import ended_by_sigterm
from recipe.sophiavl.study.grid import Cell, Study, load_study
from recipe.sophiavl.validation import SettingsError
from recipe.sophiavl.verl_support.cpu_resources import read_machine
from recipe.sophiavl.verl_support.environment import wants_cpu_platform

NOTHING_LEFT, FAILED, WRONG_STUDY, AT_LIMIT = 0, 1, 2, 3  # exit codes of a worker
CLAIMS = ".claims"  # in the folder of results, which all who share a grid have in common
# Of one engine with the quickstart's models. Two on two cores make 1.4 times as many runs as one that has both.
CORES, MEMORY_GB = 1, 9.0
STALL_S = 900.0
_WORKER = (sys.executable, "-m", "recipe.sophiavl.study.worker")
_POLL_S = 1.0
_STOP_S = 30.0


class WorkerError(OSError):
    """A worker ended without having come to a run's end; the message says where its log is."""


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        made: how many runs were made.
        failed: runs that failed, each with the last line of what was told.
        left: how many are not made yet, the failed ones among them.
    """

    made: int
    failed: dict[str, str]
    left: int


def result_file(results: Path, cell: Cell) -> Path:
    """Where the result of a run is, once there is one."""
    return results / f"{cell.name}.jsonl"


def failure_file(runs: Path, cell: Cell) -> Path:
    """Where a run's error is, where it failed."""
    return runs / f"{cell.name}.failed"


def missing(study: Study, results: Path) -> list[Cell]:
    """The runs without a result."""
    return [cell for cell in study.cells() if not result_file(results, cell).exists()]


def workers_here() -> int:
    """How many engines this machine holds at once: `CORES` and `MEMORY_GB` each, at least one."""
    if not wants_cpu_platform():
        return 1  # an engine takes all GPUs that it sees
    memory = psutil.virtual_memory().available / 1e9 // MEMORY_GB
    return max(1, int(min(read_machine().cores // CORES, memory)))


def run(
    file: Path, results: Path, runs: Path, *, workers: int = 0, runs_per_engine: int = 0, stall_s: float = STALL_S
) -> Outcome:
    """Make the missing runs of the study in this file.

    A run that fails is left out, and the others go on. Interrupted, the same call goes on with what is missing.

    Args:
        results: folder of the results, a file a run.
        runs: folder of the runs themselves (dumps, logs), which nothing needs afterwards.
        workers: at once; 0 takes `workers_here`.
        runs_per_engine: runs that share an engine; 0: all of a worker's.
        stall_s: seconds without a sign of life after which a run counts as failed.

    Raises:
        SettingsError: the study is wrong.
        WorkerError: a worker can't work.
    """
    study = load_study(file)
    runs.mkdir(parents=True, exist_ok=True)
    for cell in study.cells():
        failure_file(runs, cell).unlink(missing_ok=True)
    progress = _Progress(study, results, runs)
    count = min(workers or workers_here(), max(1, len(progress.left)))
    command = [*_WORKER, str(file), "--results", str(results), "--runs", str(runs), "--most", str(runs_per_engine)]
    command += ["--stall-s", str(stall_s)]
    with progress.bar, _crew(count, command, runs) as crew:
        while progress.work_left() and crew.at_work(progress.ended()):
            time.sleep(_POLL_S)
            progress.look()
    return Outcome(progress.made, progress.failures(), len(progress.left))


class _Progress:
    """What there is of a study, as its folders tell it."""

    def __init__(self, study: Study, results: Path, runs: Path) -> None:
        self._study, self._results, self._runs = study, results, runs
        self.left = missing(study, results)
        self._total, self._first = len(study.cells()), len(self.left)
        self._started = time.monotonic()
        self._ended = 0
        # Where nobody looks at a screen there is a line for each run, and no bar.
        self.bar = tqdm(total=self._total, initial=self._total - self._first, unit="run", desc="Study", disable=None)

    @property
    def made(self) -> int:
        """Runs since the start."""
        return self._first - len(self.left)

    def look(self) -> None:
        """Tell the runs that have ended since, and how far the one is that is under way."""
        left = missing(self._study, self._results)
        ended = [cell for cell in self.left if cell not in left]
        self.left = left
        for number, cell in enumerate(ended, self.made - len(ended) + 1):
            hours = (time.monotonic() - self._started) / number * len(left) / 3600
            self.bar.write(f"{self._total - len(left)} of {self._total} runs: {cell.name}; {hours:.1f} h left")
        self.bar.n = self._total - len(left)
        self.bar.set_postfix_str(self._under_way())

    def failures(self) -> dict[str, str]:
        """The runs that failed since the start."""
        files = {cell.name: failure_file(self._runs, cell) for cell in self.left}
        found = {}
        for name, file in files.items():
            with contextlib.suppress(FileNotFoundError):  # another command may begin anew with it
                found[name] = (file.read_text(errors="replace").strip().splitlines() or ["no reason is told"])[-1]
        return found

    def ended(self) -> int:
        """How many runs have ended, well or not, since the start; never fewer than before."""
        self._ended = max(self._ended, self.made + len(self.failures()))
        return self._ended

    def work_left(self) -> bool:
        """Whether a run is neither made nor failed."""
        return len(self.left) > len(self.failures())

    def _under_way(self) -> str:
        dumps = [file for cell in self.left for file in (self._runs / cell.name / ROLLOUTS).glob("*.jsonl")]
        newest = max(dumps, key=lambda file: file.stat().st_mtime, default=None)
        return f"{newest.parents[1].name} step {newest.stem}" if newest else ""


class _Crew:
    """Worker processes, each with its share of the cores."""

    def __init__(self, count: int, command: Sequence[str], runs: Path) -> None:
        self._command, self._runs = command, runs
        cores = sorted(os.sched_getaffinity(0))
        self._cores = [cores[number::count] if count > 1 else cores for number in range(count)]
        self._ended_before = [0] * count
        self._again = [False] * count  # it ended without a run's end before, and a killed worker may try once more
        self.processes = [self._start(number) for number in range(count)]

    def at_work(self, ended: int) -> bool:
        """Start who has ended and may find more to do; whether anybody works.

        Args:
            ended: how many runs have ended so far, well or not.

        Raises:
            WorkerError: a worker ended twice, and no run did meanwhile.
            SettingsError: the study is wrong.
        """
        for number, process in enumerate(self.processes):
            if process.poll() in (None, NOTHING_LEFT):
                continue
            if process.returncode == WRONG_STUDY:
                raise SettingsError(self._log(number).read_text(errors="replace").rpartition("error: ")[2].strip())
            if ended == self._ended_before[number] and process.returncode != AT_LIMIT and self._again[number]:
                raise WorkerError(
                    f"a worker ended with exit code {process.returncode} before a run did; its log is "
                    f"{self._log(number)}"
                )
            self._again[number] = ended == self._ended_before[number]
            self._ended_before[number] = ended
            self.processes[number] = self._start(number)
        return any(process.poll() is None for process in self.processes)

    def _log(self, number: int) -> Path:
        return self._runs / f"worker-{number}.log"

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        with self._log(number).open("ab") as log:
            process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            os.sched_setaffinity(process.pid, self._cores[number])
        return process

    def stop(self) -> None:
        """End all of them, by force where that does not work."""
        for how in (signal.SIGTERM, signal.SIGKILL):
            alive = [process for process in self.processes if process.poll() is None]
            for process in alive:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, how)
            for process in alive:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_STOP_S)


@contextlib.contextmanager
def _crew(count: int, command: Sequence[str], runs: Path) -> Iterator[_Crew]:
    crew = _Crew(count, command, runs)
    try:
        with ended_by_sigterm():
            yield crew
    finally:
        crew.stop()
