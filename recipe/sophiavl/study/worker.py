"""One process that makes a study's runs, one after the other, on one engine; `runner` starts and watches it.

A run is counted once its file is in the folder of results. Whoever holds a run's claim works on it: several workers, of
one command or of several, share a grid. What a killed worker began is begun again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from recipe.sophiavl.verl_support import environment

environment.configure()  # before anything imports verl

from filelock import FileLock, Timeout  # noqa: E402

from recipe.sophiavl import fingerprint, main_sophiavl, start  # noqa: E402
from recipe.sophiavl.data_files import listed  # noqa: E402
from recipe.sophiavl.server_process import ended_by_sigterm, free_port, running_server  # noqa: E402
from recipe.sophiavl.study import records  # noqa: E402
from recipe.sophiavl.study.grid import Cell, Study, load_judge, load_study  # noqa: E402
from recipe.sophiavl.study.run_config import check_study, run_config  # noqa: E402
from recipe.sophiavl.study.runner import (  # noqa: E402
    AT_LIMIT,
    CLAIMS,
    FAILED,
    NOTHING_LEFT,
    WRONG_STUDY,
    failure_file,
    result_file,
)
from recipe.sophiavl.study.watchdog import ended_when_stalled  # noqa: E402
from recipe.sophiavl.validation import SettingsError  # noqa: E402

SERVER_START_S = 300.0
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


def make_run(study: Study, cell: Cell, results: Path, runs: Path, train: main_sophiavl.Train, commit: str) -> None:
    """Train one cell of the grid and keep its result.

    Args:
        commit: of the code that this process has loaded.

    Raises:
        RecordError: the run came to its end, but does not count.
        Exception: whatever ended the training.
    """
    run_dir = runs / cell.name
    if run_dir.exists():  # of a worker that was killed: it has no checkpoints to go on from
        shutil.rmtree(run_dir)
    started = time.monotonic()
    port = free_port()
    command = shlex.split(study.command(cell, port))
    url = f"http://127.0.0.1:{port}/v1" if command else None
    config = run_config(study, cell, run_dir, url)
    with contextlib.ExitStack() as stack:
        server = None
        if url:
            # `python` in a command is the one that runs this.
            environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
            given = (cell.reward_model, command, environment, f"{url}/models", runs / f"{cell.name}.trm.log")
            server = stack.enter_context(running_server(*given, SERVER_START_S))
        main_sophiavl.run(config, train)
        if server is not None and server.poll() is not None:
            raise records.RecordError(f"the reward model {cell.reward_model} ended during the run")
    told = {
        "commit": commit,
        "overrides": study.overrides(cell),
        "command": study.reward_models.get(cell.reward_model, ""),
        "judge": study.judge,
        "data": {name: fingerprint.data_files(listed(config.data[f"{name}_files"])) for name in ("train", "val")},
        "dtype": str(config.actor_rollout_ref.rollout.dtype),
        "seconds": time.monotonic() - started,
    }
    questions = records.read_questions(records.data_files(config), config.data.image_key)
    lines = records.record(cell, config, questions, load_judge(study.judge), told=told)
    records.write(result_file(results, cell), lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make runs until none is left for it, or so many, or one fails, which ends the process with its engine."""
    from recipe.sophiavl.study.engine import Engine

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--most", type=int, default=0, help="end after so many runs; 0: no limit")
    parser.add_argument("--stall-s", type=float, required=True, help="seconds without a sign of life of a run")
    given = parser.parse_args(arguments)
    os.environ.pop(start.METRICS_VARIABLE, None)  # each run has metrics of its own
    try:
        study = load_study(given.study)
        check_study(study)
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_STUDY
    with ended_by_sigterm(), contextlib.closing(Engine()) as engine:
        return work(study, given.results, given.runs, given.most, given.stall_s, engine.train)


def work(study: Study, results: Path, runs: Path, most: int, stall_s: float, train: main_sophiavl.Train) -> int:
    """Make runs until none is left for this process, or so many (0: no limit), or one fails: an exit code."""
    made, parent = 0, os.getppid()
    commit = start.versions().get("commit", "unknown")
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
                    make_run(study, cell, results, runs, train, commit)
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


if __name__ == "__main__":
    sys.exit(main())
