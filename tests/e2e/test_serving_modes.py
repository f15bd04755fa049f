"""The TRM hosted by verl itself: on a resource pool of its own, and colocated with the training (asynchronous too)."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from testbed.training import TrainingRun, batches
from tests.e2e.conftest import MODELS

pytestmark = pytest.mark.e2e

STEPS = 2


@pytest.mark.parametrize(
    ("mode", "replicas", "gpus", "trainer"), [("pool", 2, 3, "sync"), ("colocated", 1, 1, "colocate_async")]
)
def test_hosted_trm_scores_every_response(
    tmp_path: Path, data_files: dict[str, Path], mode: str, replicas: int, gpus: int, trainer: str
) -> None:
    run = TrainingRun(
        tmp_path,
        f"data.train_files={data_files['train']}",
        f"data.val_files={data_files['val']}",
        *batches(prompts=4, responses=4),
        f"serving={mode}",
        f"trainer.v1.trainer_mode={trainer}",
        # two replicas in the pool: each question goes to the one that has its prefix
        f"reward.reward_model.n_gpus_per_node={replicas}",
        f"reward.reward_model.model_path={MODELS / 'trm'}",
        "reward.reward_model.rollout.max_model_len=4096",
        "reward.reward_model.rollout.max_num_seqs=32",
        "reward.reward_model.rollout.max_num_batched_tokens=4096",
        f"ray_kwargs.ray_init.num_gpus={gpus}",
        f"trainer.total_training_steps={STEPS}",
        "trainer.val_before_train=false",
        f"trainer.test_freq={STEPS}",
        "trainer.save_freq=-1",
    ).run()
    for step in range(1, STEPS + 1):
        rows = run.rollouts(step)
        assert any(row["thinking_asked"] for row in rows)
        # A real model's reply may now and then be no score; the server itself must never fail.
        assert all(row["thinking_error"] in ("", "unparsable") for row in rows)
        for row in rows:
            term = row["gamma"] * 0.3 * math.exp(-step / STEPS) * row["thinking_reward"] if row["thinking_used"] else 0
            assert row["score"] == pytest.approx(row["outcome_reward"] + term, abs=1e-5)
        assert len({row["thinking_reward"] for row in rows}) > 1, "a trained TRM tells traces apart"
        assert run.metrics()[step]["thinking_reward/coverage"] > 0.8
    assert all(row["score"] == pytest.approx(row["outcome_reward"]) for row in run.validations(STEPS))
