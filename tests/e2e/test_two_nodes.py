"""Two Ray nodes that know nothing of the driver: one FSDP rank, one rollout replica and one reward worker on each."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.training import TrainingRun, batches
from testbed.vllm_server import free_port
from tests.e2e.test_training import complete, equation_3
from tests.support.cluster import NODES, Cluster, KeyedTrm
from tests.support.updates import optimizer_steps, plan_of, scheduler_steps

pytestmark = pytest.mark.e2e

STEPS = 2
KEY = "sk-two-nodes-5f1c0d"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as started:
        yield started


@pytest.fixture(scope="module")
def trm() -> Iterator[KeyedTrm]:
    with KeyedTrm(KEY) as server:
        yield server


def on_cluster(folder: Path, data_files: dict[str, Path], cluster: Cluster, url: str) -> TrainingRun:
    return TrainingRun(
        folder,
        f"data.train_files={data_files['train']}",
        f"data.val_files={data_files['val']}",
        *batches(prompts=4, responses=4),
        "actor_rollout_ref.actor.ppo_mini_batch_size=2",
        "actor_rollout_ref.actor.ppo_epochs=3",
        "trainer.nnodes=2",
        "reward.num_workers=2",
        "actor_rollout_ref.rollout.agent.num_workers=2",
        f"+ray_kwargs.ray_init.address={cluster.address}",
        # Ray takes no resources for a cluster that is there
        *(f"ray_kwargs.ray_init.{name}=null" for name in ("num_cpus", "num_gpus", "object_store_memory")),
        f"thinking_reward.urls=[{url}]",
        "thinking_reward.api_key_env=TRM_KEY",
        f"trainer.total_training_steps={STEPS}",
        "trainer.val_before_train=false",
        "trainer.test_freq=-1",
        f"trainer.save_freq={STEPS}",
        environment={"TRM_KEY": KEY},
    )


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, data_files: dict[str, Path], cluster: Cluster, trm: KeyedTrm
) -> TrainingRun:
    return on_cluster(tmp_path_factory.mktemp("run"), data_files, cluster, trm.url).run()


def test_a_trm_that_the_nodes_cannot_reach_stops_the_run_before_a_model_is_loaded(
    tmp_path: Path, data_files: dict[str, Path], cluster: Cluster, trm: KeyedTrm
) -> None:
    url = trm.url.replace(f":{trm.port}", f":{free_port()}")
    refused = on_cluster(tmp_path, data_files, cluster, url)
    assert refused.start().wait() == 1
    log = refused.log.read_text()
    assert "error: thinking reward model failed its preflight" in log
    assert all(f"({url}, asked from {node})" in log for node in NODES)
    assert "WorkerDict" not in log


def test_both_nodes_train_generate_and_score(run: TrainingRun, trm: KeyedTrm) -> None:
    assert [step for step in run.metrics() if "reward/mean" in run.metrics()[step]] == [1, 2]
    assert trm.asked_from == set(NODES)
    for role in ("RewardLoopWorker", "WorkerDict", "vLLMHttpServer"):
        assert {node for title, node in trm.processes if role in title} == set(NODES), role


def test_the_rewards_are_equation_5(run: TrainingRun) -> None:
    for step in range(1, STEPS + 1):
        groups = defaultdict(list)
        for row in run.rollouts(step):
            groups[row["group"]].append(row)
        assert {len(group) for group in groups.values()} == {4}
        assert len(groups) == 4
        for group in groups.values():
            assert complete(group), "no score is missing"
            for row in group:
                term = equation_3(group) * 0.3 * math.exp(-step / STEPS) * row["thinking_reward"]
                assert row["score"] == pytest.approx(row["outcome_reward"] + term, abs=1e-5)


def test_the_ranks_hold_one_model(run: TrainingRun) -> None:
    """Each rank saved its shard, and the rollout of both replicas agrees with the actor after an update."""
    assert run.metrics()[STEPS]["training/rollout_actor_probs_pearson_corr"] > 0.99
    shards = (run.folder / f"checkpoints/global_step_{STEPS}/actor").glob("model_world_size_2_rank_*.pt")
    assert len(list(shards)) == 2


def test_the_plan_is_what_happened(run: TrainingRun) -> None:
    """Two mini-batches of a step, each three times."""
    schedule = plan_of(run).schedule
    assert (schedule.mini_batches, schedule.updates, schedule.updates_in_all) == (2, 6, 12)
    assert optimizer_steps(run, STEPS) == schedule.updates_in_all
    assert scheduler_steps(run, STEPS) == schedule.steps == STEPS
    for step in range(1, STEPS + 1):
        assert len(run.rollouts(step)) == schedule.responses
        assert run.metrics()[step]["training/epoch"] == (step - 1) // schedule.steps_per_epoch
    # verl's own horizon of the learning rate
    assert f"Total steps: {schedule.steps}, num_warmup_steps" in run.log.read_text()


def test_no_log_holds_the_api_key(run: TrainingRun, cluster: Cluster, trm: KeyedTrm) -> None:
    assert trm.refused == 0, "the key reached every process that asks"
    files = [
        run.log,
        *cluster.logs(),
        *(path for path in run.folder.rglob("*") if path.suffix in (".yaml", ".log", ".jsonl")),
    ]
    assert any("worker-" in path.name for path in files)
    leaks = [str(path) for path in files if KEY.encode() in path.read_bytes()]
    assert not leaks
