"""A run's folder is read while it is written, damaged, removed and begun again."""

from __future__ import annotations

import json
import math
import shutil
import tracemalloc
from pathlib import Path

import pytest

from recipe.sophiavl.watch import reading
from recipe.sophiavl.watch.frame import WATCHED_NAMES
from recipe.sophiavl.watch.reading import WatchedRun
from tests.support.watched_runs import append, logged, plan, response, trained


@pytest.fixture
def run(tmp_path: Path) -> WatchedRun:
    return WatchedRun(tmp_path / "run", WATCHED_NAMES)


def outcomes(run: WatchedRun) -> dict[int, float]:
    run.update()
    return {step: data["outcome_reward/mean"] for step, data in run.steps.items() if "outcome_reward/mean" in data}


def test_a_folder_that_is_not_there_yet_comes_and_goes_and_comes_again(run: WatchedRun) -> None:
    assert outcomes(run) == {}
    assert (run.newest, run.total, run.finished, run.group, run.problems) == (None, None, False, None, [])
    append(run.path / "metrics-001.jsonl", trained(1))
    append(run.path / "rollouts/1.jsonl", response("a", "x"))
    assert outcomes(run) == {1: 0.5}
    assert run.group is not None
    shutil.rmtree(run.path)
    assert outcomes(run) == {}
    assert (run.newest, run.group, run.problems) == (None, None, [])
    append(run.path / "metrics-001.jsonl", trained(1, 0.25))
    assert outcomes(run) == {1: 0.25}


def test_half_a_line_is_left_until_it_is_whole(run: WatchedRun) -> None:
    line = trained(2, 0.75)
    file = append(run.path / "metrics-001.jsonl", trained(1), line[:20])
    assert outcomes(run) == {1: 0.5}
    append(file, line[20:])
    assert outcomes(run) == {1: 0.5, 2: 0.75}
    assert run.problems == []


def test_what_was_read_is_not_read_again(run: WatchedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    file = append(run.path / "metrics-001.jsonl", *(trained(step) for step in range(1, 100)))
    run.update()
    parsed = []
    loads = json.loads
    monkeypatch.setattr(reading.json, "loads", lambda text: parsed.append(text) or loads(text))
    append(file, trained(100))
    assert list(outcomes(run)) == list(range(1, 101))
    assert len(parsed) == 1


def test_a_start_that_goes_on_from_a_checkpoint_takes_the_place_of_what_came_after_it(run: WatchedRun) -> None:
    append(run.path / "metrics-001.jsonl", *(trained(step, 0.1) for step in range(1, 8)))
    run.update()
    assert run.newest == 7
    append(run.path / "metrics-002.jsonl", logged(4, validation__greedy__outcome_reward__mean=0.5), trained(5, 0.9))
    assert outcomes(run) == {1: 0.1, 2: 0.1, 3: 0.1, 4: 0.1, 5: 0.9}
    assert run.steps[4]["validation/greedy/outcome_reward/mean"] == 0.5
    assert run.newest == 5


def test_a_file_that_is_written_anew_is_read_anew(run: WatchedRun) -> None:
    file = append(run.path / "metrics-001.jsonl", trained(1), trained(2))
    run.update()
    file.write_text(trained(1, 0.75))
    assert outcomes(run) == {1: 0.75}
    new = append(file.with_name("new"), trained(1, 0.125), trained(2, 0.125), trained(3, 0.125))
    new.replace(file)
    assert outcomes(run) == {1: 0.125, 2: 0.125, 3: 0.125}


@pytest.mark.parametrize("line", ["not json\n", "[1]\n", '{"step": null, "data": {}}\n', '{"step": 2, "data": 3}\n'])
def test_a_damaged_line_is_told_and_the_others_are_shown(run: WatchedRun, line: str) -> None:
    append(run.path / "metrics-001.jsonl", trained(1), line, trained(3))
    assert list(outcomes(run)) == [1, 3]
    assert run.problems == ["metrics-001.jsonl, line 2: no metrics of a step"]
    run.update()
    assert len(run.problems) == 1


def test_what_is_no_number_is_nan_and_what_nobody_watches_is_not_kept(run: WatchedRun) -> None:
    append(run.path / "metrics-001.jsonl", trained(1, actor__kl_loss=None, actor__grad_norm="x", perf__mfu=0.5))
    run.update()
    assert math.isnan(run.steps[1]["actor/kl_loss"])
    assert math.isnan(run.steps[1]["actor/grad_norm"])
    assert "perf/mfu" not in run.steps[1]


def test_plan_and_end_are_read(run: WatchedRun) -> None:
    plan(run.path, 40)
    append(run.path / "metrics-001.jsonl", trained(1))
    run.update()
    assert (run.total, run.finished) == (40, False)
    (run.path / "finished").write_text("40\n")
    run.update()
    assert run.finished
    plan(run.path, 80)
    run.update()
    assert (run.total, run.finished) == (80, False)
    (run.path / "run.json").write_text('{"experiment"')
    run.update()
    assert "not the record of a run" in run.problems[0]


def test_a_file_in_the_place_of_the_folder_is_told(run: WatchedRun) -> None:
    append(run.path, "x")
    run.update()
    assert run.steps == {}


def test_the_group_is_the_first_of_the_newest_dump(run: WatchedRun) -> None:
    append(run.path / "rollouts/9.jsonl", response("old", "old"))
    file = append(run.path / "rollouts/10.jsonl", response("a", "first"), response("a", "second")[:30])
    run.update()
    assert (run.group.step, [row["output"] for row in run.group.rows]) == (10, ["first"])
    append(file, response("a", "second")[30:], response("b", "other"))
    run.update()
    assert [row["output"] for row in run.group.rows] == ["first", "second"]
    append(run.path / "rollouts/11.jsonl", response("c", "half")[:10])
    run.update()
    assert run.group.step == 10, "nothing of the newest dump is there yet"


def test_neither_a_long_response_nor_a_long_dump_fills_the_memory(run: WatchedRun) -> None:
    file = append(run.path / "rollouts/1.jsonl", response("a", "x" * 2**20))
    with file.open("a") as lines:
        lines.writelines(response("b", "y" * 1000) for _ in range(20_000))
    tracemalloc.start()
    run.update()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(run.group.rows) == 1
    assert len(run.group.rows[0]["output"]) == reading.MOST_CHARS
    assert peak < 8 * 2**20 < file.stat().st_size
