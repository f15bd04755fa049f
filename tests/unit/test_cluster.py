"""What the processes of a Ray cluster are told, and that the API key takes no way that anything prints."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from recipe.sophiavl import cluster
from recipe.sophiavl.settings import ThinkingRewardSettings
from recipe.sophiavl.trm.preflight import Check, PreflightError
from recipe.sophiavl.validation import SettingsError
from recipe.sophiavl.verl_support import environment


def config(**changes: Any) -> DictConfig:
    made = {
        "data": {"train_files": "a.parquet", "val_files": ["b.parquet", "hdfs://there/c.parquet"]},
        "trainer": {"nnodes": 1, "default_local_dir": "out/${trainer.name}", "name": "run", "rollout_data_dir": None},
        "thinking_reward": {"prompt_path": "prompt.yaml"},
        "actor_rollout_ref": {"model": {"path": "Qwen/Qwen2.5-VL-7B-Instruct", "tokenizer_path": None}},
        "reward": {"reward_model": {"model_path": "trm"}, "num_workers": 2},
        "ray_kwargs": {"ray_init": {"num_cpus": None, "runtime_env": {"py_executable": None}}},
    }
    made = OmegaConf.merge(made, OmegaConf.from_dotlist([f"{key}={value}" for key, value in changes.items()]))
    OmegaConf.set_struct(made, True)
    return made


def test_paths_become_absolute_and_names_of_hub_models_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.parquet", "b.parquet", "prompt.yaml"):
        (tmp_path / name).touch()
    (tmp_path / "trm").mkdir()
    made = config()
    cluster.make_absolute(made)
    assert made.data.train_files == f"{tmp_path}/a.parquet"
    assert list(made.data.val_files) == [f"{tmp_path}/b.parquet", "hdfs://there/c.parquet"]
    assert made.trainer.default_local_dir == f"{tmp_path}/out/run", "it does not exist yet"
    assert made.trainer.rollout_data_dir is None
    assert made.thinking_reward.prompt_path == f"{tmp_path}/prompt.yaml"
    assert made.reward.reward_model.model_path == f"{tmp_path}/trm"
    assert made.actor_rollout_ref.model.path == "Qwen/Qwen2.5-VL-7B-Instruct"


@pytest.mark.parametrize(
    ("nodes", "address", "variable", "here"),
    [(1, None, None, True), (2, None, None, False), (1, "head:6379", None, False), (1, None, "head:6379", False)],
)
def test_the_driver_asks_the_trm_itself_only_where_the_workers_are_beside_it(
    monkeypatch: pytest.MonkeyPatch, nodes: int, address: str | None, variable: str | None, here: bool
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if variable:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    made = config(**{"trainer.nnodes": nodes} | ({"ray_kwargs.ray_init.address": address} if address else {}))
    assert cluster.asks_from_here(made) is here


def test_the_key_is_found_in_the_drivers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ThinkingRewardSettings(client={"urls": ["http://trm:8000/v1"], "model": "m", "api_key_env": "TRM_KEY"})
    monkeypatch.delenv("TRM_KEY", raising=False)
    with pytest.raises(SettingsError, match=r"thinking_reward\.api_key_env='TRM_KEY': this environment variable"):
        cluster.private_environment(settings)
    monkeypatch.setenv("TRM_KEY", "secret")
    assert cluster.private_environment(settings) == {"TRM_KEY": "secret"}
    assert cluster.private_environment(ThinkingRewardSettings(enable=False, client={"api_key_env": "TRM_KEY"})) == {}


def test_only_the_cpu_platform_goes_into_rays_runtime_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERL_PLATFORM", "nvidia")
    made = config()
    cluster.set_platform_of_workers(made)
    assert made.ray_kwargs.ray_init.runtime_env == {"py_executable": None}
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    cluster.set_platform_of_workers(made)
    variables = made.ray_kwargs.ray_init.runtime_env.env_vars
    assert set(variables) == set(environment.cpu_environment()[0])
    assert (variables.VERL_PLATFORM, variables.OMP_NUM_THREADS) == ("cpu", "3")


def test_verl_starts_the_task_runner_without_arguments_and_it_gets_them() -> None:
    made: list[Any] = []
    actor = SimpleNamespace(
        remote=lambda *given: made.append(given),
        options=lambda **options: SimpleNamespace(remote=lambda *given: made.append((options, *given))),
    )
    cluster.with_arguments(actor, 1, 2).remote()
    cluster.with_arguments(actor, 1, 2).options(runtime_env="nsight").remote()
    assert made == [(1, 2), ({"runtime_env": "nsight"}, 1, 2)]


def test_the_error_of_the_preflight_reaches_another_process_whole() -> None:
    error = PreflightError([Check("http://trm:8000/v1, asked from b", "reachable", False, "refused", "start it")])
    sent = pickle.loads(pickle.dumps(error))
    assert str(sent) == str(error)
    assert sent.failed == error.failed
