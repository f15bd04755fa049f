"""verl's SFT trainer, with a resume that does not lose an epoch."""

from __future__ import annotations

from typing import Any

from verl.trainer.sft_trainer import SFTTrainer
from verl.utils.distributed import destroy_global_process_group, initialize_global_process_group


class ThinkingSFTTrainer(SFTTrainer):
    """verl 0.9.1 restores the data loader as it was saved. Saved after the last batch of an epoch, which is where
    ``save_freq: after_each_epoch`` saves, it has nothing left: the next epoch is passed over without a word."""

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
