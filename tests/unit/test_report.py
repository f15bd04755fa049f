"""The run report reads verl's logs as they are written, and counts what it shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recipe.sophiavl.report import load_metrics, main, summary_rows, validation_series


def write(file: Path, *records: tuple[int, dict[str, float]], end: str = "\n") -> Path:
    file.write_text("\n".join(json.dumps({"step": step, "data": data}) for step, data in records) + end)
    return file


def test_a_resumed_run_overrides_the_steps_that_it_repeats(tmp_path: Path) -> None:
    first = write(tmp_path / "metrics-1.jsonl", (1, {"reward/mean": 0.1}), (2, {"reward/mean": 0.2}))
    second = write(tmp_path / "metrics-2.jsonl", (2, {"reward/mean": 0.9}), (3, {"reward/mean": 0.3}))
    steps = load_metrics([first, second])
    assert {step: data["reward/mean"] for step, data in steps.items()} == {1: 0.1, 2: 0.9, 3: 0.3}


def test_a_line_still_being_written_is_left_for_later(tmp_path: Path) -> None:
    file = write(tmp_path / "metrics.jsonl", (1, {"a": 1.0}), (2, {"a": 2.0}), end="")
    assert list(load_metrics([file])) == [1]


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "data": {}}\nnot json\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2"):
        load_metrics([file])


def test_validation_is_averaged_over_sources() -> None:
    data = {
        "val-core/easy_vqa/reward/mean@1": 0.2,
        "val-core/text_only/reward/mean@1": 0.6,
        "val-aux/easy_vqa/thinking_reward/mean@1": 0.9,
        "val-core/easy_vqa/reward/best@2/mean": 1.0,
    }
    assert validation_series({0: data}, "reward") == {0: pytest.approx(0.4)}


def test_summary_compares_the_ends() -> None:
    steps = {0: {"val-core/s/reward/mean@1": 0.25}}
    steps |= {step: {"outcome_reward/mean": step / 100, "trust/gamma_mean": 1.0} for step in range(1, 21)}
    steps[20]["val-core/s/reward/mean@1"] = 0.75
    rows = {name: (before, after) for name, before, after in summary_rows(steps)}
    assert rows["validation outcome reward"] == (0.25, 0.75)
    assert rows["training outcome reward (mean of 5 steps)"] == (pytest.approx(0.03), pytest.approx(0.18))
    assert not any("thinking" in name for name in rows), "what was not measured is not shown"


def test_command_line_draws_the_curves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 1
    assert "no metrics" in capsys.readouterr().out
    write(tmp_path / "metrics-1.jsonl", *((i, {"outcome_reward/mean": i / 10}) for i in range(1, 5)))
    assert main([str(tmp_path)]) == 0
    assert (tmp_path / "curves.png").stat().st_size > 1000
