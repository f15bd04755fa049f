"""The plan's numbers are those that verl works with, and those that the paper's setting is commented with."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from tensordict import TensorDict

from recipe.sophiavl.model_size import ModelSize
from recipe.sophiavl.plan import Memory, Plan, plan

CONFIG = Path(__file__).parents[2] / "recipe/sophiavl/config"
QWEN_7B = ModelSize(8_292_166_656, 0, 2 * 28 * 4 * 128, 152_064)
WITH_ADAPTERS = ModelSize(8_292_166_656, 161_480_704, 2 * 28 * 4 * 128, 152_064)
ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"


@cache
def paper() -> DictConfig:
    with initialize_config_dir(str(CONFIG), version_base=None):
        return compose("sophiavl_trainer", ["thinking_reward.urls=[http://trm/v1]", "thinking_reward.model=trm"])


def composed(*overrides: str) -> DictConfig:
    """As Hydra would, which takes seconds each time."""
    config = copy.deepcopy(paper())
    for key, value in (override.split("=", 1) for override in overrides):
        OmegaConf.update(config, key, yaml.safe_load(value))
    return config


def planned(*overrides: str, rows: int | None = None, model: ModelSize | None = QWEN_7B, gpu_gb: float = 80) -> Plan:
    return plan(composed(*overrides), rows, model, gpu_gb)


def memory(*overrides: str, model: ModelSize | None = QWEN_7B, gpu_gb: float = 80) -> Memory:
    found = planned(*overrides, model=model, gpu_gb=gpu_gb).memory
    assert found is not None
    return found


def test_the_papers_step() -> None:
    found = planned()
    schedule, tokens = found.schedule, found.tokens
    assert (schedule.questions, schedule.responses, schedule.mini_batches, schedule.updates) == (16, 128, 1, 1)
    assert (schedule.mini_batch, schedule.rank_mini_batch) == (128, 16)
    assert (schedule.steps, schedule.updates_in_all, schedule.steps_per_epoch, schedule.epochs) == (
        1500,
        1500,
        None,
        None,
    )
    assert (tokens.response, tokens.step, tokens.rank) == (9216, 128 * 9216, 16 * 9216)
    assert tokens.generated == 128 * 1024
    assert (found.requests, found.hidden) == (128, "rollout")


@pytest.mark.parametrize(
    ("overrides", "a_step"),
    [
        ((f"{ACTOR}.ppo_mini_batch_size=4",), 4),
        ((f"{ACTOR}.ppo_mini_batch_size=4", f"{ACTOR}.ppo_epochs=3"), 12),
        ((f"{ACTOR}.ppo_mini_batch_size=4", "trainer.v1.trainer_mode=separate_async", f"{ROLLOUT}.nnodes=1"), 4),
    ],
)
def test_optimiser_steps_are_mini_batches_times_passes(overrides: tuple[str, ...], a_step: int) -> None:
    assert planned(*overrides).schedule.updates == a_step
    assert planned(*overrides).schedule.updates_in_all == 1500 * a_step


@pytest.mark.parametrize(
    ("steps", "epochs", "made"),
    [("null", 2, 12), ("20", 2, 12), ("5", 2, 5), ("20", 1000, 20)],
    ids=["epochs alone", "epochs end first", "steps end first", "many epochs"],
)
def test_the_run_ends_with_its_steps_or_its_epochs_whichever_come_first(steps: str, epochs: int, made: int) -> None:
    ends = (f"trainer.total_training_steps={steps}", f"trainer.total_epochs={epochs}")
    found = planned(*ends, f"{ACTOR}.ppo_mini_batch_size=8", rows=111).schedule
    assert (found.steps_per_epoch, found.updates_per_epoch) == (6, 12), "111 rows are 6 batches of 16; the rest is left"
    assert (found.steps, found.updates_in_all) == (made, 2 * made)
    assert found.epochs == pytest.approx(made / 6)


def test_fewer_rows_than_a_batch_make_no_step() -> None:
    found = planned("trainer.total_training_steps=null", rows=15).schedule
    assert (found.steps_per_epoch, found.steps, found.epochs) == (0, 0, None)


def test_without_data_and_number_of_steps_the_length_is_unknown() -> None:
    found = planned("trainer.total_training_steps=null").schedule
    assert (found.steps, found.updates_in_all, found.updates_per_epoch) == (None, None, None)


def test_steps_before_the_actor_is_trained_update_nothing() -> None:
    found = planned("trainer.critic_warmup=3").schedule
    assert [found.updates_until(step) for step in (1, 2, 3, 4)] == [0, 0, 1, 2]


@pytest.mark.parametrize("budget", [9216, 16384, 20000, 10**6])
@pytest.mark.parametrize("ulysses", [1, 2])
def test_micro_batches_are_those_that_verl_makes_of_the_longest_responses(budget: int, ulysses: int) -> None:
    from verl.utils.seqlen_balancing import rearrange_micro_batches

    found = planned(f"{ACTOR}.ppo_max_token_len_per_gpu={budget}", f"{ACTOR}.ulysses_sequence_parallel_size={ulysses}")
    share = found.schedule.rank_mini_batch
    assert share == 16 * ulysses, "ranks that share a sequence are one data-parallel rank"
    ids = torch.nested.as_nested_tensor([torch.zeros(9216, dtype=torch.int64)] * share, layout=torch.jagged)
    made, _ = rearrange_micro_batches(TensorDict({"input_ids": ids}, batch_size=share), budget * ulysses)
    assert found.schedule.micro_batches == len(made)


def test_micro_batches_of_a_fixed_size() -> None:
    found = planned(f"{ACTOR}.use_dynamic_bsz=false", f"{ACTOR}.ppo_micro_batch_size_per_gpu=4")
    assert found.schedule.micro_batches == 4


def test_the_papers_memory_is_what_its_settings_are_commented_with() -> None:
    found = memory()
    assert (found.weights, found.gradients, found.optimizer) == pytest.approx((4.15e9, 4.15e9, 8.29e9), rel=0.01)
    assert found.training == found.kept == pytest.approx(16.6e9, rel=0.01)
    assert (found.reserved, found.rollout_weights) == pytest.approx((48e9, 16.6e9), rel=0.01)
    assert found.kv_token == 57_344
    assert found.kv_cache == pytest.approx(31.4e9, rel=0.01)
    assert found.kv_responses(9216) == 59
    assert found.kv_needed == 16
    assert found.logits == pytest.approx(5e9 + 5e9, rel=0.01)


@pytest.mark.parametrize(
    ("overrides", "weights", "kept"),
    [
        (("trainer.nnodes=2",), 4 / 16, 16 / 16),
        ((f"{ACTOR}.fsdp_config.fsdp_size=2",), 4 / 2, 16 / 2),
        ((f"{ACTOR}.fsdp_config.fsdp_size=64",), 4 / 8, 16 / 8),
        ((f"{ACTOR}.fsdp_config.model_dtype=bf16",), 2 / 8, 8 / 8),
        ((f"{ACTOR}.fsdp_config.param_offload=true",), 4 / 8, 8 / 8),
        ((f"{ACTOR}.fsdp_config.optimizer_offload=true",), 4 / 8, 8 / 8),
        ((f"{ACTOR}.fsdp_config.offload_policy=true",), 0, 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_the_training_state_is_shared_and_offloaded(overrides: tuple[str, ...], weights: float, kept: float) -> None:
    found = memory(*overrides)
    assert found.weights == pytest.approx(weights * QWEN_7B.parameters)
    assert found.kept == pytest.approx(kept * QWEN_7B.parameters), "bytes a parameter while the rollout works"


def test_adapters_alone_have_gradients_and_optimizer_state() -> None:
    found = memory(model=WITH_ADAPTERS)
    assert found.weights == 4 * (WITH_ADAPTERS.parameters + WITH_ADAPTERS.adapters) / 8
    assert (found.gradients, found.optimizer) == (4 * 161_480_704 / 8, 8 * 161_480_704 / 8)


@pytest.mark.parametrize("unknown", [f"{ACTOR}.strategy=veomni", f"{ACTOR}.optim.optimizer=AdamW8bit"])
def test_what_is_computed_in_another_way_is_unknown(unknown: str) -> None:
    assert memory(unknown).training is None
    assert memory(unknown).kept is None


def test_an_unknown_model_leaves_what_the_settings_tell() -> None:
    found = planned(model=None)
    assert found.schedule.updates == 1
    assert found.memory is not None
    assert found.memory.reserved == 48e9
    assert (found.memory.training, found.memory.kv_cache, found.memory.kv_responses(9216)) == (None, None, None)


def test_a_replica_over_several_gpus_shares_weights_and_cache() -> None:
    found = memory(f"{ROLLOUT}.tensor_model_parallel_size=4")
    assert (found.rollout_weights, found.kv_token) == (2 * QWEN_7B.parameters / 4, 57_344 / 4)
    assert found.kv_needed == 64, "128 responses over two replicas"


def test_gpus_that_generate_are_others_than_those_that_train() -> None:
    apart = ("trainer.v1.trainer_mode=separate_async", f"{ROLLOUT}.nnodes=1", f"{ROLLOUT}.n_gpus_per_node=2")
    found = planned(*apart, f"{ACTOR}.ppo_mini_batch_size=4")
    assert found.memory is not None
    assert not found.memory.shared
    assert found.memory.kv_needed == 64
    assert found.hidden == "step"


def test_requests_to_a_trm_that_shares_the_gpus_are_not_hidden() -> None:
    assert planned("thinking_reward.mode=colocated").hidden is None
    assert planned("thinking_reward.enable=false").requests == 0


def test_a_run_on_the_cpu_has_no_gpu_memory() -> None:
    assert planned("trainer.device=cpu").memory is None
