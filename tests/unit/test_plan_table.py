"""What a dry run prints can be read, and says what does not fit."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from recipe.sophiavl.model_size import ModelSize
from recipe.sophiavl.plan import plan
from recipe.sophiavl.plan_table import show
from tests.unit.test_plan import QWEN_7B, WITH_ADAPTERS, composed


def shown(
    capsys: pytest.CaptureFixture[str],
    *overrides: str,
    rows: int | None = None,
    model: ModelSize | None = QWEN_7B,
    **values: Any,
) -> str:
    config = composed(*overrides)
    show(plan(config, rows, model, config.sophiavl.gpu_memory_gb or 80), config, **values)
    return capsys.readouterr().out


def test_the_papers_plan(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, rows=129_000)
    for part in (
        "Qwen/Qwen2.5-VL-7B-Instruct: 8.29 billion parameters, all trained",
        "1 node x 8 GPUs to train; trainer.v1.trainer_mode=sync",
        "16 questions x 8 = 128 responses",
        "1 mini-batch of 128 responses: 1 optimiser step\n",
        "16 responses in at most 16 micro-batches",
        "129,000 rows: 8,062 steps = 8,062 optimiser steps; fewer where prompts are too long",
        "1,500 steps = 1,500 optimiser steps, 0.19 epochs",
        "at most 9,216 a response, 1,179,648 a step",
        "estimate, of 80.0 GB",
        "weights 4.1 GB, gradients 4.1 GB, optimiser state 8.3 GB: 16.6 GB",
        "rollout: 48.0 GB: weights 16.6 GB, KV cache 31.4 GB at most",
        "at most 128 requests a step (external)",
        "2.1 for 60 s",
    ):
        assert part in text
    assert "TOO" not in text
    assert all(line == line.rstrip() for line in text.splitlines())


def test_without_data_and_model_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "trainer.total_training_steps=null", model=None)
    assert text.count("unknown until data.train_files is there") == 2
    assert "size unknown, for its config.json is not at hand" in text
    assert "None" not in text


def test_adapters_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "actor_rollout_ref.model.lora_rank=64", model=WITH_ADAPTERS)
    assert "161.48 million of its adapters (LoRA of rank 64), which alone are trained" in text


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("sophiavl.gpu_memory_gb=24.0",), "TOO LITTLE for the rollout's weights"),
        (("trainer.n_gpus_per_node=2",), "TOO MUCH: rollout and training beside each other"),
        (
            (
                *("trainer.n_gpus_per_node=1", "actor_rollout_ref.actor.fsdp_config.param_offload=true"),
                "actor_rollout_ref.actor.fsdp_config.optimizer_offload=true",
            ),
            "TOO MUCH: the update exceeds the GPU",
        ),
        (("trainer.n_gpus_per_node=1", "actor_rollout_ref.actor.fsdp_config.offload_policy=true"), ""),
    ],
    ids=["rollout", "both", "update", "offloaded"],
)
def test_what_does_not_fit_is_told_with_a_way_out(
    capsys: pytest.CaptureFixture[str], overrides: tuple[str, ...], says: str
) -> None:
    text = shown(capsys, *overrides)
    assert says in text
    assert bool(says) == ("TOO" in text)


def test_a_trm_on_the_training_gpus_adds_to_the_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert "128 / R seconds of every step" in shown(capsys, "thinking_reward.mode=colocated")


def test_names_are_no_markup_and_a_narrow_terminal_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    narrow = Console(width=50, force_terminal=True, color_system=None, file=StringIO(), highlight=False)
    text = shown(capsys, "actor_rollout_ref.model.path='[red]models[/red]'", console=narrow)
    assert "[red]models[/red]" in text
    assert max(map(len, text.splitlines())) <= 50
    assert "1,179,648" in text
