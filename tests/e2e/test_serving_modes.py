"""The TRM hosted by verl itself, on the GPUs that train; ``test_async.py`` has it on a pool of its own."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from testbed.training import TrainingRun, batches
from tests.e2e.conftest import MODELS

pytestmark = pytest.mark.e2e

STEPS = 2


def test_a_colocated_trm_scores_every_response(tmp_path: Path, data_files: dict[str, Path]) -> None:
    """And the rollout goes on during the update."""
    run = TrainingRun(
        tmp_path,
        f"data.train_files={data_files['train']}",
        f"data.val_files={data_files['val']}",
        *batches(prompts=4, responses=4),
        *hosted_trm("colocated", replicas=1),
        "trainer.v1.trainer_mode=colocate_async",
        f"trainer.total_training_steps={STEPS}",
        "trainer.val_before_train=false",
        f"trainer.test_freq={STEPS}",
        "trainer.save_freq=-1",
    ).run()
    assert_all_scored(run, STEPS)


def hosted_trm(serving: str, replicas: int) -> tuple[str, ...]:
    """Overrides for the trained TRM, hosted by verl."""
    return (
        f"serving={serving}",
        f"reward.reward_model.n_gpus_per_node={replicas}",
        f"reward.reward_model.model_path={MODELS / 'trm'}",
        "reward.reward_model.rollout.max_model_len=4096",
        "reward.reward_model.rollout.max_num_seqs=32",
        "reward.reward_model.rollout.max_num_batched_tokens=4096",
    )


def assert_all_scored(run: TrainingRun, steps: int) -> None:
    """Rewards are Eq. 5 with the scores of a real model, which failed nobody; a validation's reward is the outcome."""
    for step in range(1, steps + 1):
        rows = run.rollouts(step)
        assert any(row["thinking_asked"] for row in rows)
        # A real model's reply may now and then be no score; the server itself must never fail.
        assert all(row["thinking_error"] in ("", "unparsable") for row in rows)
        for row in rows:
            term = row["gamma"] * 0.3 * math.exp(-step / steps) * row["thinking_reward"] if row["thinking_used"] else 0
            assert row["score"] == pytest.approx(row["outcome_reward"] + term, abs=1e-5)
        assert len({row["thinking_reward"] for row in rows}) > 1, "a trained TRM tells traces apart"
        assert run.metrics()[step]["thinking_reward/coverage"] > 0.8
    assert all(row["score"] == pytest.approx(row["outcome_reward"]) for row in run.validations(steps))
