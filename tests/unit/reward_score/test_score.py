"""The two public functions: dispatch, format, truths, errors."""

import math
import subprocess
import sys
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from reward_score import PROBLEM_TYPES, OutcomeScore, OutcomeSettings, compute_score, score_outcome


def respond(answer: str) -> str:
    return f"<think>because</think>\n<answer>{answer}</answer>"


CASES = [
    ("numerical", "0.5", "1/2", None, 1.0),
    ("numerical", "0.6", "1/2", None, 0.0),
    ("multiple choice", "dog", "B", ["A. cat", "B. dog"], 1.0),
    ("multiple choice", "cat", "B", ["A. cat", "B. dog"], 0.0),
    ("OCR", "one two", "one two", None, 1.0),
    ("OCR", "one too", "one two", None, math.exp(-0.5)),
    ("free-form", "a red car", "a red car", None, 1.0),
    ("free-form", "green", "a red car", None, 0.0),
]


@pytest.mark.parametrize(("problem_type", "answer", "truth", "options", "reward"), CASES)
@pytest.mark.parametrize("case", [str, str.upper, str.lower, lambda name: f" {name} "])
def test_dispatch(problem_type, answer, truth, options, reward, case) -> None:
    score = score_outcome(case(problem_type), respond(answer), truth, options)
    assert score == OutcomeScore(reward=pytest.approx(reward), format_ok=True, answer=answer)


@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
@pytest.mark.parametrize("response", ["A", "<answer>A</answer>", respond("A") + " A"])
def test_without_the_format_the_reward_is_zero(problem_type: str, response: str) -> None:
    assert score_outcome(problem_type, response, "A") == OutcomeScore(reward=0.0, format_ok=False, answer=None)


@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
def test_empty_answer_is_wrong(problem_type: str) -> None:
    assert score_outcome(problem_type, respond(" "), "A") == OutcomeScore(reward=0.0, format_ok=True, answer="")


@pytest.mark.parametrize("truth", ["7", "<answer>7</answer>", "<answer> 7\n</answer>", "$7$", "<answer>$7$</answer>"])
@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
def test_wrapped_truth(problem_type: str, truth: str) -> None:
    options = ["6", "7"]
    assert score_outcome(problem_type, respond("7"), truth, options).reward == 1.0
    assert score_outcome(problem_type, respond("6"), truth, options).reward < 0.5


def test_settings_are_passed_on() -> None:
    settings = OutcomeSettings(ocr_reward="linear")
    assert score_outcome("OCR", respond("one too"), "one two", settings=settings).reward == 0.5
    score = compute_score(
        "d", respond("one too"), "one two", {"problem_type": "OCR"}, settings={"ocr_reward": "linear"}
    )
    assert score["score"] == 0.5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ocr_reward", "wer"),
        ("strict_percent", "yes"),
        ("require_unit", 1),
        ("unevaluated_work", None),
        ("tolerance", -0.1),
        ("tolerance", 1.0),
        ("tolerance", float("nan")),
        ("require_thinking", "true"),
        ("percent", True),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_it(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        OutcomeSettings(**{name: value})
    with pytest.raises(ValueError, match=name):
        compute_score("d", respond("5"), "5", {"problem_type": "numerical"}, settings={name: value})


@pytest.mark.parametrize("thinking", ["", " ", "\n"])
def test_empty_thinking_is_the_format_unless_the_setting_says_otherwise(thinking: str) -> None:
    response = f"<think>{thinking}</think><answer>5</answer>"
    assert score_outcome("numerical", response, "5") == OutcomeScore(reward=1.0, format_ok=True, answer="5")
    strict = score_outcome("numerical", response, "5", settings=OutcomeSettings(require_thinking=True))
    assert strict == OutcomeScore(reward=0.0, format_ok=False, answer=None)
    assert score_outcome("numerical", respond("5"), "5", settings=OutcomeSettings(require_thinking=True)).reward == 1.0


@pytest.mark.parametrize("problem_type", ["OCR", "free-form"])
def test_an_answer_longer_by_far_than_the_truth_earns_nothing(problem_type: str) -> None:
    assert score_outcome(problem_type, respond("some words " * 100), "some words").reward < 0.1
    assert score_outcome(problem_type, respond("some words " * 1000), "some words").reward == 0.0
    assert score_outcome(problem_type, respond("some words " * 1000), "some words " * 1000).reward == 1.0


@pytest.mark.parametrize("well_formed", [True, False])
@pytest.mark.parametrize("truth", ["", "  ", "<answer></answer>", "<answer> </answer>"])
@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
def test_empty_truth_is_an_error(problem_type: str, truth: str, well_formed: bool) -> None:
    with pytest.raises(ValueError, match="ground_truth"):
        score_outcome(problem_type, respond("A") if well_formed else "A", truth)


def test_truth_of_another_type_is_an_error() -> None:
    with pytest.raises(TypeError, match="ground_truth must be a string, not float"):
        score_outcome("numerical", respond("5"), 5.0)


def test_unknown_problem_type_names_the_known() -> None:
    with pytest.raises(ValueError, match=r"'essay'.*numerical, multiple choice, OCR, free-form"):
        score_outcome("essay", respond("5"), "5")


def test_score_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        OutcomeScore(1.0, True, "5").reward = 0.0


def test_compute_score_through_verls_signature() -> None:
    row = {"problem_type": "multiple choice", "options": np.array(["cat", "dog"], dtype=object), "index": 3}
    score = compute_score(
        data_source="d",
        solution_str=respond("dog"),
        ground_truth="B",
        extra_info=row,
        reward_router_address=None,
        reward_model_tokenizer=None,
    )
    # No "reward": verl's validation has a list of that name.
    assert score == {"score": 1.0, "format_ok": True, "answer": "dog"}
    assert compute_score("d", "dog", "B", row) == {"score": 0.0, "format_ok": False, "answer": None}


@pytest.mark.parametrize("extra_info", [None, {}, {"options": []}, {"problem_type": None}])
def test_compute_score_needs_the_problem_type(extra_info) -> None:
    with pytest.raises(ValueError, match=r"extra_info\['problem_type'\] is missing .*'geo'"):
        compute_score("geo", respond("5"), "5", extra_info)


def test_needs_neither_verl_nor_torch() -> None:
    check = "import sys, reward_score; print([m for m in ('verl', 'torch', 'ray', 'sympy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
