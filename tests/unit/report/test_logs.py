"""A run's logs are read as they are written: several of a resumed run, and lines that are not finished yet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recipe.sophiavl.report.logs import load_metrics, validation_modes, validation_parts


def write(file: Path, *records: tuple[int, dict[str, float | None]], end: str = "\n") -> Path:
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


@pytest.mark.parametrize(
    ("line", "problem"), [("not json", "not JSON"), ('{"step": 2}', "no field 'data'"), ("3", "no object")]
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, problem: str) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(f'{{"step": 1, "data": {{}}}}\n{line}\n')
    with pytest.raises(ValueError, match=rf"metrics\.jsonl, line 2: {problem}"):
        load_metrics([file])


def test_a_value_that_is_no_number_is_left_out(tmp_path: Path) -> None:
    """verl's file logger writes NaN as null."""
    file = write(tmp_path / "metrics.jsonl", (1, {"a": None, "b": 1.0}))
    assert load_metrics([file]) == {1: {"b": 1.0}}


def test_the_ways_and_the_types_of_validation_are_told_by_the_names() -> None:
    data = {
        "val-core/easy_vqa/reward/mean@1": 0.2,
        "validation/sampled/outcome_reward/mean": 0.2,
        "validation/sampled/outcome_reward/multiple_choice/mean": 0.2,
        "validation/greedy/outcome_reward/mean": 0.2,
        "validation/greedy/questions": 9,
    }
    assert validation_modes({0: data, 1: {"outcome_reward/mean": 1.0}}) == ["sampled", "greedy"]
    assert validation_parts({0: data}, "sampled", "outcome_reward") == [
        "outcome_reward",
        "outcome_reward/multiple_choice",
    ]
    assert validation_parts({0: data}, "greedy", "thinking_reward") == []
