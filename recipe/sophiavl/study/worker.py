"""One process that makes a study's runs on one engine, in the order of `work`; `runner` starts and watches it."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from recipe.sophiavl.verl_support import environment

environment.configure()  # before anything imports verl

from recipe.sophiavl import fingerprint, main_sophiavl, start  # noqa: E402
from recipe.sophiavl.data_files import listed  # noqa: E402
from recipe.sophiavl.server_process import ended_by_sigterm, free_port, running_server  # noqa: E402
from recipe.sophiavl.study import records  # noqa: E402
from recipe.sophiavl.study.grid import Cell, Study, load_judge, load_study  # noqa: E402
from recipe.sophiavl.study.run_config import check_study, run_config  # noqa: E402
from recipe.sophiavl.study.runner import WRONG_STUDY, result_file  # noqa: E402
from recipe.sophiavl.study.work import work  # noqa: E402
from recipe.sophiavl.validation import SettingsError  # noqa: E402

SERVER_START_S = 300.0


def make_run(study: Study, cell: Cell, *, results: Path, runs: Path, train: main_sophiavl.Train, commit: str) -> None:
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
        commit = start.versions().get("commit", "unknown")
        make = partial(make_run, study, results=given.results, runs=given.runs, train=engine.train, commit=commit)
        return work(study, given.results, given.runs, make, most=given.most, stall_s=given.stall_s)


if __name__ == "__main__":
    sys.exit(main())
