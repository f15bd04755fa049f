"""Option labels, as preprocessing and the reward read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_score.option_labels import labelled_options, option_texts, split_label


@pytest.mark.parametrize(
    "text", ["A. red", "a. red", "(A) red", "(A). red", "[A] red", "A) red", "A: red", "A、red", "A：red", "A.red"]
)
def test_a_label_and_its_text(text: str) -> None:
    assert split_label(text) == ("A", "red")


@pytest.mark.parametrize(
    "text", ["red", "A", "A red", "", "1. red", "AB. red", "-A. red", "(A red", "é. red", "红、蓝"]
)
def test_no_label(text: str) -> None:
    assert split_label(text) is None


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        (["red", "blue"], ["red", "blue"]),
        (["A. red", "B. blue"], ["red", "blue"]),
        (["A、red", "B、blue"], ["red", "blue"]),
        (["a) red", "(B) blue"], ["red", "blue"]),
        (["A.5 cm", "B.7 cm"], ["5 cm", "7 cm"]),
        (["A.", "B."], ["", ""]),
        # names, not labels; and labels of some options only
        (["A. Einstein", "M. Curie"], ["A. Einstein", "M. Curie"]),
        (["A. red", "blue"], ["A. red", "blue"]),
        (["A. red", "A. blue"], ["A. red", "A. blue"]),
        ([], []),
    ],
)
def test_labels_are_taken_off_where_all_options_have_theirs(options: list[str], texts: list[str]) -> None:
    assert option_texts(options) == dict(zip("AB", texts, strict=False))


def test_options_out_of_order_keep_their_letters() -> None:
    assert option_texts(["B. blue", "A. red"]) == {"A": "red", "B": "blue"}


def test_more_options_than_letters_are_an_error() -> None:
    with pytest.raises(ValueError, match="options has 27 entries"):
        option_texts(["x"] * 27)


@pytest.mark.parametrize(
    ("options", "labelled"),
    [
        (["red", " blue "], ["A. red", "B. blue"]),
        (["A、red", "B、blue"], ["A、red", "B、blue"]),
        (["(A) red", "(B) blue"], ["(A) red", "(B) blue"]),
        (["M. Curie", "A. Einstein"], ["A. M. Curie", "B. A. Einstein"]),
        ([], []),
    ],
)
def test_options_get_a_label_once(options: list[str], labelled: list[str]) -> None:
    assert labelled_options(options) == labelled


@given(st.lists(st.text(min_size=1, max_size=8), max_size=26))
def test_labelled_options_are_read_back(options: list[str]) -> None:
    labelled = labelled_options(options)
    assert labelled_options(labelled) == labelled
    assert option_texts(labelled) == option_texts(options)
