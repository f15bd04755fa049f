"""Scores read from replies, probability-weighted ones above all."""

import math

import pytest

from recipe.sophiavl.trm.client_settings import ClientSettings
from recipe.sophiavl.trm.reply import expected_score, read_score, value_masses
from recipe.sophiavl.trm.transport import Reply, TokenChoice, parse_reply


def choice(text, probabilities):
    logs = {other: math.log(p) if p else -9999.0 for other, p in probabilities.items()}
    return TokenChoice(text, logs[text], tuple(logs.items()))


END = choice("<|im_end|>", {"<|im_end|>": 1.0})


def test_a_value_of_one_token():
    tokens = [choice("0.7", {"0.7": 0.5, "0.8": 0.3, "1.0": 0.2, "0.75": 0.0}), END]
    assert expected_score(tokens, 0, 0.5) == pytest.approx(0.5 * 0.7 + 0.3 * 0.8 + 0.2 * 1.0)


def test_a_value_of_three_tokens_weighs_every_branch():
    tokens = [choice("0", {"0": 0.6, "1": 0.4}), choice(".", {".": 1.0}), choice("7", {"7": 0.75, "8": 0.25}), END]
    masses = value_masses(tokens, 0)
    assert masses == pytest.approx({"1.0": 0.4, "0.7": 0.45, "0.8": 0.15})
    assert expected_score(tokens, 0, 0.5) == pytest.approx(0.4 + 0.45 * 0.7 + 0.15 * 0.8)


def test_a_value_of_two_tokens():
    tokens = [choice("0.", {"0.": 0.9, "1.": 0.1}), choice("3", {"3": 0.5, "4": 0.5}), END]
    assert expected_score(tokens, 0, 0.5) == pytest.approx(0.1 + 0.45 * 0.3 + 0.45 * 0.4)


def test_a_whole_one_is_taken_at_its_word_and_the_unseen_branch_left_out():
    tokens = [choice("1", {"1": 0.6, "0": 0.4}), choice(".", {".": 1.0}), choice("0", {"0": 1.0}), END]
    assert value_masses(tokens, 0) == pytest.approx({"1.0": 0.6})
    assert expected_score(tokens, 0, 0.5) == pytest.approx(1.0)
    assert expected_score(tokens, 0, 0.7) is None


def test_mass_on_other_tokens_is_left_out_and_too_little_is_no_score():
    tokens = [choice("0.2", {"0.2": 0.3, "0.4": 0.1, "The": 0.6}), END]
    assert expected_score(tokens, 0, 0.4) == pytest.approx((0.3 * 0.2 + 0.1 * 0.4) / 0.4)
    assert expected_score(tokens, 0, 0.41) is None


def test_the_generated_token_counts_even_where_the_alternatives_lack_it():
    tokens = [TokenChoice("0.2", math.log(0.6), (("0.4", math.log(0.4)),)), END]
    assert expected_score(tokens, 0, 0.5) == pytest.approx(0.6 * 0.2 + 0.4 * 0.4)


@pytest.mark.parametrize("ending", [[END], []])
def test_a_bare_digit_is_a_whole_number(ending):
    tokens = [choice("0", {"0": 1.0}), *ending]
    assert value_masses(tokens, 0) == pytest.approx({"0.0": 1.0})


def test_a_number_inside_other_text():
    tokens = [
        choice('{"', {'{"': 1.0}),
        choice("score", {"score": 1.0}),
        choice('": 0', {'": 0': 0.5, '": 1': 0.25, "1": 0.25}),
        choice(".", {".": 1.0}),
        choice("5", {"5": 0.5, "6": 0.5}),
        choice("}", {"}": 1.0}),
    ]
    start = len('{"score": ')
    assert value_masses(tokens, start) == pytest.approx({"1.0": 0.25, "0.5": 0.25, "0.6": 0.25})


def test_space_before_the_alternatives():
    tokens = [choice("0", {"0": 0.5, " 1": 0.5}), choice(".", {".": 1.0}), choice("5", {"5": 1.0}), END]
    assert value_masses(tokens, 0) == pytest.approx({"1.0": 0.5, "0.5": 0.5})


def test_a_second_decimal_is_not_looked_at():
    tokens = [choice(text, {text: 1.0}) for text in ("0", ".", "8", "5")]
    assert value_masses(tokens, 0) == {"0.8": 1.0}


def expected_config(**changes):
    return ClientSettings(urls=["http://h/v1"], model="m", score_mode="expected", **changes)


def test_the_reply_gives_a_score_or_the_reason_for_none():
    tokens = (choice("0.2", {"0.2": 0.7, "0.4": 0.3}), END)
    config = expected_config()
    assert read_score(Reply("0.2", False, tokens, {}), config) == (pytest.approx(0.26), None)
    assert read_score(Reply("0.2", False, None, {}), config) == (None, "no_logprobs")
    assert read_score(Reply("0.3", False, tokens, {}), config) == (None, "no_logprobs")
    assert read_score(Reply("good", False, tokens, {}), config) == (None, "unparsable")
    strict = expected_config(expected_min_mass=1.0)
    less = (choice("0.2", {"0.2": 0.7, "x": 0.3}), END)
    assert read_score(Reply("0.2", False, less, {}), strict) == (None, "no_mass")


@pytest.mark.parametrize(
    ("text", "structured_output", "value"),
    [
        ("0.7", "choice", 0.7),
        ("0.7", "off", None),
        ("Score: 0.7", "choice", None),
        ("<answer>0.7</answer>", "off", 0.7),
        ("Score: 0.7\nThe step", "off", 0.7),
    ],
)
def test_a_number_at_the_end_of_a_cut_reply_may_lack_digits(text, structured_output, value):
    config = ClientSettings(urls=["http://h/v1"], model="m", structured_output=structured_output)
    assert read_score(Reply(text, True, None, {}), config)[0] == value


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "5.0", "1000", "true", '"-0.1"', "null"])
@pytest.mark.parametrize("place", ["token", "alternative"])
def test_what_is_no_log_probability_makes_no_score(number, place):
    good, bad = "-0.1", number
    token, other = (bad, good) if place == "token" else (good, bad)
    entry = f'{{"token": "0.2", "logprob": {token}, "top_logprobs": [{{"token": "0.2", "logprob": {other}}}]}}'
    raw = f'{{"choices": [{{"message": {{"content": "0.2"}}, "logprobs": {{"content": [{entry}]}}}}]}}'
    config = expected_config()
    assert read_score(parse_reply(raw.encode()), config) == (None, "no_logprobs")
