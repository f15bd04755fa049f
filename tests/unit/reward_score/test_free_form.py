"""Free-form outcomes: worked by hand, and against rouge-score itself."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from reward_score.free_form import UnicodeTokenizer, score_free_form


@pytest.mark.parametrize(
    ("answer", "truth", "reward"),
    [
        ("a red car", "a red car", 1),
        ("A RED, car!", "a red car", 1),
        ("a red bus", "a red car", (2 / 3 + 1 / 2 + 2 / 3) / 3),
        ("car red a", "a red car", (1 + 0 + 1 / 3) / 3),
        ("bus", "a red car", 0),
        ("", "a red car", 0),
        ("!?", "a red car", 0),
        ("running dogs", "run dog", 1),
        ("the walls are walking", "the walled are walk", 1),
        ("his", "hi", 0),  # words of up to 3 letters are not stemmed, nor those of other alphabets
        ("cafés", "café", 0),
        # one word: no bigrams, so ROUGE-2 is left out
        ("car", "car", 1),
        ("Car.", "car", 1),
        ("bus", "car", 0),
        ("a car", "car", 2 / 3),
        # a one-word answer to a longer truth has missed the bigrams
        ("car", "red car", (2 / 3 + 0 + 2 / 3) / 3),
        # other scripts
        ("红色的车", "红色的车", 1),
        ("红色的狗", "红色的车", (3 / 4 + 2 / 3 + 3 / 4) / 3),
        ("狗", "红色的车", 0),
        ("красная машина", "красная машина", 1),
        ("синий автобус", "красная машина", 0),
        ("नमस्ते दुनिया", "नमस्ते दुनिया", 1),
        ("cafe\u0301 noir", "café noir", 1),
        # no words at all
        ("?!", "?!", 1),
        (" → ", "→", 1),
        ("!", "?!", 0),
        ("", "?!", 0),
        ("$x$", "x", 1),
    ],
)
def test_worked_examples(answer: str, truth: str, reward: float) -> None:
    assert score_free_form(answer, truth) == pytest.approx(reward)


WORDS = st.lists(st.sampled_from(["the", "cats", "cat", "walking", "walks", "car's", "--"]), max_size=12)


@settings(max_examples=100, deadline=None)
@given(truth=WORDS, answer=WORDS)
def test_english_equals_rouge_score(truth: list[str], answer: list[str]) -> None:
    theirs = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True).score(" ".join(truth), " ".join(answer))
    tokens = UnicodeTokenizer().tokenize(" ".join(truth))
    kinds = ["rouge1", "rouge2", "rougeL"] if len(tokens) > 1 else ["rouge1", "rougeL"]
    if tokens:
        expected = sum(theirs[kind].fmeasure for kind in kinds) / len(kinds)
        assert score_free_form(" ".join(answer), " ".join(truth)) == pytest.approx(expected)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_range_and_identity(answer: str, truth: str) -> None:
    assert 0 <= score_free_form(answer, truth) <= 1
    assert score_free_form(truth, truth) == pytest.approx(1.0)


def test_words_of_a_script_with_combining_vowels_stay_whole() -> None:
    assert UnicodeTokenizer().tokenize("नमस्ते दुनिया") == ["नमस्ते", "दुनिया"]


@pytest.mark.timeout(300)
def test_long_answer_is_bounded() -> None:
    assert score_free_form("a rambling answer " * 6_000, "a short truth of words " * 40) < 0.1
