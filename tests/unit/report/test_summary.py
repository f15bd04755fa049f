"""What the report says changed is what it says: means of so many steps, with their standard errors."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from recipe.sophiavl.report.logs import Steps
from recipe.sophiavl.report.summary import Change, Value, paired_difference, summary


def trained(outcomes: Sequence[float]) -> Steps:
    return {step: {"outcome_reward/mean": value} for step, value in enumerate(outcomes, 1)}


def changes(steps: Steps, folder: Path = Path("nowhere")) -> dict[str, Change]:
    return {f"{change.group}: {change.name}": change for change in summary(steps, folder)}


def dump(file: Path, outcomes: Sequence[float | None], kinds: Sequence[str] = ("OCR",), **changed: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "data_source": "s",
            "split": "val",
            "index": i,
            "group": f"{file}-{i}",
            "problem_type": kinds[i % len(kinds)],
            "outcome_reward": outcome,
        }
        | changed
        for i, outcome in enumerate(outcomes)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(("steps", "width"), [(4, 2), (6, 3), (7, 3), (10, 5), (40, 5)])
def test_the_label_says_how_many_steps_are_in_a_mean(steps: int, width: int) -> None:
    values = [i**2 / 2000 for i in range(steps)]
    change = changes(trained(values))[f"training, means of {width} steps: outcome reward"]
    assert change.before.mean == pytest.approx(np.mean(values[:width]))
    assert change.after.mean == pytest.approx(np.mean(values[-width:]))
    errors = [np.std(part, ddof=1) / math.sqrt(width) for part in (values[:width], values[-width:])]
    assert [change.before.error, change.after.error] == pytest.approx(errors)
    assert change.difference.mean == pytest.approx(change.after.mean - change.before.mean)
    assert change.difference.error == pytest.approx(math.hypot(*errors))


@pytest.mark.parametrize("steps", [2, 3])
def test_one_step_against_one_is_no_change(steps: int) -> None:
    change = changes(trained([0.1, 0.5, 0.9][:steps]))["training, 1 step: outcome reward"]
    assert (change.before, change.difference) == (Value(0.1), None)
    assert change.after is not None


def test_the_annealing_factor_is_that_of_a_step_and_has_no_error() -> None:
    steps = {step: {"thinking_reward/anneal": 1 - step / 20} for step in range(1, 21)}
    assert summary(steps, Path("nowhere")) == [Change("training, 1 step", "annealing factor", Value(0.95), Value(0.0))]


def test_a_run_that_has_just_begun_shows_where_it_stands() -> None:
    steps = {0: {"validation/greedy/outcome_reward/mean": 0.3, "validation/greedy/questions": 9.0}} | trained([0.2])
    found = changes(steps)
    started = Change("greedy validation (n = 9)", "outcome reward", Value(0.3))
    assert found["greedy validation (n = 9): outcome reward"] == started
    assert found["training, 1 step: outcome reward"].after is None
    assert len(found) == 2, "what was not measured is not shown"
    assert changes({}) == {}


def validated(mode: str, part: str, *values: tuple[float, float]) -> Steps:
    name = f"validation/{mode}/{part}"
    return {
        step * 10: {f"{name}/mean": mean, f"{name}/stderr": error, f"validation/{mode}/questions": 9.0}
        for step, (mean, error) in enumerate(values)
    }


def test_each_way_of_validation_and_each_type_has_its_row() -> None:
    parts = (("sampled", "outcome_reward"), ("greedy", "outcome_reward"), ("greedy", "outcome_reward/multiple_choice"))
    steps: Steps = {0: {}, 10: {}}
    for shift, (mode, part) in enumerate(parts):
        for step, data in validated(mode, part, (0.1 * shift, 0.03), (0.5, 0.04)).items():
            steps[step] |= data
    found = changes(steps)
    assert list(found) == [
        "sampled validation (n = 9): outcome reward",
        "greedy validation (n = 9): outcome reward",
        "greedy validation (n = 9): outcome reward: multiple choice",
    ]
    greedy = found["greedy validation (n = 9): outcome reward"]
    assert (greedy.before, greedy.after) == (Value(0.1, 0.03), Value(0.5, 0.04))
    assert greedy.difference.mean == pytest.approx(0.4)
    assert greedy.difference.error == pytest.approx(0.05)
    assert not greedy.paired


def test_the_same_questions_are_compared_each_with_itself(tmp_path: Path) -> None:
    """Both means have an error of 0.17, but every question gained the same."""
    dump(tmp_path / "greedy/0.jsonl", [0.0, 0.5, 0.75, 0.1])
    dump(tmp_path / "greedy/10.jsonl", [0.25, 0.75, 1.0, 0.35])
    change = changes(validated("greedy", "outcome_reward", (0.4, 0.22), (0.65, 0.22)), tmp_path)
    row = change["greedy validation (n = 9): outcome reward"]
    assert row.paired
    assert row.difference.mean == pytest.approx(0.25)
    assert row.difference.error == pytest.approx(0, abs=1e-12)


def test_pairs_are_of_one_type_and_of_the_mean_of_a_question(tmp_path: Path) -> None:
    before, after = tmp_path / "0.jsonl", tmp_path / "10.jsonl"
    dump(before, [0, 1, 0, 1], kinds=("OCR", "multiple choice"))
    dump(after, [1, 1, 1, 0], kinds=("OCR", "multiple choice"))
    with after.open("a") as file:  # a second response to question 0
        file.write(json.dumps(json.loads(after.read_text().splitlines()[0]) | {"outcome_reward": 0}) + "\n")
    assert paired_difference(before, after, "outcome_reward", "ocr").mean == pytest.approx((0.5 + 1) / 2)
    assert paired_difference(before, after, "outcome_reward", "multiple_choice").mean == pytest.approx(-0.5)


def test_dumps_that_are_not_those_of_the_metrics_are_not_paired(tmp_path: Path) -> None:
    dump(tmp_path / "0.jsonl", [0.0, 0.0])
    dump(tmp_path / "10.jsonl", [1.0, 0.0])
    row = changes(validated("greedy", "outcome_reward", (0.2, 0.3), (0.3, 0.4)), tmp_path)
    row = row["greedy validation (n = 9): outcome reward"]
    assert not row.paired
    assert row.difference.mean == pytest.approx(0.1)
    assert row.difference.error == pytest.approx(0.5)


@pytest.mark.parametrize(
    "after",
    [[1.0, 1.0], [1.0, None, 1.0], [1.0, 1.0, 1.0, 1.0]],
    ids=["a question less", "a score missing", "a question more"],
)
def test_other_questions_are_not_paired(tmp_path: Path, after: list[float | None]) -> None:
    dump(tmp_path / "0.jsonl", [0.0, 0.0, 1.0])
    dump(tmp_path / "10.jsonl", after)
    assert paired_difference(tmp_path / "0.jsonl", tmp_path / "10.jsonl", "outcome_reward") is None


def test_questions_that_stand_in_the_data_twice_or_dumps_that_are_gone_are_not_paired(tmp_path: Path) -> None:
    for step in (0, 10):
        dump(tmp_path / f"{step}.jsonl", [0.0, 1.0, 1.0], index=7)
    assert paired_difference(tmp_path / "0.jsonl", tmp_path / "10.jsonl", "outcome_reward") is None
    assert paired_difference(tmp_path / "0.jsonl", tmp_path / "20.jsonl", "outcome_reward") is None


@pytest.mark.parametrize(
    "changed", [{"outcome_reward": "high"}, {"outcome_reward": 1e308}, {"problem_type": []}, {"index": {}}]
)
def test_a_dump_of_other_values_names_itself(tmp_path: Path, changed: dict[str, object]) -> None:
    for name in ("0.jsonl", "1.jsonl"):
        dump(tmp_path / name, [0.0, 1.0], **changed)
    with pytest.raises(ValueError, match=r"0\.jsonl: outcome_reward="):
        paired_difference(tmp_path / "0.jsonl", tmp_path / "1.jsonl", "outcome_reward")
