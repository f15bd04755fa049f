"""Multiple choice answers and truths."""

import pytest

from reward_score.multiple_choice import score_multiple_choice

OPTIONS = ["red", "blue", "12 cm", "both A and B"]
LETTERED = ["A. red", "B. blue", "C. 12 cm", "D. both A and B"]
ANY_OPTIONS = [OPTIONS, LETTERED, ["(A) red", "(B) blue", "(C) 12 cm", "(D) both A and B"]]

RIGHT_A = ["A", "a", "(A)", "(a).", "A.", "A)", "A:", " A ", "**A**", "$A$", "\\boxed{A}", "\\boxed{\\text{A}}", "'A'"]
RIGHT_A += ["A. red", "(A) red", "A: Red.", "a) red", "A、red", "Option A", "option a.", "Choice (A)", "Ａ"]
RIGHT_A += ["The answer is A", "the correct answer is: A.", "Answer: A", "Final answer: A. red", "red", "RED.", " red "]
RIGHT_A += ["A red", "A\nred", "[A]", "A?", "It is A", "答案是A", "选A", "A is correct", "A,A"]

WRONG_A = ["", " ", ".", "B", "b", "blue", "B. red", "A. blue", "A. B", "A,B", "A and B", "AB", "A B", "A or B", "A/B"]
WRONG_A += ["E", "Z", "re", "r", "ed", "red blue", "none", "I don't know", "AA", "A A B", "not A", "A red herring"]
WRONG_A += ["A, B, C, D", "ABCD", "option", "answer", "A, purple", "both A and B", "A?B", "1"]
WRONG_A += ["A. crimson", "A. not red", "A: wrong, it is B", "A. red or B. blue", "not \\boxed{A}", "A or \\boxed{B}"]


@pytest.mark.parametrize("options", ANY_OPTIONS)
@pytest.mark.parametrize("truth", ["A", "a", "(A)", "A.", "A. red", "red", "Red"])
def test_one_letter(options: list[str], truth: str) -> None:
    wrong = [answer for answer in RIGHT_A if score_multiple_choice(answer, truth, options) != 1.0]
    right = [answer for answer in WRONG_A if score_multiple_choice(answer, truth, options) != 0.0]
    assert (wrong, right) == ([], [])


@pytest.mark.parametrize("truth", ["A,B", "B, A", "AB", "A and B", "A;B", "A. red, B. blue", "red, blue"])
@pytest.mark.parametrize("options", ANY_OPTIONS)
def test_sets(options: list[str], truth: str) -> None:
    for answer in (
        "A,B",
        "b, a",
        "AB",
        "A and B",
        "A & B",
        "(A), (B)",
        "A B",
        "red and blue",
        "A. red; B. blue",
        "A,B,A",
    ):
        assert score_multiple_choice(answer, truth, options) == 1.0, answer
    for answer in ("A", "B", "A,B,C", "ABC", "A,C", "", "A,", "A or B", "D", "BA", "A,B,E"):
        assert score_multiple_choice(answer, truth, options) == 0.0, answer


@pytest.mark.parametrize(
    ("answer", "truth", "options", "reward"),
    [
        # the text of an option goes before a list of letters
        ("AB", "C", ["x", "y", "AB"], 1.0),
        ("AB", "A,B", ["x", "y", "AB"], 0.0),
        ("A and B", "C", ["x", "y", "A and B"], 1.0),
        ("red, white and blue", "A", ["red, white and blue", "red"], 1.0),
        ("A. red, B", "A", ["red, B", "blue"], 1.0),
        # options that are letters, in another order than theirs
        ("A", "A", ["B", "A"], 1.0),
        ("B", "A", ["B", "A"], 0.0),
        ("A. B", "A", ["B", "A"], 1.0),
        # glued letters need options, or must not be a word
        ("ACE", "A,C,E", ["v", "w", "x", "y", "z"], 1.0),
        ("ACE", "A,C,E", None, 0.0),
        ("ABD", "A,B,D", None, 1.0),
        ("BAD", "A,B,D", ["w", "x", "y", "z"], 0.0),
        ("abd", "A,B,D", None, 0.0),
        # without options
        ("A. anything", "A", None, 1.0),
        ("A. anything", "A", [], 1.0),
        ("E", "A", None, 0.0),
        ("the  Eiffel Tower.", "The Eiffel Tower", None, 1.0),
        ("Eiffel", "The Eiffel Tower", None, 0.0),
        ("", "The Eiffel Tower", None, 0.0),
        ("", ".", None, 0.0),
        # an option's text goes before a lead-in
        ("option B", "A", ["option B", "x"], 1.0),
        # equal options are one option
        ("C", "A", ["red", "blue", "red"], 1.0),
        ("B", "A", ["red", "blue", "red"], 0.0),
        # images: options without a text
        ("B", "B", ["A.", "B."], 1.0),
        ("A", "B", ["A.", "B."], 0.0),
        # names are no lettered options
        ("A", "A. Einstein", ["M. Curie", "A. Einstein"], 0.0),
        ("B", "A. Einstein", ["M. Curie", "A. Einstein"], 1.0),
        ("$12$", "A", ["$12$", "13"], 1.0),
    ],
)
def test_special_cases(answer: str, truth: str, options: list[str] | None, reward: float) -> None:
    assert score_multiple_choice(answer, truth, options) == reward


@pytest.mark.parametrize("truth", ["E", "green", "A,E", "A or B"])
def test_truth_outside_the_options_is_an_error(truth: str) -> None:
    with pytest.raises(ValueError, match=r"ground_truth='.*' is none of the options"):
        score_multiple_choice("A", truth, OPTIONS)


def test_too_many_options_is_an_error() -> None:
    with pytest.raises(ValueError, match="options has 27 entries"):
        score_multiple_choice("A", "A", [str(i) for i in range(27)])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("unit", ["A,", "A ", "\\text{", "(", " ", "and ", "A. "])
def test_long_answer_is_bounded(unit: str) -> None:
    assert score_multiple_choice(unit * 30_000, "B", OPTIONS) == 0.0
