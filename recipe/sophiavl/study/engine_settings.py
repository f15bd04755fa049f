"""The settings that runs on one engine have in common, and those that each may have for itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recipe.sophiavl.validation import SettingsError

# What one run may have otherwise than the next: settings, and groups with all that is in them; but not what is in
# `OF_THE_ENGINE`, which its workers were made with or keep.
OF_A_RUN = (
    "run_dir",
    "sophiavl",
    "thinking_reward",
    "algorithm",
    "data.seed",
    "actor_rollout_ref.rollout.seed",
    "trainer.default_local_dir",
    "trainer.rollout_data_dir",
    "trainer.validation_data_dir",
    "trainer.val_before_train",
    "trainer.val_only",
    "trainer.test_freq",
    "global_profiler.save_path",
    "actor_rollout_ref.actor.profiler.save_path",
    "actor_rollout_ref.ref.profiler.save_path",
    "actor_rollout_ref.rollout.profiler.save_path",
    "critic.profiler.save_path",
)

OF_THE_ENGINE = ("sophiavl.validation_modes", "algorithm.use_kl_in_reward")


def engine_settings(config: DictConfig) -> dict[str, Any]:
    """The settings that all runs on one engine have in common, by dotted key."""
    whole = OmegaConf.to_container(config, resolve=True)
    return {key: value for key, value in _leaves(whole) if not _of_a_run(key)}


def _of_a_run(key: str) -> bool:
    if key in OF_THE_ENGINE:
        return False
    return any(key == name or key.startswith(f"{name}.") for name in OF_A_RUN)


def check_same(first: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise a SettingsError that names the settings in which two runs need different engines."""
    keys = sorted(key for key in first.keys() | now.keys() if first.get(key) != now.get(key))
    if keys:
        told = "; ".join(f"{key}: {first.get(key)!r} there, {now.get(key)!r} here" for key in keys)
        raise SettingsError(
            f"this run can't share the engine of those before it ({told}): start it with a study of its own"
        )


def _leaves(tree: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            found += _leaves(value, f"{above}{name}.")
        else:
            found.append((f"{above}{name}", value))
    return found
