"""A model's size is told by its config.json alone, and is that of its weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from safetensors import safe_open

from recipe.sophiavl.model_size import ModelSize, model_size

REPOSITORY = Path(__file__).parents[2]
POLICY = REPOSITORY / "examples/quickstart/models/policy"


@pytest.fixture(scope="module")
def model() -> DictConfig:
    with initialize_config_dir(str(REPOSITORY / "recipe/sophiavl/config"), version_base=None):
        return compose("sophiavl_trainer", ["preset=lora"]).actor_rollout_ref.model


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No model of a user's cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def size_of(model: DictConfig, path: str, rank: int = 0) -> ModelSize | None:
    return model_size(OmegaConf.merge(model, {"path": path, "lora_rank": rank}))


def test_a_folders_parameters_are_those_of_its_weights(model: DictConfig) -> None:
    with safe_open(POLICY / "model.safetensors", "pt") as weights:
        stored = sum(weights.get_tensor(name).numel() for name in weights.keys())  # noqa: SIM118  (no mapping)
    size = size_of(model, str(POLICY))
    assert size is not None
    text = json.loads((POLICY / "config.json").read_text())
    text = text.get("text_config", text)
    heads, width = text["num_key_value_heads"], text["hidden_size"] // text["num_attention_heads"]
    assert size == ModelSize(stored, 0, 2 * text["num_hidden_layers"] * heads * width, text["vocab_size"])
    assert size.trained == stored


# As the hub tells for the published weights.
@pytest.mark.parametrize(
    ("name", "parameters", "kv_bytes"),
    [
        ("Qwen/Qwen2.5-VL-3B-Instruct", 3_754_622_976, 36_864),
        ("Qwen/Qwen2.5-VL-7B-Instruct", 8_292_166_656, 57_344),
        ("mirror/Qwen2.5-VL-72B-Instruct", 73_410_777_344, 327_680),
    ],
)
def test_models_that_are_known_without_their_configuration(
    model: DictConfig, name: str, parameters: int, kv_bytes: int
) -> None:
    size = size_of(model, name)
    assert size is not None
    assert (size.parameters, 2 * (size.kv_values or 0)) == (parameters, kv_bytes)


def test_adapters_are_those_of_the_language_model(model: DictConfig) -> None:
    size = size_of(model, "Qwen/Qwen2.5-VL-3B-Instruct", rank=64)
    # query and output, key and value, gate and up, down: inputs and outputs of each
    layer = 2 * (2048 + 2048) + 2 * (2048 + 256) + 2 * (2048 + 11008) + (11008 + 2048)
    assert size is not None
    assert size.trained == size.adapters == 36 * 64 * layer
    assert size.parameters == 3_754_622_976


@pytest.mark.parametrize("content", ["", "{", '{"model_type": "no such type"}'])
def test_a_configuration_that_tells_nothing_is_unknown(model: DictConfig, tmp_path: Path, content: str) -> None:
    folder = tmp_path / "Qwen2.5-VL-3B-like"
    folder.mkdir()
    if content:
        (folder / "config.json").write_text(content)
    assert size_of(model, str(folder)) is None


def test_a_model_that_is_not_here_is_unknown(model: DictConfig) -> None:
    assert size_of(model, "nobody/knows-this-model") is None
