"""A run that has come to its end leaves its page, and no report makes it fail."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from recipe.sophiavl.run_folder import RunFolder
from recipe.sophiavl.start import Start

REPOSITORY = Path(__file__).parents[2]


def finish(folder: Path, report: bool) -> None:
    config = OmegaConf.create({"trainer": {"total_training_steps": 1}, "sophiavl": {"report": report}})
    Start(RunFolder(folder), definition={}, record=None, goes_on=False).finish(config)


@pytest.mark.parametrize("report", [True, False])
def test_the_end_writes_the_page_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], report: bool
) -> None:
    monkeypatch.chdir(REPOSITORY)
    (tmp_path / "metrics-001.jsonl").write_text('{"step": 1, "data": {"outcome_reward/mean": 0.5}}\n')
    finish(tmp_path, report)
    assert (tmp_path / "finished").read_text() == "1\n"
    assert (tmp_path / "report.html").is_file() == report
    assert ("page to look at" in capfd.readouterr().out) == report


def test_a_report_that_fails_is_told_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(REPOSITORY)
    finish(tmp_path, True)  # no metrics
    assert (tmp_path / "finished").is_file()
    told = capfd.readouterr().err
    assert f"exit code 1; again: python -m recipe.sophiavl.report {tmp_path}" in told
