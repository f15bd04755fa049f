"""What a wrong command line is answered with."""

from __future__ import annotations

import sys
from pathlib import Path

import hydra
import pytest
from omegaconf import DictConfig

from recipe.sophiavl.hydra_errors import advice, explained

CONFIG = Path(__file__).resolve().parents[2] / "recipe/sophiavl/config"


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *overrides: str) -> None:
    """What the entry point does, but for the run itself; the small configuration composes in no time."""
    (folder / "main.yaml").write_text("defaults: [_self_, {thinking_reward: default}]\ntrainer: {nnodes: 1}\n")
    quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.output_subdir=null", "hydra.run.dir=."]
    monkeypatch.setattr(sys, "argv", ["main", f"hydra.searchpath=[file://{CONFIG}]", *quiet, *overrides])

    @explained
    @hydra.main(config_path=str(folder), config_name="main", version_base=None)
    def main(config: DictConfig) -> None:
        raise SystemExit("\nerror: of the run")

    main()


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("thinking_reward.alhpa=1", "thinking_reward.alhpa: no such key (did you mean alpha?)"),
        ("thinkin_reward.alpha=1", "thinkin_reward: no such key (did you mean thinking_reward?)"),
        ("thinkin_reward=no_trust", "thinkin_reward: no such key (did you mean thinking_reward?)"),
        ("plattform=cpu", "plattform: no such key (did you mean platform?)"),
        ("alpha=1", "alpha: no such key (did you mean thinking_reward.alpha?)"),
        (
            "thinking_reward=no_trus",
            "thinking_reward=no_trus: no such option (did you mean no_trust?); there are default",
        ),
        ("trainer.xyz=1", "trainer.xyz: no such key; there are nnodes"),
        ("thinking_reward.urls=http://a/v1,http://b/v1", "a list 'KEY=[VALUE,VALUE]' in quotes"),
        ("thinking_reward.urls=http://a/v1,", "a list 'KEY=[VALUE,VALUE]' in quotes"),
        ("http://b/v1]", "a list 'KEY=[VALUE,VALUE]' in quotes"),
        ("thinking_reward.model=a=b", "\"KEY='VALUE'\""),
    ],
)
def test_the_last_line_says_what_was_probably_meant(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, told: str
) -> None:
    with pytest.raises(SystemExit, match="1"):
        run(monkeypatch, tmp_path, override)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    assert told in last


def test_the_runs_own_errors_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="of the run"):
        run(monkeypatch, tmp_path, "thinking_reward.alpha=1")
    assert capsys.readouterr().err == ""


def test_other_errors_have_no_advice() -> None:
    assert advice(None) == ""
    assert advice(ValueError("Key 'a' is not in struct")) == ""
