"""Entry point: ``python -m recipe.sophiavl.main_sophiavl`` plus Hydra overrides trains with Trust-GRPO on verl."""

from __future__ import annotations

import sys
from collections.abc import Callable

from recipe.sophiavl.verl_support import environment

_CPU_CHOICE = environment.configure()  # before anything imports verl

import hydra  # noqa: E402
from omegaconf import DictConfig, OmegaConf  # noqa: E402

from recipe.sophiavl import cluster, start  # noqa: E402
from recipe.sophiavl.checks import check_config  # noqa: E402
from recipe.sophiavl.data_checks import check_data_files  # noqa: E402
from recipe.sophiavl.data_files import expand_patterns, training_rows  # noqa: E402
from recipe.sophiavl.hydra_errors import explained  # noqa: E402
from recipe.sophiavl.model_checks import check_models  # noqa: E402
from recipe.sophiavl.settings import EngineSettings, ThinkingRewardSettings  # noqa: E402
from recipe.sophiavl.trm.preflight import PreflightError, run_preflight  # noqa: E402
from recipe.sophiavl.validation import SettingsError  # noqa: E402

FINISHED = 3  # exit code of check_only=true where there is nothing left to do

Train = Callable[[DictConfig, dict[str, str], bool], None]
"""Trains with a checked configuration, the variables that its processes need, and whether the TRM was checked."""


def run(config: DictConfig, train: Train | None = None) -> None:
    """Validate, check models, data, the run's folder and the TRM, and train.

    Args:
        train: None starts verl for this run alone.

    Raises:
        SettingsError: a setting is wrong, or the folder holds a run of another experiment.
        PreflightError: the thinking reward model can't be used.
    """
    settings = ThinkingRewardSettings.from_config(config.thinking_reward)
    check_config(config, settings)
    environment.announce(_CPU_CHOICE, config.trainer.device)
    if dry_run := EngineSettings.from_config(config.sophiavl).dry_run:
        _show(config, whole=dry_run == "full")
        return
    expand_patterns(config.data)
    check_models(config)
    check_data_files(config)
    variables = cluster.private_environment(settings)
    planned = start.plan(config)
    for note in planned.notes:
        print(note, file=sys.stderr)
    if config.check_only:
        would = "go on with the" if planned.goes_on else "begin a"
        verdict = "nothing is left to do" if planned.finished else f"a start would {would} run in {config.run_dir}"
        print(f"check_only: {verdict}. The thinking reward model was not asked, and nothing was started.")
        raise SystemExit(FINISHED if planned.finished else 0)
    if planned.finished:
        return
    asks_from_here = cluster.asks_from_here(config)
    if settings.enable and settings.mode == "external" and settings.preflight and asks_from_here:
        found = run_preflight(settings.client_settings())
        config.thinking_reward.structured_output = found.structured_output
    cluster.make_absolute(config)
    cluster.set_platform_of_workers(config)
    variables |= planned.open(config)
    try:
        (train or _train)(config, variables, asks_from_here)
    except (SettingsError, PreflightError):  # by a worker of a cluster
        planned.take_back()
        raise
    planned.finish(config)
    planned.close()


def _show(config: DictConfig, *, whole: bool) -> None:
    """Print the plan of the run, or the whole configuration."""
    if whole:
        print(OmegaConf.to_yaml(config, resolve=True))
    else:
        from recipe.sophiavl import plan, plan_table
        from recipe.sophiavl.model_size import model_size

        model = model_size(config.actor_rollout_ref.model)
        gpu_gb = config.sophiavl.gpu_memory_gb or environment.gpu_memory_gb() or plan.ASSUMED_GPU_GB
        found = plan.plan(config, training_rows(config.data), model, gpu_gb)
        plan_table.show(found, config)
    print("The configuration is valid.")


def _train(config: DictConfig, variables: dict[str, str], preflight_done: bool) -> None:
    from verl.trainer.main_ppo import run_ppo

    from recipe.sophiavl.task_runner import TrustGRPOTaskRunner

    run_ppo(config, cluster.with_arguments(TrustGRPOTaskRunner, variables, preflight_done))


@explained
@hydra.main(config_path="config", config_name="sophiavl_trainer", version_base=None)
def main(config: DictConfig) -> None:
    """Hydra entry point; a wrong setting ends it with one message on standard error and exit code 1."""
    try:
        run(config)
    except (SettingsError, PreflightError) as error:
        # Ray's error of a task is one of these too, with a traceback in its message
        raise SystemExit(f"\nerror: {getattr(error, 'cause', error)}") from error


if __name__ == "__main__":
    main()
