"""Each command's usage is what has to be typed."""

from __future__ import annotations

from importlib import import_module

import pytest

COMMANDS = [
    "benchmarks.bench_client",
    "benchmarks.bench_overlap",
    "benchmarks.bench_prefix_cache",
    "benchmarks.bench_preprocess",
    "data_preprocess.easy_vqa",
    "data_preprocess.generic",
    "data_preprocess.geometry3k",
    "data_preprocess.inspect",
    "data_preprocess.sophiavl_130k",
    "data_preprocess.sophiavl_thinking_156k",
    "recipe.sophiavl.evaluate",
    "recipe.sophiavl.infer",
    "recipe.sophiavl.report",
    "recipe.sophiavl.trm.preflight",
    "recipe.sophiavl.trm_training.annotate",
    "recipe.sophiavl.trm_training.balance",
    "recipe.sophiavl.trm_training.collect",
    "recipe.sophiavl.trm_training.evaluate",
    "recipe.sophiavl.watch",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_usage_names_the_command(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = import_module(command)
    if hasattr(module, "__path__"):
        module = import_module(f"{command}.__main__")
    monkeypatch.setattr("sys.argv", ["__main__.py", "--help"])
    with pytest.raises(SystemExit, match="0"):
        module.main()
    assert capsys.readouterr().out.startswith(f"usage: python -m {command} [-h]")
