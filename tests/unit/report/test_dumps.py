"""Dumps are read as they are: what is no number, no line or no response costs itself, and is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from recipe.sophiavl.report.dumps import decode, dump_files, read_rows
from recipe.sophiavl.report.problems import Problems
from tests.support.dumped import read, response, write_dump


def test_each_response_has_its_numbers_flags_and_group(tmp_path: Path) -> None:
    rows = [
        response("a", 1.0, 0.25, gamma=0.5),
        response("b", 0.0, None, thinking_error="gone", thinking_used=False),
        response("a", 0.0, 0.75, format_ok=False, problem_type=" OCR "),
    ]
    dump, problems = read(tmp_path, rows, step=7)
    assert (dump.step, list(dump.names), dump.group.tolist()) == (7, ["a", "b"], [0, 1, 0])
    assert dump.numbers["outcome_reward"].tolist() == [1.0, 0.0, 0.0]
    np.testing.assert_array_equal(dump.numbers["thinking_reward"], [0.25, np.nan, 0.75])
    assert dump.numbers["gamma"].tolist() == [0.5, 1.0, 1.0]
    assert dump.flags["format_ok"].tolist() == [1.0, 1.0, 0.0]
    assert (list(dump.types), list(dump.errors)) == (["numerical", "numerical", "ocr"], ["", "gone", ""])
    assert (dump.asked.tolist(), dump.used.tolist()) == ([True] * 3, [True, False, True])
    assert problems.texts() == []


def test_offsets_lead_back_to_the_lines(tmp_path: Path) -> None:
    rows = [response(name, output=f"ünïcode {name} 漢字") for name in "abc"]
    dump, _ = read(tmp_path, rows)
    with dump.file.open("rb") as file:
        for offset, row in zip(dump.offsets, rows, strict=True):
            file.seek(offset)
            assert json.loads(file.readline()) == row


def test_a_question_is_known_by_its_row_of_the_data(tmp_path: Path) -> None:
    first, _ = read(tmp_path, [response("a", index=4), response("b", index=5)], step=1)
    second, _ = read(tmp_path, [response("c", index=5), response("d", index=5, split="val")], step=2)
    assert first.questions[1] == second.questions[0]
    assert len({*first.questions.tolist(), *second.questions.tolist()}) == 3


def test_lines_that_are_no_response_are_passed_over(tmp_path: Path) -> None:
    padding = dict.fromkeys(response()) | {"input": "x", "output": "y", "uid": "z_0_0"}
    dump, problems = read(tmp_path, [response("a"), padding])
    assert dump.group.size == 1
    assert problems.texts() == []
    assert read(tmp_path, [padding])[0] is None


@pytest.mark.parametrize("text", ["0.9", "high", "NaN", True, [1], {"a": 1}, 1.5, -0.1, float("nan"), float("inf")])
def test_what_is_no_number_of_the_range_is_left_out_and_named(tmp_path: Path, text: object) -> None:
    dump, problems = read(tmp_path, [response("a", thinking=0.5), response("b", thinking=text)])
    np.testing.assert_array_equal(dump.numbers["thinking_reward"], [0.5, np.nan])
    (told,) = problems.texts()
    assert "thinking_reward" in told
    assert "rollouts/1.jsonl, line 2" in told


def test_integers_of_hundreds_of_digits_are_no_numbers(tmp_path: Path) -> None:
    dump, problems = read(tmp_path, [response("a", outcome=10**400), response("b", outcome=1)])
    np.testing.assert_array_equal(dump.numbers["outcome_reward"], [np.nan, 1.0])
    (told,) = problems.texts()
    assert len(told) < 200


@pytest.mark.parametrize("value", ["yes", 2, "true"])
def test_what_is_neither_true_nor_false_is_named(tmp_path: Path, value: object) -> None:
    dump, problems = read(tmp_path, [response("a", format_ok=value)])
    assert np.isnan(dump.flags["format_ok"]).all()
    assert "format_ok" in problems.texts()[0]


def test_many_problems_of_a_kind_are_one_sentence_with_their_number(tmp_path: Path) -> None:
    _, problems = read(tmp_path, [response(str(i), thinking="x") for i in range(9)])
    (told,) = problems.texts()
    assert "9 times" in told


@pytest.mark.parametrize(
    "line",
    ["not json\n", "[1, 2]\n", "\n", '{"a": \n', "\x00\x00\n", "[" * 100_000 + "\n", '"\\ud800"\n', "null\n"],
)
def test_a_bad_line_costs_itself(tmp_path: Path, line: str) -> None:
    dump, problems = read(tmp_path, [response("a"), line, response("b")])
    assert list(dump.names) == ["a", "b"]
    (told,) = problems.texts()
    assert "rollouts/1.jsonl, line 2" in told


def test_bytes_that_are_no_text_cost_their_line(tmp_path: Path) -> None:
    file = write_dump(tmp_path / "1.jsonl", [response("a")])
    file.write_bytes(b'{"group": "\xff\xfe"}\n' + file.read_bytes())
    problems = Problems()
    assert [row["group"] for _, _, row in read_rows(file, problems)] == ["a"]
    assert len(problems.texts()) == 1


def test_a_half_written_last_line_is_left_out_and_told(tmp_path: Path) -> None:
    whole = json.dumps(response("b"))
    dump, problems = read(tmp_path, [response("a"), whole[: len(whole) // 2]])
    assert list(dump.names) == ["a"]
    assert "half written" in problems.texts()[0]


def test_numbers_that_json_does_not_have_are_read_as_python_writes_them() -> None:
    assert np.isnan(decode(b'{"a": NaN}')["a"])
    assert decode(b'{"a": -Infinity, "b": 1}') == {"a": -np.inf, "b": 1}


@pytest.mark.parametrize("field", ["gamma", "format_ok", "thinking_asked", "thinking_used", "problem_type", "index"])
def test_a_dump_of_an_older_version_says_what_it_lacks(tmp_path: Path, field: str) -> None:
    row = response("a")
    del row[field]
    dump, problems = read(tmp_path, [row])
    assert dump.group.size == 1
    assert problems.texts() == [f"The dumps of an older version hold no {field} (rollouts/1.jsonl)."]


def test_without_a_group_verls_id_tells_it(tmp_path: Path) -> None:
    rows = [response(uid=f"{name}_{place}_0") for name in ("a_x", "b") for place in range(2)]
    for row in rows:
        del row["group"]
    dump, _ = read(tmp_path, rows)
    assert (list(dump.names), dump.group.tolist()) == (["a_x", "b"], [0, 0, 1, 1])


def test_without_a_word_on_it_a_scored_response_was_asked_and_used(tmp_path: Path) -> None:
    rows = [response("a", thinking=0.5), response("b", thinking=None), response("c", thinking=0.0, format_ok=False)]
    for row in rows:
        del row["thinking_asked"], row["thinking_used"]
    dump, _ = read(tmp_path, rows)
    assert (dump.asked.tolist(), dump.used.tolist()) == ([True, False, False], [True, False, True])


def test_files_are_steps_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("10.jsonl", "9.jsonl", "x.jsonl", "1.5.jsonl", "2.json", "²"):
        (tmp_path / name).touch()
    assert list(dump_files(tmp_path)) == [9, 10]
    assert dump_files(tmp_path / "nowhere") == {}
