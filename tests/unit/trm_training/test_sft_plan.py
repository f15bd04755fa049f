"""The plan of an SFT is that of verl's own loader."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DistributedSampler
from torchdata.stateful_dataloader import StatefulDataLoader

from recipe.sophiavl.trm_training.sft_plan import plan
from recipe.sophiavl.validation import SettingsError


def config(files: str | None = None, **changed: object) -> DictConfig:
    found = {
        "data": {"train_files": files, "train_max_samples": -1, "train_batch_size": 8, "max_length": 100},
        "engine": {"ulysses_sequence_parallel_size": 1},
        "trainer": {"nnodes": 1, "n_gpus_per_node": 4, "total_epochs": 3, "total_training_steps": None},
    }
    made = OmegaConf.create(found)
    for key, value in changed.items():
        OmegaConf.update(made, key.replace("__", "."), value)
    return made


@pytest.mark.parametrize("rows", [7, 8, 29, 33, 64])
def test_an_epoch_has_as_many_steps_as_verls_loader(tmp_path: Path, rows: int) -> None:
    pq.write_table(pa.table({"score": [0.5] * rows}), tmp_path / "train.parquet")
    # as verl's SFTTrainer makes it, for one rank of four
    sampler = DistributedSampler(range(rows), shuffle=True, num_replicas=4, rank=0, drop_last=True)
    loader = StatefulDataLoader(range(rows), batch_size=2, sampler=sampler, drop_last=True)
    found = plan(config(f"{tmp_path}/*.parquet"))
    assert (found.rows, found.steps_per_epoch, found.steps) == (rows, len(loader), 3 * len(loader))


def test_steps_end_the_training_where_epochs_do_not_before() -> None:
    assert plan(config(trainer__total_training_steps=5)).steps == 5
    assert plan(config()).steps is None


def test_what_is_printed_can_be_read() -> None:
    text = plan(config()).text()
    assert "8 samples, 2 a rank of 4" in text
    assert "at most 100 a sample, 800 a step" in text
    assert text.count("unknown until data.train_files is there") == 2


def test_a_batch_that_ranks_cannot_share_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"data\.train_batch_size=8: 3 ranks .*trainer\.n_gpus_per_node=3"):
        plan(config(trainer__n_gpus_per_node=3))
