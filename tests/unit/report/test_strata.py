"""A group is of the kinds that its responses make it, and the sample has some of each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recipe.sophiavl.report.strata import StrataCollector
from tests.support.dumped import read, response

RIGHT, WRONG = 1.0, 0.0


def collected(folder: Path, rows: list[dict], size: int = 100) -> StrataCollector:
    collector = StrataCollector(size=size, seed=0)
    dump, _ = read(folder, rows)
    collector.add(dump, dump.numbers["outcome_reward"] >= 0.5)
    return collector


@pytest.mark.parametrize(
    ("row", "strata"),
    [
        (response("g", RIGHT, 0.3), ["wrong_thinking_right_answer"]),
        (response("g", RIGHT, 0.31), ["ordinary"]),
        (response("g", WRONG, 0.7), ["right_thinking_wrong_answer"]),
        (response("g", WRONG, 0.69), ["ordinary"]),
        (response("g", WRONG, 0.2), ["ordinary"]),
        (response("g", RIGHT, 0.9, gamma=0.8), ["distrusted"]),
        (response("g", RIGHT, 0.9, gamma=0.8, thinking_used=False), ["ordinary"]),
        (response("g", WRONG, 0.0, format_ok=False, thinking_asked=False), ["format_failure"]),
        (response("g", RIGHT, 0.0, thinking_asked=False), ["ordinary"]),
        (response("g", RIGHT, None), ["missing_score"]),
        (response("g", RIGHT, None, thinking_asked=False), ["ordinary"]),
        (response("g", None, 0.9), ["ordinary"]),
        (response("g", WRONG, 0.9, gamma=0.5), ["right_thinking_wrong_answer", "distrusted"]),
    ],
)
def test_one_response_decides(tmp_path: Path, row: dict, strata: list[str]) -> None:
    other = response("g", RIGHT, 0.5, gamma=row["gamma"], thinking_used=row["thinking_used"])
    (found,) = collected(tmp_path, [other, row]).chosen()
    assert list(found.strata) == strata


def test_counts_are_of_groups_and_of_the_responses_that_make_them_so(tmp_path: Path) -> None:
    rows = [
        *(response("a", RIGHT, 0.1), response("a", RIGHT, 0.2), response("a", WRONG, 0.9), response("a", RIGHT, 0.9)),
        *(response("b", RIGHT, 0.1), response("b", WRONG, 0.1)),
        *(response("c", RIGHT, 0.9), response("c", RIGHT, 0.9)),
        *(response("d", RIGHT, 0.8, gamma=0.5), response("d", WRONG, 0.5, gamma=0.5)),
    ]
    found = {one.key: (one.groups, one.responses) for one in collected(tmp_path, rows).counts()}
    assert found["wrong_thinking_right_answer"] == (2, 3)
    assert found["right_thinking_wrong_answer"] == (1, 1)
    assert found["distrusted"] == (1, 2)
    assert found["ordinary"] == (1, 2)
    assert found["format_failure"] == found["missing_score"] == (0, 0)


def test_flags_are_of_the_response_and_offsets_of_its_group(tmp_path: Path) -> None:
    rows = [response("a", RIGHT, 0.1), response("b", RIGHT, 0.9), response("a", WRONG, 0.9, format_ok=False)]
    dump, _ = read(tmp_path, rows)
    found = {ref.name: ref for ref in collected(tmp_path, rows).chosen()}
    assert found["a"].flags == [["wrong_thinking_right_answer"], ["right_thinking_wrong_answer", "format_failure"]]
    assert found["a"].offsets == dump.offsets[[0, 2]].tolist()
    assert found["b"].flags == [[]]


def test_rare_kinds_are_taken_whole_and_the_others_share_what_is_left(tmp_path: Path) -> None:
    rows = [response(f"o{i}", RIGHT, 0.5) for i in range(500)]
    rows += [response(f"w{i}", RIGHT, 0.1) for i in range(200)]
    rows += [response(f"m{i}", RIGHT, None) for i in range(3)]
    chosen = collected(tmp_path, rows, size=40).chosen()
    counts = {letter: sum(ref.name[0] == letter for ref in chosen) for letter in "owm"}
    assert counts["m"] == 3
    assert len(chosen) == sum(counts.values()) == 40
    assert abs(counts["o"] - counts["w"]) <= 1


def test_all_are_taken_where_there_are_few(tmp_path: Path) -> None:
    rows = [response(f"o{i}", RIGHT, 0.5) for i in range(30)]
    assert len(collected(tmp_path, rows, size=40).chosen()) == 30


def test_a_group_is_chosen_once_by_step(tmp_path: Path) -> None:
    collector = StrataCollector(size=50, seed=0)
    for step in (1, 2):
        dump, _ = read(tmp_path, [response("same", WRONG, 0.9, gamma=0.5), response("other")], step=step)
        collector.add(dump, np.array([False, True]))
    found = [(ref.step, ref.name) for ref in collector.chosen()]
    assert found == [(1, "other"), (1, "same"), (2, "other"), (2, "same")]
    assert collector.groups == 4
