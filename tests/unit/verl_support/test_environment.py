"""The CPU platform applies only where there is no accelerator, and never over the user's own settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from recipe.sophiavl.verl_support import environment
from recipe.sophiavl.verl_support.cpu_resources import DTYPE, SERVER_THREADS, THREADS, Machine


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.os, "environ", {"PATH": "/bin"})
    monkeypatch.setattr(environment.cpu_resources, "read_machine", lambda: Machine((), 6, None))


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
    assert not environment.configure()
    assert "VERL_PLATFORM" not in environment.os.environ


def test_a_driver_of_a_remote_cluster_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "accelerator_present", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    assert not environment.configure()


def test_without_an_accelerator_all_is_set_but_what_the_user_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment, "accelerator_present", lambda: False)
    environment.os.environ |= {"OMP_WAIT_POLICY": "active", "VLLM_CPU_OMP_THREADS_BIND": "0-1", DTYPE: "bfloat16"}
    line = environment.configure()
    kept = {"OMP_WAIT_POLICY": "active", "VLLM_CPU_OMP_THREADS_BIND": "0-1", DTYPE: "bfloat16"}
    expected = environment.CPU_ENVIRONMENT | kept | {THREADS: "6", SERVER_THREADS: "3"}
    assert expected.items() <= environment.os.environ.items()
    assert f"{DTYPE}=bfloat16 (set in the environment in place of float32)" in line
    environment.announce(line, "cuda")
    assert capsys.readouterr() == ("", ""), "a dry run of a GPU's configuration on a laptop"
    environment.announce(line, "cpu")
    assert capsys.readouterr() == ("", f"{line}\n")


def test_one_rank_of_several_says_what_was_chosen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.os.environ |= {"VERL_PLATFORM": "cpu", "RANK": "1"}
    environment.announce(environment.configure(), "cpu")
    assert capsys.readouterr().err == ""


def test_scripts_get_the_same_as_exports(capsys: pytest.CaptureFixture[str]) -> None:
    environment.os.environ |= {"VERL_PLATFORM": "cpu", THREADS: "2"}
    environment.main()
    out, err = capsys.readouterr()
    exports = dict(line.removeprefix("export ").split("=", 1) for line in out.splitlines())
    assert exports == environment.cpu_environment()[0]
    assert (exports[THREADS], exports[SERVER_THREADS]) == ("2", "2")
    assert not err


def test_nothing_is_exported_beside_an_accelerator(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment, "accelerator_present", lambda: True)
    environment.main()
    assert capsys.readouterr() == ("", "")


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
    monkeypatch.setattr(environment, "accelerator_present", lambda: False)
    environment.os.environ |= dict.fromkeys(environment.CPU_ENVIRONMENT, " ")
    assert environment.platform() == "", "as verl reads it"
    assert environment.configure()
    assert environment.on_cpu()
