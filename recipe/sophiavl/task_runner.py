"""verl's task runner with the Trust-GRPO trainer in place of the stock one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial

import ray
from omegaconf import DictConfig

from recipe.sophiavl.cluster import nodes_of_reward_workers, preflight_on
from recipe.sophiavl.plugin import check_registered
from recipe.sophiavl.settings import ThinkingRewardSettings
from recipe.sophiavl.verl_support import internals


@ray.remote
class TrustGRPOTaskRunner(internals.task_runner_class()):
    """Runs the training; ``trainer.v1.trainer_mode`` picks the stock trainer that Trust-GRPO builds on.

    Args:
        variables: environment variables of the driver for this process and the reward workers, the API key among them.
        preflight_done: the driver has checked the TRM; it is checked again only from other nodes.
    """

    def __init__(self, variables: Mapping[str, str], preflight_done: bool) -> None:
        super().__init__()
        self._variables = dict(variables)
        self._preflight_done = preflight_done
        os.environ.update(self._variables)

    def run(self, config: DictConfig) -> None:
        check_registered()
        self._preflight(config)
        self._extend_verl(config.trainer.v1.trainer_mode)
        super().run(config)

    def _extend_verl(self, mode: str) -> None:
        """Put the recipe's own in the place of verl's in this process."""
        from recipe.sophiavl.loggers import RunTracking
        from recipe.sophiavl.trainer import trust_grpo_trainer

        internals.prepare_reward_workers(partial(_set_variables, self._variables))
        internals.give_reward_workers_the_replicas()
        internals.use_trainer(mode, trust_grpo_trainer(internals.trainer_class(mode)))
        internals.use_tracking(RunTracking)

    def _preflight(self, config: DictConfig) -> None:
        """Ask an external TRM from where the reward workers will, before any model is loaded."""
        settings = ThinkingRewardSettings.from_config(config.thinking_reward)
        if not (settings.enable and settings.preflight and settings.mode == "external"):
            return
        nodes = nodes_of_reward_workers(config)
        if len(nodes) > 1 or not self._preflight_done:
            found = preflight_on(nodes, settings.client_settings(), self._variables)
            config.thinking_reward.structured_output = found.structured_output


def _set_variables(variables: Mapping[str, str]) -> None:
    os.environ.update(variables)
