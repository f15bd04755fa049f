"""Checks of the composed configuration, before Ray or any model starts."""

from __future__ import annotations

import os

from omegaconf import DictConfig

from recipe.sophiavl.settings import REWARD_MANAGER_NAME, ThinkingRewardSettings
from recipe.sophiavl.validation import SettingsError


def check_config(config: DictConfig, settings: ThinkingRewardSettings) -> None:
    """Check the recipe's settings against verl's, then run verl's own validation.

    Raises:
        SettingsError: a combination that can't work; the message names the setting and what to change.
    """
    _check_engine(config)
    _check_reward(config, settings)

    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config
    from verl.utils.device import auto_set_device

    auto_set_device(config)
    try:
        validate_config(
            config=config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config)
        )
    except (AssertionError, ValueError) as error:
        raise SettingsError(f"verl refuses the configuration: {error}") from error


def _check_engine(config: DictConfig) -> None:
    if not config.trainer.use_v1:
        raise SettingsError("trainer.use_v1=False: Trust-GRPO is built on verl's V1 trainers; use true")
    if config.actor_rollout_ref.rollout.n < 2:
        raise SettingsError(
            f"actor_rollout_ref.rollout.n={config.actor_rollout_ref.rollout.n}: a group needs at least 2 responses"
        )
    on_cpu = os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu"
    if on_cpu and config.trainer.device != "cpu" and not config.sophiavl.dry_run:
        raise SettingsError(
            f"trainer.device={config.trainer.device!r}: this machine has no GPU. Add platform=cpu to the command, or "
            "sophiavl.dry_run=true to check the configuration only"
        )
    if config.trainer.device == "cpu" and not on_cpu:
        raise SettingsError(
            "trainer.device='cpu': this machine has a GPU. Leave out platform=cpu, or start with VERL_PLATFORM=cpu"
        )


def _check_reward(config: DictConfig, settings: ThinkingRewardSettings) -> None:
    name = config.reward.reward_manager.name
    if name != REWARD_MANAGER_NAME:
        raise SettingsError(f"reward.reward_manager.name={name!r}: the recipe needs {REWARD_MANAGER_NAME!r}")
    hosted = config.reward.reward_model
    if not settings.needs_verl_hosting:
        if hosted.enable:
            raise SettingsError(
                f"reward.reward_model.enable=True with thinking_reward.mode={settings.mode!r} and "
                f"thinking_reward.enable={settings.enable}: verl would host a model that nobody asks; "
                "use thinking_reward.mode=pool or colocated, or false here"
            )
        return
    if not hosted.enable or not hosted.model_path:
        raise SettingsError(
            f"thinking_reward.mode={settings.mode!r}: set reward.reward_model.enable=true and "
            f"reward.reward_model.model_path (now {hosted.model_path!r}) to the TRM that verl should host"
        )
    own_pool = settings.mode == "pool"
    if hosted.enable_resource_pool != own_pool:
        raise SettingsError(
            f"thinking_reward.mode={settings.mode!r}: set "
            f"reward.reward_model.enable_resource_pool={str(own_pool).lower()}"
        )
    if config.reward.custom_reward_function.path is None:
        raise SettingsError(
            "reward.custom_reward_function.path=None: verl would take the hosted TRM for a classifier; "
            "use pkg://reward_score"
        )
