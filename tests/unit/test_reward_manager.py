"""What the reward manager asks the thinking reward model about, and what it does not."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from recipe.sophiavl.reward_manager import VALIDATION_FIELD, ThinkingRewardManager
from recipe.sophiavl.settings import ThinkingRewardSettings
from recipe.sophiavl.trm.client import ThinkingScore
from recipe.sophiavl.trust_grpo import TrustGRPOConfig
from reward_score import OutcomeSettings, score_outcome

CLIENT = {"urls": ["http://h/v1"], "model": "m"}


class Client:
    """Gives every text the same score, and remembers what it was asked about."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def score(self, question: str, images: Any, thinking: str) -> ThinkingScore:
        self.asked.append(thinking)
        return ThinkingScore(0.7, None, 0.1, attempts=2)


def fields(response: str, *, validation: bool = False, **settings: Any) -> tuple[dict[str, Any], list[str]]:
    manager = object.__new__(ThinkingRewardManager)
    manager.settings = ThinkingRewardSettings(client=CLIENT, **settings)
    manager._client = client = Client()
    row = {VALIDATION_FIELD: validation, "raw_prompt": [], "extra_info": {"question": "How many?", "options": None}}
    item = SimpleNamespace(non_tensor_batch=row)
    outcome = score_outcome("numerical", response, "5", settings=manager.settings.outcome)
    return asyncio.run(manager._thinking_fields(item, response, outcome)), client.asked


RIGHT = "<think>two and three</think><answer>5</answer>"
WRONG = "<think>two and two</think><answer>4</answer>"
EMPTY = "<think> </think><answer>5</answer>"
UNFORMATTED = "5"


@pytest.mark.parametrize("response", [RIGHT, WRONG])
def test_right_and_wrong_responses_are_asked_about_alike(response: str) -> None:
    found, asked = fields(response)
    assert asked == [response.split("</think>")[0].removeprefix("<think>")]
    assert (found["thinking_reward"], found["thinking_asked"], found["thinking_requests"]) == (0.7, True, 2)


@pytest.mark.parametrize(
    ("response", "settings"),
    [
        (UNFORMATTED, {}),
        (EMPTY, {"outcome": OutcomeSettings(require_thinking=True)}),
        (WRONG, {"trust": TrustGRPOConfig(min_outcome=0.2)}),
    ],
)
def test_what_has_no_format_or_too_low_an_outcome_is_0_by_rule(response: str, settings: dict[str, Any]) -> None:
    found, asked = fields(response, **settings)
    assert asked == []
    assert (found["thinking_reward"], found["thinking_asked"]) == (0.0, False)


def test_validation_is_asked_about_only_where_told_and_every_path_has_the_same_keys() -> None:
    unasked, asked = fields(RIGHT, validation=True)
    assert (asked, unasked["thinking_reward"]) == ([], None)
    scored, asked = fields(RIGHT, validation=True, score_validation=True)
    assert len(asked) == 1
    assert unasked.keys() == scored.keys() == fields(UNFORMATTED)[0].keys()
