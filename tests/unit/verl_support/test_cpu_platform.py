"""The CPU platform's settings reach every engine: one number format and one kind of executor in the composed
configurations, and a server's threads in the environment that its engine inherits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from verl.utils.torch_dtypes import PrecisionType

from recipe.sophiavl.verl_support import cpu_platform
from recipe.sophiavl.verl_support.cpu_resources import DTYPE, SERVER_THREADS, THREADS

CONFIG = Path(cpu_platform.__file__).parents[1] / "config"
EVERY_DTYPE = (
    "rollout.dtype",
    *(f"{role}.fsdp_config.{key}" for role in ("actor", "ref") for key in ("dtype", "mixed_precision.param_dtype")),
)


def composed(name: str, overrides: Sequence[str]) -> DictConfig:
    with initialize_config_dir(str(CONFIG), version_base=None):
        made = compose(name, list(overrides))
    OmegaConf.resolve(made)
    return made


def dtypes(config: DictConfig) -> set[str]:
    found = {OmegaConf.select(config.actor_rollout_ref, key) for key in EVERY_DTYPE}
    return found | {config.reward.reward_model.rollout.dtype}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_choice_holds_for_actor_reference_rollout_and_hosted_trm(
    monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    monkeypatch.setenv(DTYPE, dtype)
    config = composed("sophiavl_trainer", ["platform=cpu", "preset=quickstart"])
    assert dtypes(config) == {dtype}
    for role in ("actor", "ref"):
        precision = config.actor_rollout_ref[role].fsdp_config.mixed_precision
        assert {PrecisionType.to_str(PrecisionType.to_dtype(name)) for name in precision.values()} == {"fp32"} | (
            {"bf16"} if dtype == "bfloat16" else set()
        )


def test_one_override_changes_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DTYPE, "float32")
    config = composed("sophiavl_trainer", ["platform=cpu", "actor_rollout_ref.rollout.dtype=bfloat16"])
    assert dtypes(config) == {"bfloat16"}


def test_without_a_choice_it_is_what_every_processor_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DTYPE, raising=False)
    assert dtypes(composed("sophiavl_trainer", ["platform=cpu"])) == {"float32"}
    assert composed("trm_sft", ["trm_platform=cpu"]).engine.dtype == "float32"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_sft_trainer_takes_it_too(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    monkeypatch.setenv(DTYPE, dtype)
    engine = composed("trm_sft", ["trm_platform=cpu"]).engine
    assert (engine.dtype, engine.mixed_precision.param_dtype, engine.mixed_precision.reduce_dtype) == (
        dtype,
        dtype,
        "float32",
    )


def test_both_servers_compute_in_their_engines_process() -> None:
    config = composed("sophiavl_trainer", ["platform=cpu", "serving=pool"])
    for rollout in (config.actor_rollout_ref.rollout, config.reward.reward_model.rollout):
        assert rollout.engine_kwargs.vllm.distributed_executor_backend == "uni"


def test_a_server_leaves_its_engine_the_threads_of_one_beside_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(THREADS, "8")
    monkeypatch.setenv(SERVER_THREADS, "4")
    seen: list[tuple[str, int]] = []

    class Server:
        def __init__(self, rank: int) -> None:
            seen.append((os.environ[THREADS], rank))

    cpu_platform._threads_of_a_server(SimpleNamespace(vLLMHttpServer=Server))
    assert os.environ[THREADS] == "8", "what only imports the module keeps its threads"
    Server(rank=3)
    assert seen == [("4", 3)]
