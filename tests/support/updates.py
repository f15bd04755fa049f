"""How often verl's optimizer really stepped, as its checkpoint tells."""

from __future__ import annotations

import json

import torch
from omegaconf import OmegaConf

from recipe.sophiavl.data_files import training_rows
from recipe.sophiavl.plan import Plan, plan
from recipe.sophiavl.run_folder import CHECKPOINTS, CONFIG
from testbed.training import TrainingRun


def plan_of(run: TrainingRun) -> Plan:
    """What was to be expected of a run by its configuration."""
    config = OmegaConf.load(run.folder / CONFIG)
    return plan(config, training_rows(config.data), None, gpu_gb=80)


def optimizer_steps(run: TrainingRun, step: int) -> int:
    """Of every parameter of every rank, at the checkpoint of this training step."""
    actor = run.folder / CHECKPOINTS / f"global_step_{step}/actor"
    ranks = json.loads((actor / "fsdp_config.json").read_text())["world_size"]
    counts = {
        int(values["step"])
        for rank in range(ranks)
        for values in torch.load(actor / f"optim_world_size_{ranks}_rank_{rank}.pt", weights_only=False)[
            "state"
        ].values()
    }
    (count,) = counts
    return count


def scheduler_steps(run: TrainingRun, step: int) -> int:
    """Of the learning rate: verl advances it once for all mini-batches that are trained on in one go."""
    actor = run.folder / CHECKPOINTS / f"global_step_{step}/actor"
    (extra,) = actor.glob("extra_state_world_size_*_rank_0.pt")
    return torch.load(extra, weights_only=False)["lr_scheduler"]["last_epoch"]
