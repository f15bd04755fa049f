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
from hydra import compose, initialize_config_dir  # noqa: E402
from omegaconf import DictConfig  # noqa: E402

from recipe.sophiavl import main_sophiavl, start  # noqa: E402
from recipe.sophiavl.server_process import ended_by_sigterm, free_port, running_server  # noqa: E402
from recipe.sophiavl.study import records  # noqa: E402
from recipe.sophiavl.study.grid import Cell, Study, load_judge, load_study  # noqa: E402
from recipe.sophiavl.study.runner import AT_LIMIT, FAILED, NOTHING_LEFT, failure_file, result_file  # noqa: E402
from recipe.sophiavl.study.watchdog import ended_when_stalled  # noqa: E402

CONFIG = Path(main_sophiavl.__file__).parent / "config"
SERVER_START_S = 300.0


@contextlib.contextmanager
def claimed(study: Study, results: Path, runs: Path) -> Iterator[Cell | None]:
    """The next run that nobody has made, failed at, or works on; None where there is none."""
    for cell in study.cells():
        if result_file(results, cell).exists() or failure_file(runs, cell).exists():
            continue
        with contextlib.suppress(Timeout), FileLock(runs / f"{cell.name}.claim", timeout=0):
            if not result_file(results, cell).exists():  # somebody may have ended it just now
                yield cell
                return
    yield None


def run_config(study: Study, cell: Cell, run_dir: Path, url: str | None) -> DictConfig:
    """The configuration of a run.

    Raises:
        hydra.errors.HydraException: an override is wrong.
    """
    where = [f"run_dir={run_dir}", "sophiavl.report=false"]
    # A cluster that something else started on this machine is not joined.
    where.append("+ray_kwargs.ray_init.address=local")
    asked = [f"thinking_reward.urls=[{url}]", "thinking_reward.model=trm"] if url else []
    with initialize_config_dir(str(CONFIG), version_base=None):
        return compose("sophiavl_trainer", [*study.overrides(cell), *where, *asked])


def make_run(study: Study, cell: Cell, results: Path, runs: Path, train: main_sophiavl.Train) -> None:
    """Train one cell of the grid and keep its result.

    Raises:
        RecordError: the run came to its end, but its rewards are wrong.
        Exception: whatever ended the training.
    """
    run_dir = runs / cell.name
    shutil.rmtree(run_dir, ignore_errors=True)  # of a worker that was killed: it has no checkpoints to go on from
    started = time.monotonic()
    port = free_port()
    with contextlib.ExitStack() as stack:
        url = None
        if command := study.command(cell, port):
            url = f"http://127.0.0.1:{port}/v1"
            server = (
                cell.reward_model,
                shlex.split(command),
                os.environ,
                f"{url}/models",
                runs / f"{cell.name}.trm.log",
            )
            stack.enter_context(running_server(*server, SERVER_START_S))
        config = run_config(study, cell, run_dir, url)
        main_sophiavl.run(config, train)
    told = {
        "commit": start.versions().get("commit"),
        "overrides": study.overrides(cell),
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
    with ended_by_sigterm(), contextlib.closing(Engine()) as engine:
        return work(load_study(given.study), given.results, given.runs, given.most, given.stall_s, engine.train)


def work(study: Study, results: Path, runs: Path, most: int, stall_s: float, train: main_sophiavl.Train) -> int:
    """Make runs until none is left for this process, or so many (0: no limit), or one fails: an exit code."""
    made = 0
    while not most or made < most:
        with claimed(study, results, runs) as cell:
            if cell is None:
                return NOTHING_LEFT
            print(f"run {cell.name}", flush=True)
            tell = partial(_tell_failure, failure_file(runs, cell))
            try:
                with ended_when_stalled(runs / cell.name, stall_s, tell, FAILED):
                    make_run(study, cell, results, runs, train)
            except Exception:  # noqa: BLE001  (told to the parent, and this process ends)
                tell(traceback.format_exc())
                return FAILED
        made += 1
    return AT_LIMIT


def _tell_failure(file: Path, why: str) -> None:
    file.write_text(why, encoding="utf-8")
    print(why, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
