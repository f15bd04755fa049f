"""Runs on a Ray cluster: what its processes, which may know nothing of the driver, have to be told, and how.

A worker of a cluster that was there before the run has neither the driver's environment nor its working directory. Ray
writes runtime environments into its logs and verl prints its configuration, so the API key takes neither way: it goes
as an argument to the task runner, and from there to the reward workers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from recipe.sophiavl.settings import ThinkingRewardSettings
from recipe.sophiavl.trm.client import read_api_key
from recipe.sophiavl.trm.client_settings import ClientSettings
from recipe.sophiavl.trm.preflight import Check, PreflightError, run_preflight
from recipe.sophiavl.validation import SettingsError
from recipe.sophiavl.verl_support import environment

_OUTPUT_PATHS = ("run_dir", "trainer.default_local_dir", "trainer.rollout_data_dir", "trainer.validation_data_dir")
# Where a model is named, a path that is not there is the name of one on a hub.
_INPUT_PATHS = (
    "data.train_files",
    "data.val_files",
    "trainer.resume_from_path",
    "thinking_reward.prompt_path",
    "actor_rollout_ref.model.path",
    "actor_rollout_ref.model.tokenizer_path",
    "reward.reward_model.model_path",
)


def joins_cluster(config: DictConfig) -> bool:
    """Whether the run is told to join a Ray cluster that is already there."""
    return bool(config.ray_kwargs.ray_init.get("address") or os.environ.get("RAY_ADDRESS"))


def asks_from_here(config: DictConfig) -> bool:
    """Whether the reward workers run on the driver's machine, as far as the configuration tells."""
    return config.trainer.nnodes == 1 and not joins_cluster(config)


def make_absolute(config: DictConfig) -> None:
    """Make every path of the configuration absolute, in place: workers have other working directories.

    Addresses (``hdfs://...``) and names of hub models stay as they are.
    """
    for key in (*_OUTPUT_PATHS, *_INPUT_PATHS):
        value = OmegaConf.select(config, key)
        if value is None:
            continue
        several = isinstance(value, list | ListConfig)
        paths = [_absolute(str(path), must_exist=key in _INPUT_PATHS) for path in (value if several else [value])]
        OmegaConf.update(config, key, paths if several else paths[0])


def _absolute(path: str, *, must_exist: bool) -> str:
    there = Path(path).expanduser()
    if "://" in path or (must_exist and not there.exists()):
        return path
    return str(there.absolute())


def set_platform_of_workers(config: DictConfig) -> None:
    """On the CPU platform, put its variables into Ray's runtime environment, in place: verl reads them on import."""
    if environment.on_cpu():
        variables, _ = environment.cpu_environment()
        with open_dict(config):
            OmegaConf.update(config, "ray_kwargs.ray_init.runtime_env.env_vars", variables, merge=True)


def private_environment(settings: ThinkingRewardSettings) -> dict[str, str]:
    """The variables of the driver that the run's processes need and nothing may print: the API key.

    Raises:
        SettingsError: ``thinking_reward.api_key_env`` names a variable that is not set.
    """
    name = settings.client.get("api_key_env")
    if not (settings.enable and settings.mode == "external" and name):
        return {}
    try:
        return {name: str(read_api_key(settings.client_settings()))}
    except ValueError as error:
        raise SettingsError(str(error)) from error


def with_arguments(actor: Any, *arguments: Any) -> Any:
    """A Ray actor class whose arguments are given already; verl starts its task runner without any."""
    return SimpleNamespace(
        remote=lambda: actor.remote(*arguments),
        options=lambda **options: with_arguments(actor.options(**options), *arguments),
    )


def nodes_of_reward_workers(config: DictConfig) -> list[str]:
    """Ids of the nodes that verl starts its reward workers on: all with CPUs, in turn (``RewardLoopManager``)."""
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
    return nodes[: config.reward.num_workers]


def preflight_on(nodes: Sequence[str], settings: ClientSettings, variables: Mapping[str, str]) -> ClientSettings:
    """Check the TRM from each of these nodes of the cluster, all at once.

    Args:
        nodes: ids of nodes, at least one.
        settings: of the client that the reward workers will have.
        variables: environment variables for the check, the API key among them.

    Returns:
        The settings that the run should use (`run_preflight`).

    Raises:
        PreflightError: a check failed; its message says from which node.
    """
    tasks = [
        _preflight_here.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            settings, dict(variables)
        )
        for node in nodes
    ]
    found = ray.get(tasks)
    if failed := [check for checks in found if not isinstance(checks, ClientSettings) for check in checks]:
        raise PreflightError(failed)
    return found[0]


@ray.remote(num_cpus=0)
def _preflight_here(settings: ClientSettings, variables: Mapping[str, str]) -> ClientSettings | list[Check]:
    """The settings to use, or the checks that failed."""
    os.environ.update(variables)
    try:
        return run_preflight(settings)
    except PreflightError as error:
        here = ray.util.get_node_ip_address()
        return [replace(check, endpoint=f"{check.endpoint}, asked from {here}") for check in error.failed]
