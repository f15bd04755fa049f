"""verl's SFT trainer, with a resume that does not lose an epoch, and a vision encoder that may stay as it is."""

from __future__ import annotations

import logging
from typing import Any

import torch
from verl.trainer.sft_trainer import SFTTrainer
from verl.utils.distributed import destroy_global_process_group, initialize_global_process_group

from recipe.sophiavl.validation import SettingsError

logger = logging.getLogger(__name__)

# What transformers calls vision encoders: Qwen-VL's with its projector; others' without.
VISION_MODULES = ("visual", "vision_tower", "vision_model")


def freeze_vision(model: torch.nn.Module) -> int:
    """Take the vision encoder out of the training: its parameters get no gradient, so no optimizer moves them.

    Works on a model that FSDP2 has wrapped already, before its first forward.

    Returns:
        How many parameter tensors are frozen.

    Raises:
        SettingsError: the model has no module of a known name.
    """
    frozen = [
        parameter for name, parameter in model.named_parameters() if not set(name.split(".")).isdisjoint(VISION_MODULES)
    ]
    if not frozen:
        raise SettingsError(
            f"trm.freeze_vision=true: {type(model).__name__} has no module called {' or '.join(VISION_MODULES)}; "
            "set it to false"
        )
    for parameter in frozen:
        parameter.requires_grad_(False)
    return len(frozen)


class ThinkingSFTTrainer(SFTTrainer):
    """verl 0.9.1 restores the data loader as it was saved. Saved after the last batch of an epoch, which is where
    ``save_freq: after_each_epoch`` saves, it has nothing left: the next epoch is passed over without a word."""

    def _init_engine(self) -> None:
        super()._init_engine()
        if self.config.trm.freeze_vision:
            logger.warning("frozen: %d parameter tensors of the vision encoder", freeze_vision(self.engine.module))

    def fit(self) -> None:
        """Train; from the end of an epoch, with a loader that is at its beginning."""
        step = self.resume_global_step
        if step > 0 and step % len(self.train_dataloader) == 0:
            self._build_dataloader()
            self.ckpt_handler.train_dataloader = self.train_dataloader
        super().fit()


def run_sft(config: Any) -> None:
    """Train in this process, one of torchrun's. As verl's function of that name, with the trainer above."""
    initialize_global_process_group()
    ThinkingSFTTrainer(config=config).fit()
    destroy_global_process_group()
