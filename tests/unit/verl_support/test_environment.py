"""The CPU platform applies only where there is no accelerator, and never over the user's own settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipe.sophiavl.verl_support import environment


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*environment.CPU_ENVIRONMENT, "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("node", ["nvidia0", "kfd", "davinci3"])
def test_accelerators_are_seen(tmp_path: Path, node: str) -> None:
    assert not environment.accelerator_present(tmp_path)
    (tmp_path / node).touch()
    assert environment.accelerator_present(tmp_path)


def test_control_nodes_alone_are_no_gpu(tmp_path: Path) -> None:
    (tmp_path / "nvidiactl").touch()
    assert not environment.accelerator_present(tmp_path)


def test_nothing_is_set_beside_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "accelerator_present", lambda: True)
    assert environment.configure() is False
    assert "VERL_PLATFORM" not in environment.os.environ


def test_a_driver_of_a_remote_cluster_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "accelerator_present", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    assert environment.configure() is False


def test_without_an_accelerator_all_is_set_but_what_the_user_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "accelerator_present", lambda: False)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    for name in environment.CPU_ENVIRONMENT:  # monkeypatch restores what it knows of
        monkeypatch.setenv(name, environment.os.environ.get(name, ""))
        if name != "OMP_NUM_THREADS":
            monkeypatch.delenv(name)
    assert environment.configure() is True
    assert environment.os.environ["OMP_NUM_THREADS"] == "4"
    assert environment.os.environ["VERL_PLATFORM"] == "cpu"
