"""The parser: what counts as a score, and what must not."""

import math
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recipe.sophiavl.trm.parse import find_score, parse_score

PUBLISHED_PARSER_WRONG = [
    ("<answer>0.85</answer>", 0.85),  # read as 0
    ("0.75", 0.75),  # read as 0
    ("1/10", None),  # read as 1
    ("Step 1 is wrong. <answer>0.95</answer>", 0.95),  # read as 1
]

SCORES = [
    ("0.7", 0.7),
    ("1", 1.0),
    ("0", 0.0),
    ("1.0", 1.0),
    ("0.0", 0.0),
    (".5", 0.5),
    ("0.70", 0.7),
    ("1.000", 1.0),
    ("  0.4\n", 0.4),
    ("0.8.", 0.8),
    ("**0.6**", 0.6),
    ("__0.6__", 0.6),
    ("`0.6`", 0.6),
    ('"0.6"', 0.6),
    ("$0.6$", 0.6),
    ("(0.6)", 0.6),
    ("[0.6]", 0.6),
    ("0.8/1", 0.8),
    ("0.8 / 1.0", 0.8),
    ("0.8 out of 1", 0.8),
    ("Score: 0.8", 0.8),
    ("score:0.8", 0.8),
    ("SCORE = 0.8", 0.8),
    ("Score: .8", 0.8),
    ("Score: 0.8/1", 0.8),
    ("Final score: 0.8.", 0.8),
    ("Overall Score: **0.8**", 0.8),
    ("**Score:** 0.8", 0.8),
    ("**Score**: 0.8", 0.8),
    ("The score is 0.8.", 0.8),
    ("I give it a score of 0.3", 0.3),
    ("Rating: 0.3", 0.3),
    ("Score (0.0 to 1.0): 0.8", 0.8),
    ("The first step is sound, step 2 is not.\nScore: 0.4", 0.4),
    ("Score: 0.4\nStep 2 is not sound.", 0.4),
    ("Score: 0.4. Step 2 is not sound.", 0.4),
    ("Score: 0.4\nFinal score: 0.4", 0.4),
    ("<answer> 0.85 </answer>", 0.85),
    ("<ANSWER>1</ANSWER>", 1.0),
    ("<score>0.2</score>", 0.2),
    ("<answer>Score: 0.9</answer>", 0.9),
    ("<answer>**0.9**</answer>", 0.9),
    (r"\boxed{0.3}", 0.3),
    (r"$\boxed{0.3}$", 0.3),
    (r"The score is $\boxed{1}$.", 1.0),
    (r"<answer>0.3</answer> and \boxed{0.3}", 0.3),
    ('{"score": 0.7}', 0.7),
    ('{"score": "0.7"}', 0.7),
    ('{"Score": 1}', 1.0),
    ('{"score": 7e-1}', 0.7),
    ('{"reason": "Step 2 of 3 is wrong", "score": 0.5}', 0.5),
    ('{"reason": "it claims \\"score\\": 0.9", "score": 0.5}', 0.5),
    ('```json\n{"score": 0.7}\n```', 0.7),
    ('```\n{"score": 0.7}\n```', 0.7),
    ('Here it is: {"score": 0.7}', 0.7),
    ("<think>Perhaps 0.2? Score: 0.3?</think>\n0.7", 0.7),
    ("<think></think>Score: 0.7", 0.7),
]

NO_SCORES = [
    "",
    "   \n",
    "good",
    "The reasoning is sound.",
    "Step 1 is wrong",
    "1 error, otherwise fine",
    "I would give this 0.8",
    "0.8 because step 1 is right",
    "0.8\nStep 1 is right",
    "0.7 0.7",
    "0.7 or 0.8",
    "0.7-0.8",
    "0.7–0.8",
    "between 0 and 1",
    "0,7",
    "0.",
    "1.",
    "00.5",
    "01",
    "0.7.1",
    "-0.5",
    "+0.5",
    "-0.0",
    "1.1",
    "2",
    "10",
    "85",
    "1e-1",
    "70%",
    "0.7%",
    "Score: 70%",
    "Score: -0.5",
    "Score: 1.5",
    "Score: 8/10",
    "Score: 1/10",
    "1/2",
    "8/10",
    "1 / 10",
    "Score: 1 / 10",
    "1 out of 10",
    "Score: 1 out of 10",
    "Score: 0.8 or 0.9",
    "Score: 0.8-0.9",
    "Score: 0.8, maybe 0.9",
    "Score: 0.8\nScore: 0.9",
    "Score: 0.5 / 1.5",
    "Score: 0.8\nFinal score: 9/10",
    "Score: high",
    "Score: 0.",
    "<answer>0.</answer>",
    "scored 1 of 3",
    "underscore: 0.7",
    "<answer></answer>",
    "<answer>B</answer>",
    "<answer>0.9",
    "0.9</answer>",
    "<answer>0.9</answer> <answer>0.8</answer>",
    "<answer>0.9</answer> Score: 0.8",
    "<answer>0.9</score>",
    "<answer>1.9</answer>",
    "<answer>0.9</answer><answer>",
    "<think>0.7",
    "<think>Score: 0.7",
    r"\boxed{}",
    r"\boxed{3}",
    r"\boxed{0.3} or \boxed{0.4}",
    r"\boxed{0.3",
    "{}",
    '{"score": null}',
    '{"score": true}',
    '{"score": NaN}',
    '{"score": 1.5}',
    '{"score": -0.5}',
    '{"score": [0.5]}',
    '{"score": "high"}',
    '{"score": 0.1, "score": 0.9}',
    '{"Score": 0.1, "score": 0.9}',
    '{"grade": 0.7}',
    '{"nested": {"score": 0.7}}',
    '{"score": 0.',
    '{"score": 0.7',
    "[0.7, 0.8]",
    "٠.٧",
    "０.７",
    "NaN",
    "inf",
    "0x1",
    "1_0",
]


@pytest.mark.parametrize(("text", "expected"), PUBLISHED_PARSER_WRONG + SCORES)
def test_reads_the_marked_score(text, expected):
    assert parse_score(text) == expected


@pytest.mark.parametrize("text", NO_SCORES)
def test_never_guesses(text):
    assert parse_score(text) is None


@settings(deadline=None)
@given(st.text(alphabet="0123456789./%-+ ,:<>{}[]()\"'\\abcdeorsnxwt\n", max_size=40) | st.text(max_size=60))
@example('{"score": 1e999}')
@example("[" * 5000)
def test_any_text_gives_a_score_in_range_or_none(text):
    value = parse_score(text)
    assert value is None or (math.isfinite(value) and 0.0 <= value <= 1.0)


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_every_form_agrees(thousandths):
    number = f"{thousandths / 1000:.3f}"
    forms = ["{}", "Score: {}", "<answer>{}</answer>", "\\boxed{{{}}}", '{{"score": {}}}', "**{}**", "{}/1"]
    assert {parse_score(form.format(number)) for form in forms} == {thousandths / 1000}


@pytest.mark.parametrize("text", [text for text, value in PUBLISHED_PARSER_WRONG + SCORES if value is not None])
def test_the_position_is_that_of_the_number(text):
    found = find_score(text)
    assert found is not None
    assert float(text[found.start : found.end]) == found.value


@pytest.mark.parametrize(
    "text",
    [
        '{"score": 1' + "0" * 400 + "}",
        "Score: 1 out of five",
        "Score: 1 of ten",
        "Score: 1％",
        "Score: 1 percent",
        "Score: 1k",
        "The score is 1st",
    ],
)
def test_a_number_of_another_kind_is_no_score(text):
    assert parse_score(text) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda n: "<answer>" * n,
        lambda n: "<answer>0.5</answer>" * n,
        lambda n: "0.5" + " " * n + "x",
        lambda n: "```" + " " * n + "x",
        lambda n: "score: 0.5 " * n,
        lambda n: "score: 0.5. " * n,
        lambda n: "score" + "*" * n,
    ],
)
def test_a_long_reply_takes_linear_time(make):
    def seconds(n):
        started = time.process_time()
        parse_score(make(n))
        return time.process_time() - started

    # 32 times as long: linear is 32 times as slow, quadratic 1024 times.
    assert seconds(64_000) < 200 * max(seconds(2_000), 0.01)
