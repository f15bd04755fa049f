"""The CPU platform applies only where there is no accelerator, and never over the user's own settings."""

from __future__ import annotations

import re
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


def test_wsl2_and_a_head_without_a_gpu_are_told_what_to_do(tmp_path: Path) -> None:
    assert "RAY_ADDRESS=HOST:PORT" in environment.why_no_accelerator(tmp_path)
    (tmp_path / "dxg").touch()
    assert "WSL2" in environment.why_no_accelerator(tmp_path)
    assert "VERL_PLATFORM=nvidia" in environment.why_no_accelerator(tmp_path)


@pytest.mark.parametrize("name", ["nvidia", "amd", "huawei"])
def test_verl_knows_the_platforms_that_the_advice_names(name: str) -> None:
    from verl.plugin.platform.platform_manager import PlatformRegistry

    assert name in environment.why_no_accelerator(Path("/nowhere"))
    assert PlatformRegistry.get(name) is not None


def test_only_the_environment_reads_the_platform_variable() -> None:
    recipe = Path(environment.__file__).parents[1]
    reads = re.compile(r"""environ\b.*["']VERL_PLATFORM["']|getenv\(["']VERL_PLATFORM["']""")
    places = [path.name for path in recipe.rglob("*.py") if reads.search(path.read_text(encoding="utf-8"))]
    assert places == ["environment.py"]


def test_a_blank_platform_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERL_PLATFORM", " ")
    monkeypatch.setattr(environment, "accelerator_present", lambda: False)
    for name in environment.CPU_ENVIRONMENT:  # monkeypatch takes back what it knows of
        monkeypatch.setenv(name, " ")
    assert environment.platform() == "", "as verl reads it"
    assert environment.configure() is True
    assert environment.on_cpu()
