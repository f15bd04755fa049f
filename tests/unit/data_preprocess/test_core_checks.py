"""Checks of text fields."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_preprocess.core import checks
from data_preprocess.core.errors import Fault, RowError
from data_preprocess.schema import rl_row
from reward_score import PROBLEM_TYPES, score_outcome


def test_problem_types_are_those_that_have_a_reward() -> None:
    assert checks.PROBLEM_TYPES == PROBLEM_TYPES


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("numerical", "numerical"),
        ("Multiple Choice", "multiple choice"),
        ("multiple_choice", "multiple choice"),
        ("ocr", "OCR"),
        ("free form", "free-form"),
        ("free-form", "free-form"),
        ("text", "free-form"),
    ],
)
def test_problem_types_have_one_name(written: str, name: str) -> None:
    assert checks.problem_type_field(written, "t") == name


@pytest.mark.parametrize(
    ("truth", "letters"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(B)", "B"),
        ("B.", "B"),
        ("B. a car", "B"),
        ("(B) a car", "B"),
        ("a car", "B"),
        ("A  CAR", "B"),
        ("A,C", "A,C"),
        ("C, A", "A,C"),
        ("A and C", "A,C"),
        ("B. A car", "B"),
    ],
)
@pytest.mark.parametrize(
    "options",
    [
        ["a bus", "a car", "a train"],
        ["A. a bus", "(B) a car", "C: a train"],
        ["A、a bus", "B、a car", "C、a train"],
        ["[A] a bus", "b) a car", "C.a train"],
    ],
)
def test_truth_of_a_choice_becomes_letters(truth: str, letters: str, options: list[str]) -> None:
    assert checks.choice_truth(truth, options, "Which?", "solution") == letters
    # The reward takes the letters for the same truth.
    right = score_outcome("multiple choice", f"<think>so</think><answer>{truth}</answer>", letters, options)
    assert right.reward == 1.0


@pytest.mark.parametrize(
    ("truth", "options", "letters"),
    [
        ("I", ["I", "II", "III"], "A"),  # a Roman number, since there is no ninth option
        ("B", ["C", "B", "A"], "B"),  # a letter before a text
        ("C", ["C", "B"], "A"),  # a text, since there is no third option
        ("I. Newton", ["A. Einstein", "I. Newton"], "B"),  # an initial, not a label
        ("3.5", ["3.5", "4.5"], "A"),
        ("4", ["3", "4"], "B"),
    ],
)
def test_letters_and_texts_that_look_alike(truth: str, options: list[str], letters: str) -> None:
    assert checks.choice_truth(truth, options, "Which?", "solution") == letters
    response = f"<think>so</think><answer>{letters}</answer>"
    assert score_outcome("multiple choice", response, letters, options).reward == 1.0


def test_options_in_the_question_itself() -> None:
    question = "Which? A. a bus B. a car"
    assert checks.choice_truth("B", [], question, "solution") == "B"
    for truth, asked in (("C", question), ("B", "Which?"), ("a car", question)):
        with pytest.raises(RowError):
            checks.choice_truth(truth, [], asked, "solution")


@pytest.mark.parametrize(("truth", "options"), [("A", ["B", "A", "C"]), ("a", ["x", "a"]), ("b", ["b", "B"])])
def test_a_letter_of_one_option_and_the_text_of_another_is_no_truth(truth: str, options: list[str]) -> None:
    with pytest.raises(RowError, match="is the letter of one option and the text of another"):
        checks.choice_truth(truth, options, "Which?", "solution")


def test_a_label_is_written_once() -> None:
    for options in (["A、red", "B、blue"], ["red", "blue"]):
        row = rl_row(
            data_source="d",
            question="Which?",
            problem_type="multiple choice",
            answer="A",
            split="train",
            index=0,
            options=options,
        )
        assert row["prompt"][1]["content"].splitlines()[1:] == (
            options if "、" in options[0] else ["A. red", "B. blue"]
        )


def test_letters_out_of_order_could_mean_either() -> None:
    with pytest.raises(RowError, match="out of order: B, A"):
        checks.choice_truth("A", ["B. a car", "A. a bus"], "Which?", "solution")


def test_a_truth_that_is_two_options_is_no_truth() -> None:
    with pytest.raises(RowError, match="more than one option") as caught:
        checks.choice_truth("A CAR", ["a car", "A car"], "Which?", "solution")
    assert caught.value.fault is Fault.TRUTH_NOT_IN_OPTIONS


@pytest.mark.parametrize(
    ("written", "truth"),
    [("<answer> 5 </answer>", "5"), ("5", "5"), (5, "5"), ("<answer>5</answer> <answer>5</answer>", "5"), (0, "0")],
)
def test_truth_is_taken_out_of_its_tags(written: object, truth: str) -> None:
    assert checks.truth_field(written, "solution") == truth


@pytest.mark.parametrize("value", [None, float("nan"), "", "  \n"])
def test_nothing_is_empty_text(value: object) -> None:
    assert checks.text_field(value, "f") == ""


@pytest.mark.parametrize("value", [True, [], {}, b"x"])
def test_other_types_are_no_text(value: object) -> None:
    with pytest.raises(RowError):
        checks.text_field(value, "f")


@given(st.floats(0, 1))
def test_scores_in_range_are_kept(score: float) -> None:
    assert checks.score_field(score, "s") == score
    assert checks.score_field(repr(score), "s") == score


@pytest.mark.parametrize("score", [None, "", "good", -0.1, 1.01, 85, "nan", float("inf"), True])
def test_other_scores_are_bad(score: object) -> None:
    with pytest.raises(RowError):
        checks.score_field(score, "s")


def test_length_limit_is_inclusive() -> None:
    checks.check_length(10, 10, "f")
    checks.check_length(10**9, None, "f")
    with pytest.raises(RowError):
        checks.check_length(11, 10, "f")


def test_options_that_differ_in_case_only_are_told_apart_where_the_truth_is_one_of_them_as_written() -> None:
    options = ["TT", "Tt", "tt"]
    assert [checks.choice_truth(truth, options, "", "answer") for truth in options] == ["A", "B", "C"]
    with pytest.raises(RowError, match="more than one option"):
        checks.choice_truth("tT", options, "", "answer")
