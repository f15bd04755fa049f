"""What counts as another experiment, and what does not."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.text import Text

from recipe.sophiavl import experiment
from recipe.sophiavl.experiment import NOT_SET, definition, differences, schedule_note, table

CONFIG = Path(__file__).parents[2] / "recipe/sophiavl/config"
TRM = ("thinking_reward.urls=[http://trm:8000/v1]", "thinking_reward.model=trm")


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    found = {}
    for split, rows in (("train", 3), ("val", 2)):
        found[split] = tmp_path / f"{split}.parquet"
        pq.write_table(pa.table({"answer": [split] * rows}), found[split])
    return (*TRM, f"data.train_files={found['train']}", f"data.val_files=[{found['val']}]")


@cache
def preset(name: str) -> DictConfig:
    with initialize_config_dir(str(CONFIG), version_base=None):
        return compose("sophiavl_trainer", [f"thinking_reward={name}"])


def composed(*overrides: str) -> DictConfig:
    """As Hydra would, which takes seconds each time."""
    groups = [value for value in overrides if value.startswith("thinking_reward=")]
    config = copy.deepcopy(preset(groups[0].split("=")[1] if groups else "default"))
    for key, value in (override.split("=", 1) for override in overrides if override not in groups):
        OmegaConf.update(config, key.lstrip("+"), yaml.safe_load(value), force_add=key.startswith("+"))
    return config


def changed(files: tuple[str, ...], *overrides: str) -> dict[str, tuple[object, object]]:
    there, here = definition(composed(*files)), definition(composed(*files, *overrides))
    return {key: values for key, *values in differences(there, here, 1500)}


@pytest.mark.parametrize(
    ("override", "key", "values"),
    [
        ("thinking_reward.alpha=0.5", "thinking_reward.alpha", [0.3, 0.5]),
        ("thinking_reward=no_trust", "thinking_reward.trust", [True, False]),
        ("thinking_reward=outcome_only", "thinking_reward.enable", [True, False]),
        ("thinking_reward.model=other", "thinking_reward.model", ["trm", "other"]),
        ("thinking_reward.ocr_reward=linear", "thinking_reward.ocr_reward", ["exp", "linear"]),
        ("thinking_reward.total_steps=300", "thinking_reward.total_steps", [None, 300]),
        ("algorithm.norm_adv_by_std_in_grpo=false", "algorithm.norm_adv_by_std_in_grpo", [True, False]),
        ("algorithm.adv_estimator=rloo", "algorithm.adv_estimator", ["grpo", "rloo"]),
        ("actor_rollout_ref.actor.optim.lr=1.0e-6", "actor_rollout_ref.actor.optim.lr", [5e-7, 1e-6]),
        ("actor_rollout_ref.actor.optim.weight_decay=0", "actor_rollout_ref.actor.optim.weight_decay", [0.01, 0]),
        ("actor_rollout_ref.actor.kl_loss_coef=0", "actor_rollout_ref.actor.kl_loss_coef", [0.04, 0]),
        ("actor_rollout_ref.actor.fsdp_config.seed=1", "actor_rollout_ref.actor.fsdp_config.seed", [42, 1]),
        ("actor_rollout_ref.model.path=other/model", "actor_rollout_ref.model.path", None),
        ("actor_rollout_ref.model.lora_rank=8", "actor_rollout_ref.model.lora_rank", [0, 8]),
        ("actor_rollout_ref.rollout.n=16", "actor_rollout_ref.rollout.n", [8, 16]),
        ("actor_rollout_ref.rollout.temperature=0.7", "actor_rollout_ref.rollout.temperature", [1.0, 0.7]),
        ("actor_rollout_ref.rollout.seed=7", "actor_rollout_ref.rollout.seed", [42, 7]),
        ("data.max_response_length=512", "data.max_response_length", [1024, 512]),
        ("data.train_batch_size=32", "data.train_batch_size", [16, 32]),
        ("data.seed=1", "data.seed", [None, 1]),
        ("data.mm_processor_kwargs.max_pixels=1000000", "data.mm_processor_kwargs.max_pixels", [4194304, 1000000]),
        ("+data.unheard_of=1", "data.unheard_of", [NOT_SET, 1]),
        ("trainer.v1.trainer_mode=colocate_async", "trainer.v1.trainer_mode", ["sync", "colocate_async"]),
        ("trainer.default_local_dir=elsewhere", "trainer.default_local_dir", ["${run_dir}/checkpoints", "elsewhere"]),
    ],
)
def test_these_are_other_experiments_and_the_change_is_told_once(
    files: tuple[str, ...], override: str, key: str, values: list[object] | None
) -> None:
    found = changed(files, override)
    assert list(found) == [key]
    assert values is None or list(found[key]) == values


@pytest.mark.parametrize(
    "overrides",
    [
        ("run_dir=elsewhere", "trainer.experiment_name=b", "trainer.logger=[console]", "trainer.rollout_data_dir=x"),
        ("trainer.total_training_steps=3000", "trainer.save_freq=1", "trainer.test_freq=-1"),
        ("trainer.val_before_train=false", "trainer.max_actor_ckpt_to_keep=9"),
        ("trainer.nnodes=2", "trainer.n_gpus_per_node=4", "reward.num_workers=1", "data.dataloader_num_workers=0"),
        ("actor_rollout_ref.actor.fsdp_config.param_offload=true", "actor_rollout_ref.actor.fsdp_config.dtype=float32"),
        (
            "+actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=fp32",
            "actor_rollout_ref.rollout.dtype=half",
        ),
        ("actor_rollout_ref.actor.ppo_max_token_len_per_gpu=9999", "actor_rollout_ref.actor.use_dynamic_bsz=false"),
        (
            "actor_rollout_ref.rollout.gpu_memory_utilization=0.4",
            "actor_rollout_ref.rollout.tensor_model_parallel_size=2",
        ),
        ("thinking_reward.urls=[http://other/v1]", "thinking_reward.timeout_s=9", "thinking_reward.max_retries=1"),
        ("thinking_reward.max_missing_frac=1", "sophiavl.check_rollout=false", "ray_kwargs.ray_init.num_cpus=3"),
    ],
    ids=lambda overrides: overrides[0],
)
def test_these_are_the_same_experiment(files: tuple[str, ...], overrides: tuple[str, ...]) -> None:
    assert not changed(files, *overrides)


def test_data_models_and_prompt_count_by_their_content(files: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "policy").mkdir()
    weights, prompt = tmp_path / "policy/model.safetensors", tmp_path / "prompt.yaml"
    weights.write_text("weights")
    prompt.write_text("score this")
    own = (
        *(*files, f"actor_rollout_ref.model.path={tmp_path}/policy", f"thinking_reward.prompt_path={prompt}"),
        f"actor_rollout_ref.model.lora_adapter_path={tmp_path}/policy",
    )
    there = definition(composed(*own))
    assert there == definition(composed(*own))
    assert there["data.train_files"].startswith("train.parquet, 3 rows, ")
    pq.write_table(pa.table({"answer": ["other"] * 3}), tmp_path / "train.parquet")
    weights.write_text("WEIGHTS")
    prompt.write_text("score THIS")
    found = differences(there, definition(composed(*own)), 1500)
    assert [key for key, *_ in found] == [
        "actor_rollout_ref.model.lora_adapter_path",
        "actor_rollout_ref.model.path",
        "data.train_files",
        "thinking_reward.prompt_path",
    ]


def test_the_packages_own_prompt_counts_too(
    files: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = definition(composed(*files))
    (tmp_path / "default.yaml").write_text("another")
    monkeypatch.setattr(experiment, "DEFAULT_PROMPT", tmp_path / "default.yaml")
    found = differences(there, definition(composed(*files)), 1500)
    assert [key for key, *_ in found] == ["thinking_reward.prompt_path"]


def test_every_name_that_does_not_count_is_a_setting() -> None:
    """A name that is misspelt, or that verl no longer has, would count without a word."""
    with initialize_config_dir(str(CONFIG), version_base=None):
        config = compose("sophiavl_trainer", ["platform=cpu", "preset=quickstart"])
    keys = [key for key, _ in experiment._leaves(OmegaConf.to_container(config))]
    parts = {part for key in keys for part in key.split(".")}
    optional = {"mixed_precision", "nccl_timeout"}  # not in every configuration
    assert set(experiment._NOT_COUNTED["names"]) - parts <= optional
    groups = {key.rsplit(".", number)[0] for key in keys for number in range(4)} | set(keys)
    assert set(experiment._NOT_COUNTED["settings"]) <= groups


def test_a_horizon_that_was_left_open_may_be_held(files: tuple[str, ...]) -> None:
    there = definition(composed(*files))
    longer = (*files, "trainer.total_training_steps=3000")
    assert not differences(there, definition(composed(*longer, "thinking_reward.total_steps=1500")), 1500)
    assert differences(there, definition(composed(*longer, "thinking_reward.total_steps=2000")), 1500)


def test_more_steps_are_told_with_what_they_change() -> None:
    plain = composed(*TRM, "trainer.total_training_steps=3000")
    assert schedule_note(plain, 3000) is None
    note = schedule_note(plain, 1500)
    assert note == (
        "The run goes to step 3000 instead of 1500: from here on the thinking term fades with T=3000 instead of T=1500 "
        "(thinking_reward.total_steps=1500 keeps it)."
    )
    held = composed(
        *(*TRM, "trainer.total_training_steps=3000", "thinking_reward.total_steps=1500"),
        "actor_rollout_ref.actor.optim.lr_scheduler_type=cosine",
    )
    assert schedule_note(held, 1500) == (
        "The run goes to step 3000 instead of 1500: from here on the learning rate follows its cosine schedule over "
        "3000 steps."
    )
    fixed = composed("thinking_reward=outcome_only", "trainer.total_training_steps=3000")
    assert schedule_note(fixed, 1500) == "The run goes to step 3000 instead of 1500."


def test_the_table_is_plain_without_a_terminal_and_shows_brackets_as_they_are() -> None:
    shown = table([("thinking_reward.alpha", 0.5, 0.3), ("data.val_files", "[red]x[/red]" + "y" * 200, NOT_SET)])
    lines = shown.splitlines()
    assert lines[0].split() == ["setting", "there", "here"]
    assert lines[1].split() == ["thinking_reward.alpha", "0.5", "0.3"]
    assert "[red]x[/red]" + "y" * 200 in lines[2], "not broken"
    assert "\x1b" not in shown


def test_the_table_has_lines_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "Console", lambda **options: Console(**options, force_terminal=True, width=60))
    shown = table([("data.val_files", "x" * 100, None)])
    assert "│" in shown
    assert max(len(Text.from_ansi(line)) for line in shown.splitlines()) <= 60
    assert "null" in shown
