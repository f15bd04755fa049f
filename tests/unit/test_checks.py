"""A configuration either composes to a run that verl would start, or is refused with the setting to change."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from recipe.sophiavl.checks import check_config
from recipe.sophiavl.settings import ThinkingRewardSettings
from recipe.sophiavl.validation import SettingsError
from recipe.sophiavl.verl_support import environment

CONFIG = Path(__file__).parents[2] / "recipe/sophiavl/config"
EXTERNAL = ("thinking_reward.urls=[http://trm.cluster:8000/v1]", "thinking_reward.model=trm")
POOL = ("serving=pool", "reward.reward_model.model_path=trm")
COLOCATED = ("serving=colocated", "reward.reward_model.model_path=trm")
ASYNC = "trainer.v1.trainer_mode=separate_async"
# what separate_async needs beside the paper's batch of 16 and verl's parameter_sync_step of 4
GENERATING = (
    "actor_rollout_ref.actor.ppo_mini_batch_size=4",
    "actor_rollout_ref.rollout.nnodes=1",
    "actor_rollout_ref.rollout.checkpoint_engine.backend=nccl",
)


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONFIG), version_base=None):
        return compose("sophiavl_trainer", ["sophiavl.dry_run=true", *overrides])


def check(*overrides: str) -> DictConfig:
    config = composed(*overrides)
    check_config(config, ThinkingRewardSettings.from_config(config.thinking_reward))
    return config


@pytest.mark.parametrize(
    "overrides",
    [
        EXTERNAL,
        (*EXTERNAL, "trainer.nnodes=2"),
        POOL,
        (
            *(*POOL, "trainer.n_gpus_per_node=4"),
            *("reward.reward_model.n_gpus_per_node=4", "actor_rollout_ref.rollout.gpu_memory_utilization=0.5"),
        ),
        (*POOL, "reward.reward_model.nnodes=2", "trainer.nnodes=4"),
        COLOCATED,
        (*EXTERNAL, "trainer.v1.trainer_mode=colocate_async"),
        (*COLOCATED, "trainer.v1.trainer_mode=colocate_async"),
        (*EXTERNAL, ASYNC, *GENERATING),
        (*POOL, ASYNC, *GENERATING),
        ("thinking_reward=outcome_only",),
        (*EXTERNAL, "thinking_reward=gdpo"),
        (*EXTERNAL, "thinking_reward=process_aware"),
    ],
    ids=" ".join,
)
def test_these_would_run(overrides: tuple[str, ...]) -> None:
    check(*overrides)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("serving=pool",), ["reward.reward_model.model_path (now None)"]),
        (
            (
                *("thinking_reward.mode=pool", "reward.reward_model.enable=true", "reward.reward_model.model_path=trm"),
                *("reward.reward_model.enable_resource_pool=true", "reward.reward_model.nnodes=1"),
            ),
            ["reward.reward_model.rollout.free_cache_engine=True", "never wake it", "set it to false"],
        ),
        (
            (*POOL, "reward.reward_model.nnodes=0"),
            ["reward.reward_model.nnodes=0"],
        ),
        (
            (*POOL, "reward.reward_model.n_gpus_per_node=0"),
            ["reward.reward_model.n_gpus_per_node=0"],
        ),
        (
            (
                *POOL,
                "reward.reward_model.rollout.tensor_model_parallel_size=4",
            ),
            ["tensor_model_parallel_size=4", "must divide the 2 GPUs", "reward.reward_model.n_gpus_per_node=2"],
        ),
        (
            (
                "serving=colocated",
                "reward.reward_model.model_path=trm",
                "reward.reward_model.enable_resource_pool=true",
            ),
            ["reward.reward_model.enable_resource_pool=false"],
        ),
        (
            (*EXTERNAL, "thinking_reward.combine=gdpo"),
            ["thinking_reward.combine='gdpo'", "set algorithm.norm_adv_by_std_in_grpo=false"],
        ),
        (
            (*EXTERNAL, "thinking_reward=gdpo", "algorithm.adv_estimator=gdpo"),
            ["algorithm.adv_estimator='gdpo'", "set algorithm.adv_estimator=grpo"],
        ),
        (
            (*EXTERNAL, "thinking_reward=gdpo", "algorithm.use_kl_in_reward=true"),
            ["set algorithm.use_kl_in_reward=false"],
        ),
        (
            (*EXTERNAL, "thinking_reward=gdpo", "thinking_reward.trust_estimator=pooled"),
            ["thinking_reward.trust_estimator='pooled'", "combine='gdpo'", "no trust weight", "'paper'"],
        ),
        (
            (*EXTERNAL, "thinking_reward=process_aware", "thinking_reward.trust=false"),
            ["thinking_reward.trust=False", "combine='process_aware'", "no trust weight", "leave it at True"],
        ),
        ((*EXTERNAL, "reward.reward_model.enable=true"), ["reward.reward_model.enable=True", "nobody asks"]),
        (
            (*EXTERNAL, ASYNC),
            [
                "actor_rollout_ref.actor.ppo_mini_batch_size=16: set the latter to 4",
                "actor_rollout_ref.rollout.nnodes=0",
                "checkpoint_engine.backend='naive': set it to nccl",
                "cupy",
            ],
        ),
        (
            (*EXTERNAL, ASYNC, *GENERATING, "data.train_batch_size=18"),
            ["data.train_batch_size=18", "and data.train_batch_size to a multiple of 4"],
        ),
        (
            (*COLOCATED, ASYNC, *GENERATING),
            ["thinking_reward.mode='colocated'", "use serving=pool"],
        ),
        ((*EXTERNAL, "trainer.use_v1=false"), ["trainer.use_v1=False"]),
        ((*EXTERNAL, "actor_rollout_ref.rollout.n=1"), ["actor_rollout_ref.rollout.n=1"]),
        ((*EXTERNAL, "trainer.total_training_steps=0"), ["trainer.total_training_steps=0", "at least 1"]),
        (
            (*EXTERNAL, "actor_rollout_ref.actor.ppo_mini_batch_size=32"),
            ["actor_rollout_ref.actor.ppo_mini_batch_size=32", "must divide data.train_batch_size=16"],
        ),
        (
            (*EXTERNAL, "trainer.n_gpus_per_node=6"),
            ["128 responses, which 6 ranks", "trainer.n_gpus_per_node=6"],
        ),
        (
            (
                *(*EXTERNAL, "actor_rollout_ref.actor.use_dynamic_bsz=false"),
                "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=3",
            ),
            ["ppo_micro_batch_size_per_gpu=3", "must divide the 16 responses"],
        ),
        (
            (*EXTERNAL, "actor_rollout_ref.actor.use_dynamic_bsz=false"),
            ["ppo_micro_batch_size_per_gpu=None", "use_dynamic_bsz=true"],
        ),
        (
            (*EXTERNAL, "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=9215"),
            ["ppo_max_token_len_per_gpu=9215", "response of 9216 tokens"],
        ),
        (
            (
                *EXTERNAL,
                "actor_rollout_ref.rollout.temperature=0",
                "actor_rollout_ref.rollout.val_kwargs.do_sample=true",
            ),
            ["verl refuses the configuration"],
        ),
    ],
)
def test_these_are_refused_with_the_setting_to_change(overrides: tuple[str, ...], says: list[str]) -> None:
    with pytest.raises(SettingsError) as refusal:
        check(*overrides)
    for part in says:
        assert part in str(refusal.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "[::1]", "0.0.0.0", "trm.localhost"])
def test_a_loopback_trm_is_refused_for_several_nodes(host: str) -> None:
    overrides = (f"thinking_reward.urls=['http://{host}:8000/v1']", "thinking_reward.model=trm")
    check(*overrides)
    with pytest.raises(SettingsError, match=r"thinking_reward\.urls holds http://.*trainer\.nnodes=2.*HOST=0\.0\.0\.0"):
        check(*overrides, "trainer.nnodes=2")


CPU = ("platform=cpu", *EXTERNAL, ASYNC, *GENERATING)


@pytest.mark.parametrize("backend", ["naive", "nccl", "nixl"])
def test_without_a_gpu_weights_go_over_tcp(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    check(*CPU, "actor_rollout_ref.rollout.checkpoint_engine.backend=tcp", "sophiavl.dry_run=false")
    with pytest.raises(SettingsError, match=rf"backend='{backend}': set it to tcp"):
        check(*CPU, f"actor_rollout_ref.rollout.checkpoint_engine.backend={backend}")


def test_a_checkpoint_engine_that_is_not_installed_is_told_before_ray_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    # not above: verl settles on a platform once it is imported, which other tests of this process choose
    from verl.checkpoint_engine import CheckpointEngineRegistry

    monkeypatch.setattr(environment, "on_cpu", lambda: False)
    monkeypatch.setattr(CheckpointEngineRegistry, "_registry", {})
    monkeypatch.setattr(
        CheckpointEngineRegistry, "_import_errors", {"nccl_checkpoint_engine": "No module named 'cupy'"}
    )
    with pytest.raises(SettingsError, match=r"backend='nccl': .*nccl_checkpoint_engine: No module named 'cupy'"):
        check(*EXTERNAL, ASYNC, *GENERATING, "sophiavl.dry_run=false")


def test_a_gpu_that_is_not_seen_is_spoken_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    monkeypatch.setattr(environment, "why_no_accelerator", lambda: "no GPU is seen here. This is WSL2.")
    with pytest.raises(SettingsError, match=r"trainer\.device='cuda': .*WSL2.*platform=cpu"):
        check(*EXTERNAL, "sophiavl.dry_run=false")


def test_the_papers_setting() -> None:
    config = composed(*EXTERNAL)
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert (config.trainer.total_training_steps, config.data.train_batch_size, rollout.n) == (1500, 16, 8)
    assert (config.data.max_prompt_length, config.data.max_response_length) == (8192, 1024)
    assert config.data.mm_processor_kwargs == {"min_pixels": 262144, "max_pixels": 4194304}
    assert (actor.optim.lr, actor.optim.clip_grad) == (5e-7, 4.0)
    assert (actor.use_kl_loss, actor.kl_loss_coef, actor.kl_loss_type) == (True, 0.04, "low_var_kl")


def test_one_longest_response_fits_a_micro_batch_and_the_rollouts_context() -> None:
    config = composed(*EXTERNAL)
    longest = config.data.max_prompt_length + config.data.max_response_length
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    assert rollout.max_model_len == longest
    for part, dynamic, tokens in (
        (actor, "use_dynamic_bsz", "ppo_max_token_len_per_gpu"),
        (rollout, "log_prob_use_dynamic_bsz", "log_prob_max_token_len_per_gpu"),
        (config.actor_rollout_ref.ref, "log_prob_use_dynamic_bsz", "log_prob_max_token_len_per_gpu"),
    ):
        assert part[dynamic]
        assert part[tokens] >= longest
    assert config.data.mm_processor_kwargs.max_pixels / 28**2 < config.data.max_prompt_length


def test_every_value_of_the_setting_says_where_it_comes_from() -> None:
    text = (CONFIG / "sophiavl_trainer.yaml").read_text()
    for name in ("total_training_steps", "train_batch_size", "max_prompt_length", "max_response_length", "min_pixels"):
        line = next(line for line in text.splitlines() if line.strip().startswith(f"{name}:"))
        assert any(f"# {source}" in line for source in ("paper", "published", "ours")), line


def test_the_quickstart_keeps_its_own_values() -> None:
    config = composed("preset=quickstart", "platform=cpu", *EXTERNAL)
    actor = config.actor_rollout_ref.actor
    assert (config.data.max_prompt_length, config.data.max_response_length) == (256, 64)
    assert config.data.mm_processor_kwargs == {"min_pixels": 9408, "max_pixels": 9408}
    assert (actor.use_dynamic_bsz, actor.ppo_micro_batch_size_per_gpu, actor.optim.clip_grad) == (False, 64, 0.3)
    assert (config.actor_rollout_ref.rollout.max_model_len, config.trainer.max_actor_ckpt_to_keep) == (512, 1)
