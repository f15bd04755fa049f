"""The configuration of a study's run, and whether all runs of a study can be made, before the first one is."""

from __future__ import annotations

import shlex
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig

from recipe.sophiavl.checks import check_config
from recipe.sophiavl.settings import ThinkingRewardSettings
from recipe.sophiavl.study.engine_settings import check_same, engine_settings
from recipe.sophiavl.study.grid import Cell, Study, load_judge
from recipe.sophiavl.study.records import MOST_SAMPLES
from recipe.sophiavl.validation import SettingsError

CONFIG = Path(__file__).parents[1] / "config"
_MODES = {"greedy", "sampled"}
_ANY_URL = "http://127.0.0.1:1/v1"


def run_config(study: Study, cell: Cell, run_dir: Path, url: str | None) -> DictConfig:
    """The configuration of a run.

    Args:
        url: of its reward model; None where it has none.

    Raises:
        SettingsError: an override is wrong.
    """
    # A cluster that something else started on this machine is not joined.
    own = ["sophiavl.report=false", "+ray_kwargs.ray_init.address=local"]
    asked = [f"thinking_reward.urls=[{url}]", "thinking_reward.model=trm"] if url else []
    try:
        with initialize_config_dir(str(CONFIG), version_base=None):
            config = compose("sophiavl_trainer", [*study.overrides(cell), *own, *asked])
    except HydraException as error:
        raise SettingsError(f"variant {cell.variant}: {error}") from error
    config.run_dir = str(run_dir.absolute())  # not as an override: a path may hold what Hydra reads otherwise
    return config


def check_study(study: Study) -> None:
    """Check what would otherwise be found out run by run, after hours.

    Raises:
        SettingsError: there is no such judge, a command or an override is wrong, runs need different engines, or what a
            run leaves could not be recorded.
    """
    load_judge(study.judge)
    first = None
    for cell in {(cell.variant, cell.reward_model): cell for cell in study.cells()}.values():
        try:
            asks = bool(shlex.split(study.command(cell, 1)))
        except (ValueError, KeyError, IndexError) as error:
            raise SettingsError(
                f"reward_models.{cell.reward_model}: no command ({error!r}); {{port}} and {{seed}} are put in, other "
                "braces are doubled"
            ) from error
        config = run_config(study, cell, Path("run"), _ANY_URL if asks else None)
        try:
            check_config(config, ThinkingRewardSettings.from_config(config.thinking_reward))
            _check_recordable(config)
            settings = engine_settings(config)
            first = first or settings
            check_same(first, settings)
        except SettingsError as error:
            raise SettingsError(f"{cell.name}: {error}") from error


def _check_recordable(config: DictConfig) -> None:
    trainer, steps = config.trainer, config.trainer.total_training_steps
    if trainer.v1.trainer_mode != "sync":
        raise SettingsError(f"trainer.v1.trainer_mode={trainer.v1.trainer_mode}: runs share an engine in sync only")
    if steps is None or trainer.test_freq <= 0:
        raise SettingsError("set trainer.total_training_steps, and trainer.test_freq, which the last step validates")
    if trainer.save_freq > 0:
        raise SettingsError(f"trainer.save_freq={trainer.save_freq}: runs that share an engine keep no checkpoints: -1")
    if set(config.sophiavl.validation_modes) != _MODES:
        raise SettingsError("set sophiavl.validation_modes=[greedy,sampled]")
    if config.actor_rollout_ref.rollout.val_kwargs.n > MOST_SAMPLES:
        raise SettingsError(f"actor_rollout_ref.rollout.val_kwargs.n: {MOST_SAMPLES} at most")
