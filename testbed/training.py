"""Runs the recipe's entry point as a user would, in a process of its own, and reads what verl logged and dumped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from recipe.sophiavl.report import Steps, load_metrics
from recipe.sophiavl.run_folder import LOG, METRICS_PATTERN, ROLLOUTS, VALIDATION

REPOSITORY = Path(__file__).resolve().parents[1]
RUN_LIMIT_S = 420


def batches(prompts: int, responses: int, micro_batch: int | None = None) -> tuple[str, ...]:
    """Overrides for batches of ``prompts`` questions with ``responses`` each, in micro-batches (default: a group)."""
    micro_batch = micro_batch or responses
    return (
        f"data.train_batch_size={prompts}",
        f"actor_rollout_ref.rollout.n={responses}",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={prompts}",
        f"actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu={micro_batch}",
        f"actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu={micro_batch}",
        f"actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu={micro_batch}",
    )


class TrainingRun:
    """One folder with one training run, which may be started several times (and resumes).

    Args:
        folder: the run's own (``run_dir``).
        overrides: Hydra overrides on top of ``platform=cpu preset=quickstart``.
        environment: variables of the driver, beside those of this process.
    """

    def __init__(self, folder: Path, *overrides: str, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self._environment = dict(environment or {})
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / LOG
        self._command = [
            *(sys.executable, "-m", "recipe.sophiavl.main_sophiavl", "platform=cpu", "preset=quickstart"),
            *(f"run_dir={folder}", "sophiavl.report=false"),
            *overrides,
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *overrides: str) -> TrainingRun:
        """Start the training in the background, with these overrides beside the run's own."""
        environment = {**os.environ, **self._environment, "HF_HUB_OFFLINE": "1"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, *overrides],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=REPOSITORY,
                start_new_session=True,
            )
        return self

    def wait(self) -> int:
        """Wait for the end, for RUN_LIMIT_S seconds at most; returns the exit code."""
        try:
            return self._process.wait(RUN_LIMIT_S)
        finally:
            self.kill()

    def run(self) -> TrainingRun:
        """Start, wait, and fail with the end of the log unless it succeeded."""
        code = self.start().wait()
        assert code == 0, f"exit code {code}; the end of {self.log}:\n{self.tail()}"
        return self

    def wait_for(self, file: Path, content: str = "") -> None:
        """Wait until a file of the run exists and contains ``content``."""
        limit = time.monotonic() + RUN_LIMIT_S
        while not (file.exists() and content in file.read_text()):
            assert self._process.poll() is None, f"ended too early; the end of {self.log}:\n{self.tail()}"
            assert time.monotonic() < limit, f"no {file} after {RUN_LIMIT_S} s; {self.tail()}"
            time.sleep(0.05)

    def kill(self) -> None:
        """End it at once with all its processes, as a crash would."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(30)

    def kill_worker(self, name: str) -> None:
        """Kill one of its Ray workers, as the kernel does where memory runs short.

        Args:
            name: a part of its class's name.
        """
        for process in psutil.Process(self._process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended since
                title = process.cmdline()[:1]
                if title and title[0].startswith("ray::") and name in title[0]:
                    process.kill()
                    return
        raise LookupError(f"the run has no Ray worker {name}")

    def tail(self, characters: int = 4000) -> str:
        """The end of the log."""
        return self.log.read_text(errors="replace")[-characters:]

    def metrics(self) -> Steps:
        """verl's logged metrics by step, over all starts."""
        return load_metrics(sorted(self.folder.glob(METRICS_PATTERN)))

    def rollouts(self, step: int) -> list[dict[str, Any]]:
        """The dumped responses of one training step."""
        return [json.loads(line) for line in (self.folder / ROLLOUTS / f"{step}.jsonl").read_text().splitlines()]

    def validations(self, step: int, mode: str = "") -> list[dict[str, Any]]:
        """The dumped responses of one validation: of the first way in which it sampled, or of this one."""
        folder = self.folder / VALIDATION
        folder = folder / mode if (folder / mode).is_dir() else folder
        return [json.loads(line) for line in (folder / f"{step}.jsonl").read_text().splitlines()]
