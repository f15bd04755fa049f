"""Train a thinking reward model on verl's SFT trainer.

``torchrun -m recipe.sophiavl.trm_training.train`` plus Hydra overrides; examples/train_trm.sh calls it.
"""

from __future__ import annotations

import os
from pathlib import Path

from recipe.sophiavl.verl_support import environment

_CPU_CHOICE = environment.configure()  # before anything imports verl


import hydra  # noqa: E402
from omegaconf import DictConfig, OmegaConf  # noqa: E402

from recipe.sophiavl.data_files import expand_patterns  # noqa: E402
from recipe.sophiavl.hydra_errors import explained  # noqa: E402
from recipe.sophiavl.trm.prompt import PromptError, load_template  # noqa: E402
from recipe.sophiavl.trm_training.sft_plan import plan  # noqa: E402
from recipe.sophiavl.validation import SettingsError  # noqa: E402


def check(config: DictConfig) -> None:
    """Stop before a model is loaded where a setting can't work.

    Raises:
        SettingsError: the message says what to change.
    """
    try:
        load_template(config.data.prompt_path)
    except PromptError as error:
        raise SettingsError(str(error).replace("thinking_reward.prompt_path", "data.prompt_path")) from error
    if config.data.target not in ("score", "reply"):
        raise SettingsError(f"data.target={config.data.target!r}: must be score or reply")
    if not isinstance(config.trm.freeze_vision, bool):
        raise SettingsError(f"trm.freeze_vision={config.trm.freeze_vision!r}: must be true or false")
    if config.trm.dry_run not in (False, True, "full"):
        raise SettingsError(f"trm.dry_run={config.trm.dry_run!r}: must be false, true or full")
    if config.trm.freeze_vision and config.engine.strategy != "fsdp2":
        raise SettingsError(
            f"trm.freeze_vision=true with engine.strategy={config.engine.strategy!r}: parameters are frozen one by one "
            "under fsdp2 only. Set engine.strategy=fsdp2, or trm.freeze_vision=false"
        )
    if environment.on_cpu() and config.trainer.device != "cpu" and not config.trm.dry_run:
        raise SettingsError(
            f"trainer.device={config.trainer.device!r}: {environment.why_no_accelerator()} Without one, add "
            "trm_platform=cpu to the command, or trm.dry_run=true to check the configuration only"
        )


@explained
@hydra.main(config_path="../config", config_name="trm_sft", version_base=None)
def main(config: DictConfig) -> None:
    """Hydra entry point; a wrong setting ends it with one message on standard error and exit code 1."""
    try:
        check(config)
        environment.announce(_CPU_CHOICE, config.trainer.device)
        if config.trm.dry_run:
            print(OmegaConf.to_yaml(config, resolve=True) if config.trm.dry_run == "full" else plan(config).text())
            print("The configuration is valid.")
            return
        expand_patterns(config.data)
        if metrics := os.environ.get("VERL_FILE_LOGGER_PATH"):  # verl opens it, and makes no folder
            Path(metrics).parent.mkdir(parents=True, exist_ok=True)

        from verl.utils.device import auto_set_device

        from recipe.sophiavl.trm_training.sft_trainer import run_sft

        auto_set_device(config)
        run_sft(config)
    except SettingsError as error:
        raise SystemExit(f"\nerror: {error}") from error


if __name__ == "__main__":
    main()
