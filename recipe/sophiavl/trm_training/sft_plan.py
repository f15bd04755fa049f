"""What an SFT configuration amounts to before anything starts, by the arithmetic of verl 0.9.1's ``SFTTrainer``."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig

from recipe.sophiavl.data_files import training_rows
from recipe.sophiavl.validation import SettingsError


@dataclass(frozen=True)
class SFTPlan:
    """Numbers of a training.

    Attributes:
        samples: of one optimiser step, over all ranks.
        ranks: data-parallel ones.
        longest: tokens of one sample, at most.
        rows: of the training data; None where the files are not there.
        steps_per_epoch: each rank takes an equal share of the rows, and whole batches of it; None without data.
        steps: of the training; None where only the data could tell.
    """

    samples: int
    ranks: int
    longest: int
    rows: int | None
    steps_per_epoch: int | None
    steps: int | None

    def text(self) -> str:
        """In a few lines."""
        unknown = "unknown until data.train_files is there"
        epoch = (
            unknown if self.steps_per_epoch is None else f"{self.rows:,} rows: {self.steps_per_epoch:,} optimiser steps"
        )
        return (
            f"a step    {self.samples:,} samples, {self.samples // self.ranks:,} a rank of {self.ranks}\n"
            f"an epoch  {epoch}\n"
            f"the run   {unknown if self.steps is None else f'{self.steps:,} optimiser steps'}\n"
            f"tokens    at most {self.longest:,} a sample, {self.longest * self.samples:,} a step"
        )


def plan(config: DictConfig) -> SFTPlan:
    """The plan of a checked configuration; reads the footers of its data files, where they are there.

    Raises:
        SettingsError: the ranks can't share a batch equally, or a data file is not parquet.
    """
    data, trainer = config.data, config.trainer
    gpus = trainer.nnodes * trainer.n_gpus_per_node
    ranks = gpus // config.engine.ulysses_sequence_parallel_size
    if data.train_batch_size % ranks:
        raise SettingsError(
            f"data.train_batch_size={data.train_batch_size}: {ranks} ranks (trainer.nnodes={trainer.nnodes} times "
            f"trainer.n_gpus_per_node={trainer.n_gpus_per_node}) can't share it equally"
        )
    rows = training_rows(data)
    per_epoch = None if rows is None else rows // ranks // (data.train_batch_size // ranks)
    limits = [trainer.total_training_steps, None if per_epoch is None else per_epoch * trainer.total_epochs]
    return SFTPlan(
        samples=data.train_batch_size,
        ranks=ranks,
        longest=data.max_length,
        rows=rows,
        steps_per_epoch=per_epoch,
        steps=min((limit for limit in limits if limit is not None), default=None),
    )
