"""The figures of an evaluation against what can be counted by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from recipe.sophiavl.evaluate.figures import Scored, figures_of, ks_of, majority_vote, measures_of, order_of, pass_at_k
from recipe.sophiavl.evaluate.questions import Question


def scored(answer: str | None, correct: bool = False, **values) -> Scored:
    return Scored(**{"reward": float(correct), "correct": correct, "answer": answer, "cut": False, **values})


def question(number: int, key: bytes, source: str = "here", kind: str = "numerical") -> Question:
    return Question(number, f"row {number}", str(number), source, kind, (key,), 1, None)


@pytest.mark.parametrize("answers", [1, 3, 6])
def test_pass_at_k_is_the_share_of_draws_with_a_right_one(answers):
    for right in range(answers + 1):
        for k in range(1, answers + 1):
            draws = list(combinations([True] * right + [False] * (answers - right), k))
            assert pass_at_k(answers, right, k) == pytest.approx(np.mean([any(draw) for draw in draws]))


def test_the_k_are_powers_of_two_and_the_number_of_samples():
    assert [ks_of(n) for n in (1, 2, 3, 8, 10)] == [[], [2], [2, 3], [2, 4, 8], [2, 4, 8, 10]]


@pytest.mark.parametrize(
    ("answers", "value"),
    [
        ([("4", True), ("5", False), (" 4 ", True)], 1.0),
        ([("Red", False), ("red", False), ("blue", True)], 0.0),
        ([("4", True), ("5", False)], 0.5),  # a tie
        ([("4", True), ("5", False), ("6", False)], 1 / 3),
        ([(None, False), (None, False), ("4", True)], 1.0),  # without the format no vote
        ([(None, False)], 0.0),
    ],
)
def test_the_most_frequent_answer_wins(answers, value):
    assert majority_vote([scored(*one) for one in answers]) == pytest.approx(value)


def test_measures_are_means_over_the_answers_that_there_are():
    some = [scored("4", True, thinking=0.5, tokens=10), scored(None, cut=True, thinking=None, tokens=None)]
    found = measures_of(some, samples=4)
    assert {name: found[name] for name in ("accuracy", "reward", "format", "cut", "thinking", "tokens", "pass@2")} == {
        **dict.fromkeys(("accuracy", "reward", "format", "cut", "thinking"), 0.5),
        "tokens": 10,
        "pass@2": 1.0,
    }
    assert np.isnan(found["pass@4"]), "two of the four answers are missing"
    assert all(np.isnan(value) for value in measures_of([], samples=4).values())
    assert "majority" not in measures_of([scored("4")], samples=1)


def test_figures_are_by_source_and_type_and_over_what_was_answered():
    questions = [question(n, bytes([n]), "ab"[n % 2], ("OCR", "numerical")[n < 6]) for n in range(8)]
    accuracy = np.array([1, 0, 1, 0, 1, 0, 1, np.nan])
    found = figures_of(questions, {"accuracy": accuracy}, resamples=200, seed=0)
    values = {group: (one["accuracy"]["value"], one["accuracy"]["n"]) for group, one in found.items()}
    assert values == {
        "all": (pytest.approx(4 / 7), 7),
        "source/a": (1.0, 4),
        "source/b": (0.0, 3),
        "type/OCR": (1.0, 1),
        "type/numerical": (0.5, 6),
    }
    assert found["all"]["accuracy"]["low"] < 4 / 7 < found["all"]["accuracy"]["high"]


def test_questions_that_share_an_image_are_no_independent_trials():
    accuracy = np.repeat(np.random.default_rng(0).integers(0, 2, 30), 10).astype(float)
    alone = [question(n, n.to_bytes(2)) for n in range(300)]
    shared = [question(n, bytes([n // 10])) for n in range(300)]
    widths = []
    for questions in (alone, shared):
        figure = figures_of(questions, {"accuracy": accuracy}, resamples=500, seed=0)["all"]["accuracy"]
        widths.append(figure["high"] - figure["low"])
    assert widths[1] > 2.5 * widths[0], "the square root of ten, about"
    assert figure["images"] == 30


@pytest.mark.parametrize(("value", "low", "high"), [(1.0, 0.815, 1.0), (0.0, 0.0, 0.185)])
def test_shares_that_are_all_alike_have_the_exact_interval(value, low, high):
    """Clopper and Pearson's table: 18 of 18."""
    questions = [question(n, bytes([n])) for n in range(18)]
    figure = figures_of(questions, {"accuracy": np.full(18, value)}, resamples=50, seed=0)["all"]["accuracy"]
    assert (figure["low"], figure["high"]) == (pytest.approx(low, abs=6e-4), pytest.approx(high, abs=6e-4))


def test_other_values_that_are_all_alike_have_none():
    questions = [question(n, bytes([n])) for n in range(18)]
    tokens = figures_of(questions, {"tokens": np.ones(18)}, resamples=50, seed=0)["all"]["tokens"]
    same = figures_of(questions, {"accuracy": np.zeros(18)}, resamples=50, seed=0, differences=True)["all"]["accuracy"]
    assert [(one["low"], one["reason"]) for one in (tokens, same)] == [(None, "all values are equal")] * 2


def test_measures_are_shown_in_one_order():
    assert order_of(["tokens", "pass@10", "reward", "pass@2", "accuracy", "majority"]) == [
        *("accuracy", "pass@2", "pass@10", "majority", "reward", "tokens")
    ]
