"""One engine for many short runs: Ray, the policy's worker and the rollout server start once.

A run after the first one takes them over. The policy, its optimiser and schedule go back to where they were before the
first run's first step, by verl's own checkpoint; reward workers begin anew; data, logger and trainer are the run's own.
The rollout server draws on from where its random numbers are: runs on one engine are independent of each other, and a
seed decides which questions come when, not what is sampled.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray
from omegaconf import DictConfig

from recipe.sophiavl.plugin import check_registered
from recipe.sophiavl.study.engine_settings import check_same, engine_settings
from recipe.sophiavl.task_runner import TrustGRPOTaskRunner
from recipe.sophiavl.verl_support import internals


class Engine:
    """The engine of this process, as the driver holds it; it starts with the first run."""

    def __init__(self) -> None:
        self._runner: Any = None
        self._folder = tempfile.TemporaryDirectory(prefix="sophiavl-study-")

    def train(self, config: DictConfig, variables: dict[str, str], preflight_done: bool) -> None:
        """Train as ``main_sophiavl`` does, on the engine of the runs before.

        Raises:
            SettingsError: the run needs another engine than the first one did; the message names the settings.
        """
        from verl.trainer.main_ppo import run_ppo

        def runner() -> Any:
            if self._runner is None:
                self._runner = StudyTaskRunner.remote(variables, preflight_done, Path(self._folder.name))
            else:
                ray.get(self._runner.prepare.remote(variables, preflight_done))
            return self._runner

        run_ppo(config, SimpleNamespace(remote=runner))

    def close(self) -> None:
        """End all its processes."""
        self._runner = None
        ray.shutdown()
        self._folder.cleanup()


@dataclass
class _Kept:
    """What the first run leaves to the others: the trainer's parts by name, and its settings."""

    settings: dict[str, Any]
    parts: dict[str, Any]


class ReusedEngineMixin:
    """Takes over the engine of the run before. Mix in before a Trust-GRPO trainer over ``PPOTrainerSync``."""

    kept: _Kept | None = None
    start_folder: Path  # of the checkpoint of the first run's start

    def _setup(self) -> None:
        kept, settings = type(self).kept, engine_settings(self.config)  # before verl writes into it
        if kept is None:
            super()._setup()
            parts = {name: getattr(self, name) for name in internals.ENGINE_PARTS if hasattr(self, name)}
            type(self).kept = _Kept(settings, parts)
            self.actor_rollout_wg.save_checkpoint(str(self.start_folder), None, 0, max_ckpt_to_keep=None)
            return
        check_same(kept.settings, settings)
        self._init_tokenizer()
        self._init_dataloader()
        self._init_dump_executor()
        vars(self).update(kept.parts)
        internals.renew_reward_workers(self.reward_loop_manager, self.config)
        self.checkpoint_manager.sleep_replicas()
        self.actor_rollout_wg.load_checkpoint(str(self.start_folder))
        self._load_checkpoint()


@ray.remote
class StudyTaskRunner(TrustGRPOTaskRunner.__ray_metadata__.modified_class):
    """Runs one training after the other in one process; see `TrustGRPOTaskRunner`.

    Args:
        start_folder: for the checkpoint of the first run's start.
    """

    def __init__(self, variables: Mapping[str, str], preflight_done: bool, start_folder: Path) -> None:
        super().__init__(variables, preflight_done)
        self._start_folder = start_folder

    def prepare(self, variables: Mapping[str, str], preflight_done: bool) -> None:
        """For the next run: its environment variables, and whether its TRM is checked."""
        self._variables.update(variables)
        self._preflight_done = preflight_done
        os.environ.update(variables)

    def run(self, config: DictConfig) -> None:
        """Train; the engine stays as it is."""
        with internals.queue_kept_open():
            super().run(config)

    def init_agent_loop_manager(self) -> None:
        """The one that is there goes on: the reward workers that it hands responses to are the same."""
        if self.agent_loop_manager is None:
            super().init_agent_loop_manager()

    def _extend_verl(self, mode: str) -> None:
        if self.trainer is not None:  # this process had a run before
            return
        super()._extend_verl(mode)
        check_registered()
        base = internals.trainer_class(mode)
        own = {"start_folder": self._start_folder}
        internals.use_trainer(mode, type(f"Study{base.__name__}", (ReusedEngineMixin, base), own))
