"""The report's command: a table, a page, and a message where there is nothing to show."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recipe.sophiavl.report.__main__ import main
from recipe.sophiavl.report.logs import Steps


def log(folder: Path, steps: Steps, end: str = "\n") -> None:
    lines = [json.dumps({"step": step, "data": data}) for step, data in steps.items()]
    (folder / "metrics-1.jsonl").write_text("\n".join(lines) + end)


def shown(folder: Path, capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    assert main([str(folder)]) == code
    return " ".join(capsys.readouterr().out.split())


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def validated(mean: float, error: float) -> dict[str, float]:
    name = "validation/greedy"
    return {f"{name}/outcome_reward/mean": mean, f"{name}/outcome_reward/stderr": error, f"{name}/questions": 400.0}


RUN: Steps = {0: validated(0.25, 0.02)} | {
    step: {
        "outcome_reward/mean": step / 10,
        "thinking_reward/mean": 0.5,
        "training/rollout_actor_probs_pearson_corr": 1 - step / 10000,
    }
    for step in range(1, 5)
}
RUN[4] |= validated(0.5, 0.03)


def test_the_table_has_each_change_with_its_error_and_the_page_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log(tmp_path, RUN)
    text = shown(tmp_path, capsys)
    assert "4 training steps" in text
    assert (
        "greedy validation (n = 400) │ │ │ │ │ outcome reward │ 0.250 ± 0.020 │ 0.500 ± 0.030 │ +0.250 ± 0.036" in text
    )
    assert (
        "training, means of 2 steps │ │ │ │ │ outcome reward │ 0.150 ± 0.050 │ 0.350 ± 0.050 │ +0.200 ± 0.071" in text
    )
    assert "Lowest rollout-actor correlation: 0.9996 (step 4)" in text
    assert f"page to look at: {tmp_path / 'report.html'}" in text
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 4  # outcome, its validation, thinking, rollout against actor
    assert "4 steps" in page


def test_a_run_still_going_is_shown_as_far_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log(tmp_path, {0: RUN[0]})
    text = shown(tmp_path, capsys)
    assert ": 0 training steps" in text
    assert "outcome reward │ 0.250 ± 0.020 │ │ │" in text
    log(tmp_path, {1: RUN[1], 2: RUN[2]}, end="")  # the second line is being written; no validation
    (tmp_path / "config.yaml").write_text("trainer: {total_training_steps: 40}")
    text = shown(tmp_path, capsys)
    assert ": 1 of 40 training steps" in text
    assert "training, 1 step │ │ │ │ │ outcome reward │ 0.100" in text


def test_a_folder_that_is_missing_or_without_metrics_is_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no metrics in" in shown(tmp_path, capsys, code=1)
    assert f"no folder {tmp_path / 'none'}" in shown(tmp_path / "none", capsys, code=1)
    assert not (tmp_path / "none").exists()


def test_a_damaged_run_has_its_summary_and_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log(tmp_path, RUN)
    with (tmp_path / "metrics-1.jsonl").open("a") as file:
        file.write("{half\n[]\n")
    (tmp_path / "config.yaml").write_text("trainer: {total_training_steps: 4")
    (tmp_path / "validation").mkdir()
    for step in (0, 4):
        (tmp_path / "validation" / f"{step}.jsonl").write_text("no JSON\n")
    text = shown(tmp_path, capsys)
    assert "4 training steps" in text
    assert "Validations can't be compared question by question" in text
    assert "metrics-1.jsonl" in (tmp_path / "report.html").read_text()


def test_several_runs_share_a_page_in_the_first_ones_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        log(tmp_path / name, RUN)
    folders = [str(tmp_path / name) for name in ("one", "two")]
    assert main(folders) == 0
    page = tmp_path / "one" / "comparison.html"
    assert str(page) in capsys.readouterr().out.replace("\n", "")
    assert "2 runs compared" in page.read_text()
    assert main([*folders, "--out", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").read_text() == page.read_text()


def test_a_page_that_cannot_be_written_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log(tmp_path, RUN)
    assert main([str(tmp_path), "--out", str(tmp_path / "none" / "page.html")]) == 1
    assert "the page cannot be written" in capsys.readouterr().out
