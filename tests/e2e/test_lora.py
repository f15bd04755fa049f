"""A short real run that trains adapters (LoRA): they reach the rollout server, and merge into a model of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from recipe.sophiavl import merge
from recipe.sophiavl.run_folder import CHECKPOINTS
from testbed.training import TrainingRun, batches
from testbed.vllm_server import VllmServer
from tests.e2e.conftest import MODELS
from tests.e2e.test_training import CORRELATION, assert_equation_5
from tests.support.greedy import from_server, rows_of, saved_weights, weights_of, with_transformers
from tests.support.lying_trm import LyingProxy

pytestmark = pytest.mark.e2e

STEPS = 3
RANK, ALPHA = 8, 16


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data_files: dict[str, Path], lying_trm: LyingProxy) -> TrainingRun:
    return TrainingRun(
        tmp_path_factory.mktemp("lora"),
        "preset=[quickstart,lora]",
        f"data.train_files={data_files['train']}",
        f"data.val_files={data_files['val']}",
        *batches(prompts=8, responses=4, micro_batch=8),
        f"actor_rollout_ref.model.lora_rank={RANK}",
        f"actor_rollout_ref.model.lora_alpha={ALPHA}",
        # large steps, so that stale adapters would show
        "actor_rollout_ref.actor.optim.lr=3e-3",
        f"thinking_reward.urls=[{lying_trm.url}]",
        "sophiavl.validation_modes=[greedy]",
        f"trainer.total_training_steps={STEPS}",
        "trainer.val_before_train=false",
        f"trainer.test_freq={STEPS}",
        f"trainer.save_freq={STEPS}",
    ).run()


@pytest.fixture(scope="module")
def merged(run: TrainingRun) -> Path:
    """The run's model as one folder."""
    out = run.folder / "model"
    merge.main([str(run.folder), str(out)])
    return out


def test_dumped_rewards_are_equation_5_at_every_step(run: TrainingRun) -> None:
    for step in range(1, STEPS + 1):
        assert_equation_5(run.rollouts(step), step, STEPS)


def test_the_rollout_server_follows_the_adapters(run: TrainingRun) -> None:
    """The reference is the actor without them, so the KL term tells how far they have moved it."""
    metrics = run.metrics()
    for step in range(1, STEPS + 1):
        assert metrics[step][CORRELATION] > 0.999
        assert metrics[step]["training/rollout_probs_diff_max"] < 0.01, "0.3 with adapters that the server leaves out"
    assert metrics[1]["actor/kl_loss"] < 1e-6
    assert metrics[STEPS]["actor/kl_loss"] > 1e-3


def test_only_the_language_models_adapters_were_trained(run: TrainingRun) -> None:
    weights = saved_weights(run.folder / CHECKPOINTS / f"global_step_{STEPS}/actor")
    adapters = {name: weight for name, weight in weights.items() if "lora_" in name}
    assert all(weight.any() for weight in adapters.values()), "a B that was not trained is zero"
    assert all(".language_model." in name for name in adapters)
    base = {name.replace(".base_layer", ""): weight for name, weight in weights.items() if name not in adapters}
    for name, weight in weights_of(MODELS / "policy").items():
        assert torch.equal(base[f"base_model.model.{name}"], weight), name


def test_the_merged_weights_are_the_base_with_the_adapters_on_top(merged: Path) -> None:
    before, after = weights_of(MODELS / "policy"), weights_of(merged)
    adapter = load_file(merged / "lora_adapter/adapter_model.safetensors")
    assert json.loads((merged / "lora_adapter/adapter_config.json").read_text())["lora_alpha"] == ALPHA
    assert before.keys() == after.keys()
    for name, weight in after.items():
        module = f"base_model.model.{name.removesuffix('.weight')}"
        expected = before[name]
        if adapted := f"{module}.lora_A.weight" in adapter:
            a, b = (adapter[f"{module}.lora_{part}.weight"].float() for part in "AB")
            expected = expected + ALPHA / RANK * b @ a
        assert torch.allclose(weight, expected, rtol=2**-7, atol=1e-4), name  # bfloat16 has 8 bits
        assert torch.allclose(weight, before[name], rtol=2**-7, atol=1e-4) != adapted, name


def with_adapters(saved: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The policy's weights with the adapters of a checkpoint on top, in float32."""
    weights = weights_of(MODELS / "policy")
    for name in weights:
        part = f"base_model.model.{name.removesuffix('.weight')}.lora"
        if (a := saved.get(f"{part}_A.default.weight")) is not None:
            weights[name] = weights[name] + ALPHA / RANK * saved[f"{part}_B.default.weight"].float() @ a.float()
    return weights


def test_the_merged_model_answers_greedily_as_the_rollout_server_did(
    run: TrainingRun, merged: Path, data_files: dict[str, Path], tmp_path: Path
) -> None:
    """In float32, as the run computed, it answers all alike. In plain transformers and in vLLM most: the folder's
    weights are rounded to bfloat16, and two near words of a tiny model change places now and then."""
    said, rows = run.validations(STEPS, "greedy"), rows_of(data_files["val"])
    asked = [rows[row["data_source"], row["index"]] for row in said]
    outputs = [row["output"] for row in said]
    exact = with_adapters(saved_weights(run.folder / CHECKPOINTS / f"global_step_{STEPS}/actor"))
    assert with_transformers(merged, asked, exact) == outputs
    with VllmServer(merged, tmp_path / "server.log", ("--max-model-len", "512")) as server:
        served = from_server(server, asked)

    def alike(answers: list[str]) -> float:
        return sum(map(str.__eq__, answers, outputs)) / len(outputs)

    assert min(alike(served), alike(with_transformers(merged, asked))) >= 0.75
    assert alike(with_transformers(MODELS / "policy", asked)) < 0.75
