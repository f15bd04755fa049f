"""The response format."""

import pytest

from reward_score import extract_thinking
from reward_score.format import parse_response


@pytest.mark.parametrize(
    ("response", "thinking", "answer"),
    [
        ("<think>a</think><answer>b</answer>", "a", "b"),
        ("\n <think>\na\n</think>\n\n<answer> b </answer>\n", "a", "b"),
        ("<think>1 < 2 > 0, <b>x</b></think><answer>b\nc</answer>", "1 < 2 > 0, <b>x</b>", "b\nc"),
        ("<think></think><answer></answer>", "", ""),
    ],
)
def test_well_formed(response: str, thinking: str, answer: str) -> None:
    assert parse_response(response) == (thinking, answer)
    assert extract_thinking(response) == thinking


@pytest.mark.parametrize(
    "response",
    [
        "",
        "b",
        "<answer>b</answer>",
        "<think>a</think>",
        "<think>a</think><answer>b",
        "<think>a<answer>b</answer>",
        "<answer>b</answer><think>a</think>",
        "<think>a</think><answer>b</answer> trailing",
        "leading <think>a</think><answer>b</answer>",
        "<think>a</think> between <answer>b</answer>",
        "<think>a</think><answer>b</answer><answer>c</answer>",
        "<think>a</think><think>a</think><answer>b</answer>",
        "<think>a <answer>c</answer></think><answer>b</answer>",
        "<think>a</think><answer><think>b</answer>",
        "<think>a<answer>b</think></answer>",
        "<THINK>a</THINK><ANSWER>b</ANSWER>",
    ],
)
def test_malformed(response: str) -> None:
    assert parse_response(response) is None
    assert extract_thinking(response) is None
