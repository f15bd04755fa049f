"""A model that can't be had is told before anything starts, in no more time than the hub is given."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants
from omegaconf import DictConfig, OmegaConf
from safetensors.numpy import save_file

from recipe.sophiavl import model_checks
from recipe.sophiavl.model_checks import check_models
from recipe.sophiavl.validation import SettingsError

NAME = "someone/some-model"


def config(path: str, *, tokenizer: str | None = None, hosted: str | None = None) -> DictConfig:
    return OmegaConf.create(
        {
            "actor_rollout_ref": {"model": {"path": path, "tokenizer_path": tokenizer, "lora_rank": 0}},
            "reward": {"reward_model": {"enable": hosted is not None, "model_path": hosted}},
            "ray_kwargs": {"ray_init": {}},
        }
    )


def model(folder: Path, *files: str) -> str:
    folder.mkdir(parents=True)
    for name in files or ("config.json", "model-00001-of-00002.safetensors", "tokenizer.json"):
        (folder / name).touch()
        if name.endswith(".safetensors"):
            save_file({"weight": np.zeros(3)}, folder / name)
    return str(folder)


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache; nobody is asked unless a test says so."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_a_whole_folder_is_a_model(tmp_path: Path) -> None:
    whole = model(tmp_path / "whole")
    check_models(config(whole, hosted=whole))


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (("config.json", "tokenizer.json"), "no weights"),
        (("model.safetensors", "tokenizer.json"), r"no config\.json"),
        (("config.json", "model.safetensors"), "no a tokenizer"),
        (("CARD.md",), r"no config\.json, no weights .*, no a tokenizer"),
    ],
)
def test_a_folder_that_is_no_model_names_what_it_lacks(tmp_path: Path, files: tuple[str, ...], says: str) -> None:
    part = model(tmp_path / "part", *files)
    with pytest.raises(SettingsError, match=rf"actor_rollout_ref\.model\.path={part}: this folder has {says}"):
        check_models(config(part))


def test_a_model_cut_short_is_none(tmp_path: Path) -> None:
    weights = tmp_path / "cut/model.safetensors"
    cut = model(tmp_path / "cut", "config.json", "model.safetensors", "tokenizer.json")
    for size in (weights.stat().st_size - 1, 3, 0):
        weights.write_bytes(weights.read_bytes()[:size])
        with pytest.raises(SettingsError, match=r"model\.path=.*/cut: model\.safetensors is damaged .*not whole"):
            check_models(config(cut))


@pytest.mark.parametrize(
    ("index", "says"),
    [
        ('{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-2.safetensors"}}', "model-2.*not there"),
        ('{"weight_map": ["a"]}', r"model\.safetensors\.index\.json is broken"),
        ('{"weight_map": ', r"model\.safetensors\.index\.json is broken"),
    ],
)
def test_every_shard_that_the_index_names_must_be_there(tmp_path: Path, index: str, says: str) -> None:
    half = model(tmp_path / "half")
    (tmp_path / "half/model.safetensors.index.json").write_text(index)
    with pytest.raises(SettingsError, match=says):
        check_models(config(half))


def test_a_checkpoint_that_was_not_merged_is_told_as_one(tmp_path: Path) -> None:
    model(tmp_path / "global_step_2/actor", "model_world_size_1_rank_0.pt")
    with pytest.raises(SettingsError, match=r"checkpoint of verl: merge it first"):
        check_models(config(f"{tmp_path}/global_step_2"))


def test_a_tokenizer_may_be_elsewhere(tmp_path: Path) -> None:
    part = model(tmp_path / "part", "config.json", "pytorch_model.bin")
    check_models(config(part, tokenizer=model(tmp_path / "tokenizer", "tokenizer.json")))
    with pytest.raises(SettingsError, match=r"actor_rollout_ref\.model\.tokenizer_path=.*/none: no such folder"):
        check_models(config(part, tokenizer=f"{tmp_path}/none"))


@pytest.mark.parametrize("path", ["/no/such/folder", "./model", "~/nothing", "runs/first/checkpoints"])
def test_what_can_only_be_a_folder_must_be_there(path: str) -> None:
    with pytest.raises(SettingsError, match=r"no such folder\. Give a model folder, or a model's name on the hub"):
        check_models(config(path))


def test_the_hosted_trm_is_checked_too(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"reward\.reward_model\.model_path=trm: it is no folder here"):
        check_models(config(model(tmp_path / "policy"), hosted="trm"))


def test_a_model_in_the_cache_needs_no_hub(tmp_path: Path) -> None:
    cached = tmp_path / "hub" / f"models--{NAME.replace('/', '--')}"
    model(cached / "snapshots/abc", "config.json", "tokenizer.json")
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text("abc")
    with pytest.raises(SettingsError, match=r"not \(whole\) in the hub's cache .*HF_HUB_OFFLINE is set"):
        check_models(config(NAME))
    (cached / "snapshots/abc/model.safetensors").touch()
    check_models(config(NAME))


def test_no_name_of_a_model_is_told_as_such() -> None:
    with pytest.raises(SettingsError, match="and no name of a model on the hub"):
        check_models(config("what is/this"))


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """A hub that gives the first of these HTTP states each time."""
    given: list[int] = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state = given[0]
            body = b'{"id": "someone/some-model"}'
            self.send_response(state)
            if state == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(model_checks, "HfApi", lambda: huggingface_hub.HfApi(endpoint=url))
    yield given
    server.shutdown()
    server.server_close()


def test_a_model_on_the_hub_can_be_had(answers: list[int]) -> None:
    answers.append(200)
    check_models(config(NAME))


@pytest.mark.parametrize(
    ("state", "says"),
    [(404, "has no such model that it would give you"), (403, "can't be asked"), (500, "can't be asked")],
)
def test_what_the_hub_refuses_is_told(answers: list[int], state: int, says: str) -> None:
    answers.append(state)
    with pytest.raises(SettingsError, match=says):
        check_models(config(NAME))


def test_a_hub_that_nobody_serves_is_told(answers: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = "http://127.0.0.1:9"
    monkeypatch.setattr(constants, "ENDPOINT", nobody)
    monkeypatch.setattr(model_checks, "HfApi", lambda: huggingface_hub.HfApi(endpoint=nobody))
    with pytest.raises(SettingsError, match=rf"someone/some-model: it is no folder here.*{nobody} can't be asked"):
        check_models(config(NAME))


def test_the_nodes_of_a_cluster_may_reach_what_the_driver_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    check_models(config(NAME))
    with pytest.raises(SettingsError, match="no such folder"):
        check_models(config("/no/such/folder"))
