"""What holds for any text: no exception, a reward in [0, 1], and no answer that is right for two different truths."""

from __future__ import annotations

from itertools import combinations

import pytest
from hostile import read_hostile, score
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from reward_score import PROBLEM_TYPES, OutcomeSettings, maths, score_outcome
from reward_score.option_labels import option_texts

STRICT = OutcomeSettings(strict_percent=True, require_unit=True)

FRAGMENTS = [*"₹₩€£¥$%‰°′″²³₂½①⑤µμΩ∞√π×·÷−–⁻≈≠≤\u0301\u200b\u202e\x00\n\t", "\ud800", "\udfff"]
FRAGMENTS += [
    "5",
    "-",
    "+",
    ".",
    ",",
    "/",
    "=",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "|",
    "^",
    "_",
    "!",
    ":",
    " ",
    "  ",
    "0",
    "12",
]
FRAGMENTS += [
    "\\frac",
    "\\sqrt",
    "\\boxed{",
    "\\text{",
    "\\pi",
    "\\overline{",
    "\\binom",
    "\\circ",
    "\\left(",
    "\\",
    "$$",
]
FRAGMENTS += [
    "x",
    "e",
    "i",
    "m",
    "kg",
    "MW",
    "km/h",
    "°C",
    " per ",
    " squared",
    "square ",
    "apples",
    "not ",
    "or",
    "and ",
]
FRAGMENTS += [
    "million",
    "two ",
    "minus ",
    "half",
    "nan",
    "inf",
    "1e99",
    "9" * 45,
    "A",
    "B",
    "A. ",
    "(B)",
    "、",
    "答案是",
    "red",
]
CHARACTERS = st.characters(exclude_categories=())
TEXTS = st.one_of(
    st.text(CHARACTERS, max_size=20),
    st.lists(st.sampled_from(FRAGMENTS), max_size=8).map("".join),
    st.lists(st.one_of(st.sampled_from(FRAGMENTS), CHARACTERS), max_size=8).map("".join),
)


def reward(problem_type: str, answer: str, truth: str, options: list[str] | None = None, **kwargs) -> float:
    return score_outcome(problem_type, f"<think>so</think><answer>{answer}</answer>", truth, options, **kwargs).reward


@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
@settings(max_examples=250, deadline=None)
@given(answer=TEXTS, truth=TEXTS, options=st.lists(TEXTS, max_size=5))
@example(answer="₹5", truth="₩5", options=[])
@example(answer="5", truth="₹5", options=["₹5", "5"])
def test_no_text_raises(problem_type: str, answer: str, truth: str, options: list[str]) -> None:
    try:
        score_outcome(problem_type, "", truth, options)
        reward(problem_type, "", truth, options)
    except ValueError:  # no answer could be right for this truth
        return
    for strict in (OutcomeSettings(), STRICT):
        assert 0 <= reward(problem_type, answer, truth, options, settings=strict) <= 1


@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
@pytest.mark.parametrize("unit", ["5", "A", "word ", "\ud800", "\x00", "(", "\\frac{", "界", "5 = ", "\u0301", "$"])
def test_no_length_raises(problem_type: str, unit: str) -> None:
    assert reward(problem_type, unit * (200_000 // len(unit)), "B", ["x", "y"]) < 0.5


NUMBERS = [
    *("5", "-5", "0.05", "500", "1/2", "0.5", "2", "1/3", "5.0", "05", "5e1", "50", "0", "-2", "1776", "five", "two")
]
NUMBERS += [
    "\\frac{1}{2}",
    "\\sqrt{4}",
    "\\sqrt{25}",
    "2+3",
    "37*48",
    "\\pi",
    "x",
    "2x",
    "x+1",
    "(1, 2)",
    "1, 2",
    "x = 5",
]
AFTER = [
    "",
    "%",
    " cm",
    " m",
    " km/h",
    " m/s",
    " mW",
    " MW",
    " apples",
    " oranges",
    "°",
    " °C",
    " million",
    " squared",
    "!",
]
AFTER += [" cm^2", " hours", " minutes", "$", "x", "s", " = 5", "=2", ", 5", " or 5", "\\%", "₂", "²", "①"]
BEFORE = ["", "", "-", "$", "€", "¥", "x = ", "y = ", "not ", "about ", "The answer is ", "\\boxed{5} ", "2 = "]
NUMERICAL = st.tuples(st.sampled_from(BEFORE), st.sampled_from(NUMBERS), st.sampled_from(AFTER)).map("".join)


@pytest.mark.timeout(600)
def test_hostile_answers_are_wrong_and_few_reach_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time itself: python tests/unit/reward_score/hostile.py"""
    asked = []
    monkeypatch.setattr(maths, "_ask", lambda *comparison: asked.append(comparison) or False)
    rows = read_hostile()
    assert len(rows) == 1000
    assert [row for row in rows if score(row)[0] > (0.0 if row["type"] == "numerical" else 0.5)] == []
    assert len(asked) < 100


@settings(max_examples=400, deadline=None)
@given(answer=NUMERICAL, truth=NUMERICAL, other=NUMERICAL)
@example(answer="5%", truth="5", other="0.05")
@example(answer="5", truth="5 cm", other="5 m")
@example(answer="¥5", truth="5 yen", other="5 yuan")
@example(answer="5$ $6", truth="5", other="6")
def test_no_number_is_right_for_two_truths(answer: str, truth: str, other: str) -> None:
    """Truths are the same if one is right for the other."""
    assume(reward("numerical", truth, other, settings=STRICT) == 0.0)
    scores = [reward("numerical", answer, either, settings=STRICT) for either in (truth, other)]
    assert scores != [1.0, 1.0]


OPTIONS = st.sampled_from(
    ["red", "Red", "RED", "red.", "A", "B", "b", "AB", "A and B", "5", "-5", "5 mW", "5 MW", "x²", "x2", ""]
)
CHOICES = st.one_of(TEXTS, OPTIONS, st.tuples(st.sampled_from(["A", "B", "A. ", "(C) ", "B "]), OPTIONS).map("".join))


@settings(max_examples=400, deadline=None)
@given(answer=CHOICES, options=st.lists(st.one_of(OPTIONS, TEXTS.filter(str.strip)), min_size=2, max_size=5))
@example(answer="tt", options=["TT", "Tt", "tt"])
@example(answer="A. 5", options=["5", "-5"])
def test_no_choice_is_right_for_two_options(answer: str, options: list[str]) -> None:
    texts = option_texts(options)
    right = [letter for letter in texts if reward("multiple choice", answer, letter, options) == 1.0]
    for one, other in combinations(right, 2):
        assert texts[one].split() == texts[other].split()


WORDS = [
    "cat",
    "Cat",
    "cats",
    "-5",
    "5",
    "C++",
    "C",
    "x²",
    "x2",
    "1/2",
    "1 2",
    "the",
    "not",
    "红",
    "½",
    "?",
    "3.5",
    "35",
    "①",
    "1",
]


@pytest.mark.parametrize("problem_type", ["OCR", "free-form"])
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_text_is_wholly_right_for_two_truths(problem_type: str, data: st.DataObject) -> None:
    phrases = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)
    answer, truth, other = (data.draw(phrases) for _ in range(3))
    assume(reward(problem_type, truth, other) < 1)
    assert [reward(problem_type, answer, either) for either in (truth, other)] != [1, 1]
