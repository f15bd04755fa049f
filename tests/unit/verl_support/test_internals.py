"""The installed verl has every name that the recipe stands on, and a name that is gone is told in a sentence."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from recipe.sophiavl.settings import ThinkingRewardSettings
from recipe.sophiavl.trainer import TrustGRPOMixin
from recipe.sophiavl.verl_support import internals
from recipe.sophiavl.verl_support.internals import EXPECTED, VerlChangedError, find

NAMES = [(module, name) for module, names in EXPECTED.items() for name, _ in names]


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_the_installed_verl_has_the_name(module: str, name: str) -> None:
    find(module, name)


@pytest.mark.parametrize(("module", "name"), [("verl.no_such_module", "x"), ("transfer_queue", "kv_batch_gone")])
def test_a_name_that_is_gone_is_told(module: str, name: str) -> None:
    with pytest.raises(VerlChangedError, match=rf"{module} has no {name}.*REQUIRED_VERL.txt.*internals.py"):
        find(module, name)


def test_every_method_that_the_mixin_overrides_is_expected() -> None:
    listed = {name.removeprefix("PPOTrainer.") for _, name in NAMES if name.startswith("PPOTrainer.")}
    trainer = find("verl.trainer.ppo.v1.trainer_base", "PPOTrainer")
    overridden = {name for name in vars(TrustGRPOMixin) if not name.startswith("__") and hasattr(trainer, name)}
    assert overridden
    assert overridden <= listed


def test_the_installed_verl_is_the_required_one() -> None:
    required = (Path(__file__).parents[3] / "recipe/sophiavl/REQUIRED_VERL.txt").read_text().split()
    assert f"verl=={importlib.metadata.version('verl')}" in required


def test_reward_workers_get_the_addresses_of_the_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = find("verl.experimental.reward_loop.reward_model", "RewardModelManager")
    monkeypatch.setattr(manager, "get_router_address", manager.get_router_address)
    made = object.__new__(manager)
    made.router_address, made.server_addresses = "router:1", ["a:1", "b:2"]
    internals.give_reward_workers_the_replicas()
    assert made.get_router_address() == "a:1,b:2"
    hosted = ThinkingRewardSettings(mode="pool").client_settings(made.get_router_address(), "trm")
    assert hosted.urls == ("http://a:1/v1", "http://b:2/v1")


def test_reward_workers_are_prepared_before_they_make_their_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "verl.experimental.reward_loop.reward_loop"
    manager, worker = find(module, "RewardLoopManager"), find(module, "RewardLoopWorker")
    happened: list[str] = []
    monkeypatch.setattr(
        worker, "__init__", lambda self, config, address: happened.append(f"manager {config} {address}")
    )
    monkeypatch.setattr(manager, "_init_reward_loop_workers", lambda self: self.reward_loop_workers_class("c", "a"))
    monkeypatch.setattr("ray.remote", lambda cls: cls)
    internals.prepare_reward_workers(lambda: happened.append("prepared"))
    object.__new__(manager)._init_reward_loop_workers()
    assert happened == ["prepared", "manager c a"]
