"""Metrics are read as far as they can be: a bad line or value costs itself, and is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recipe.sophiavl.report.logs import load_metrics
from recipe.sophiavl.report.problems import Problems
from recipe.sophiavl.report.step_log import read_metrics
from testbed.synthetic_run import SyntheticRun, write_run


def metrics(folder: Path, *lines: object) -> tuple[dict, list[str]]:
    file = folder / "metrics-001.jsonl"
    file.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    problems = Problems()
    return read_metrics([file], problems), problems.texts()


def test_of_a_sound_run_they_are_those_that_the_summary_reads(tmp_path: Path) -> None:
    files = sorted(write_run(tmp_path, SyntheticRun(steps=3)).glob("metrics*.jsonl"))
    problems = Problems()
    assert read_metrics(files, problems) == load_metrics(files)
    assert problems.texts() == []


def test_later_files_go_over_earlier_ones(tmp_path: Path) -> None:
    files = [tmp_path / "1.jsonl", tmp_path / "2.jsonl"]
    files[0].write_text('{"step": 2, "data": {"a": 1, "b": 2}}\n{"step": 1, "data": {"a": 0}}\n')
    files[1].write_text('{"step": 2, "data": {"a": 3}}\n')
    assert read_metrics(files, Problems()) == {1: {"a": 0.0}, 2: {"a": 3.0, "b": 2.0}}


@pytest.mark.parametrize("value", ["nan", "0.5", None, True, [1], {}, float("nan"), float("inf"), 10**400])
def test_a_value_that_is_no_finite_number_is_named_and_not_drawn(tmp_path: Path, value: object) -> None:
    steps, told = metrics(tmp_path, {"step": 1, "data": {"actor/grad_norm": value, "b": 1}})
    assert steps == {1: {"b": 1.0}}
    (text,) = told
    assert "actor/grad_norm" in text
    assert "step 1" in text


def test_a_value_that_got_lost_later_is_not_the_one_before(tmp_path: Path) -> None:
    steps, _ = metrics(tmp_path, {"step": 1, "data": {"a": 1}}, {"step": 1, "data": {"a": None}})
    assert steps == {1: {}}


@pytest.mark.parametrize(
    "line", ["junk\n", {"step": "1", "data": {}}, {"step": 1}, {"step": True, "data": {}}, {"step": 1, "data": 2}]
)
def test_a_bad_line_costs_itself(tmp_path: Path, line: object) -> None:
    steps, told = metrics(tmp_path, line, {"step": 3, "data": {"a": 1}})
    assert steps == {3: {"a": 1.0}}
    assert "line 1" in told[0]


def test_a_half_written_last_line_is_left_for_later(tmp_path: Path) -> None:
    steps, told = metrics(tmp_path, {"step": 1, "data": {"a": 1}}, '{"step": 2, "data": {"a"')
    assert steps == {1: {"a": 1.0}}
    assert "half written" in told[0]
