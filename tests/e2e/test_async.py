"""verl's ``separate_async``, with the TRM hosted by verl on a pool of its own: trainer, rollout server and TRM are
processes of their own, and none waits for another.

``colocate_async`` runs in ``test_serving_modes.py``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recipe.sophiavl import merge
from recipe.sophiavl.run_folder import CHECKPOINTS
from testbed.training import TrainingRun, batches
from tests.e2e.conftest import MODELS
from tests.e2e.test_serving_modes import assert_all_scored, hosted_trm
from tests.e2e.test_training import CORRELATION
from tests.support.greedy import rows_of, saved_weights, weights_of, with_transformers

pytestmark = pytest.mark.e2e

STEPS = 3


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data_files: dict[str, Path]) -> TrainingRun:
    return TrainingRun(
        tmp_path_factory.mktemp("separate"),
        f"data.train_files={data_files['train']}",
        f"data.val_files={data_files['val']}",
        *batches(prompts=8, responses=4, micro_batch=8),
        "trainer.v1.trainer_mode=separate_async",
        # two updates of the actor, then the server gets the weights
        "trainer.v1.separate_async.parameter_sync_step=2",
        "actor_rollout_ref.actor.ppo_mini_batch_size=4",
        "actor_rollout_ref.rollout.nnodes=1",
        "actor_rollout_ref.rollout.n_gpus_per_node=1",
        "actor_rollout_ref.rollout.checkpoint_engine.backend=tcp",
        "actor_rollout_ref.hybrid_engine=false",
        # two replicas in the pool: each question goes to the one that has its prefix
        *hosted_trm("pool", replicas=2),
        "ray_kwargs.ray_init.num_gpus=4",
        "actor_rollout_ref.actor.optim.lr=3e-4",
        "sophiavl.validation_modes=[greedy]",
        f"trainer.total_training_steps={STEPS}",
        "trainer.val_before_train=false",
        f"trainer.test_freq={STEPS}",
        f"trainer.save_freq={STEPS}",
    ).run()


def test_the_pool_scores_every_response(run: TrainingRun) -> None:
    assert_all_scored(run, STEPS)


def test_the_actor_moves_and_the_server_follows(run: TrainingRun) -> None:
    metrics = run.metrics()
    assert metrics[STEPS]["actor/kl_loss"] > 1e-3
    # both updates of the first step are compared with the policy that generated, which verl keeps aside for the second
    assert metrics[1]["training/rollout_probs_diff_max"] < 1e-3
    for step in range(2, STEPS + 1):
        assert metrics[step]["training/off_policy/trajectory_staleness/max"] == 1, "it generates while the actor trains"
        assert metrics[step][CORRELATION] > 0.9, "no older than one synchronisation"


def test_the_merged_model_answers_greedily_as_the_server_did(
    run: TrainingRun, data_files: dict[str, Path], tmp_path: Path
) -> None:
    """The folder's weights are those of the checkpoint in bfloat16; with those themselves, in float32 as the run was,
    transformers answers as the rollout server did. (Rounded, one answer in eight or so comes out another one.)"""
    merge.main([str(run.folder), str(tmp_path / "model")])
    saved = saved_weights(run.folder / CHECKPOINTS / f"global_step_{STEPS}/actor")
    merged = weights_of(tmp_path / "model")
    assert all(torch.equal(merged[name], weight.bfloat16().float()) for name, weight in saved.items())
    said, rows = run.validations(STEPS, "greedy"), rows_of(data_files["val"])
    asked = [rows[row["data_source"], row["index"]] for row in said]
    outputs = [row["output"] for row in said]
    assert with_transformers(tmp_path / "model", asked, saved) == outputs
    assert with_transformers(MODELS / "policy", asked) != outputs
