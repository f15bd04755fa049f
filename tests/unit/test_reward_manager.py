"""What the reward manager asks the thinking reward model about, and what it does not."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest

from recipe.sophiavl.reward_manager import VALIDATION_FIELD, ThinkingRewardManager
from recipe.sophiavl.settings import ThinkingRewardSettings
from recipe.sophiavl.trm.client import ThinkingScore
from recipe.sophiavl.trust_estimator import TrustEstimator
from recipe.sophiavl.trust_grpo import TrustGRPOConfig
from reward_score import OutcomeSettings, score_outcome
from tests.support.trust import plain_gammas

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


@pytest.mark.parametrize("estimator", get_args(TrustEstimator))
def test_gamma_follows_from_the_parts_that_a_steps_dump_holds(estimator: TrustEstimator) -> None:
    """All of the step's rows, where the estimator looks at the batch; some unformatted, some without a score."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "outcome_reward": float(formatted and right),
            "format_ok": bool(formatted),
            "problem_type": "numerical",
            "thinking_reward": (None if lost else score / 10) if formatted else 0.0,
        }
        for formatted, right, lost, score in zip(
            rng.random(128) < 0.9, rng.random(128) < 0.4, rng.random(128) < 0.05, rng.integers(0, 11, 128), strict=True
        )
    ]
    groups = [f"question {place // 8}" for place in range(128)]
    settings = ThinkingRewardSettings.from_config({"urls": CLIENT["urls"], "model": "m", "trust_estimator": estimator})
    rewards = ThinkingRewardManager.weigh_groups(rows, groups, step=1, total_steps=9, settings=settings)
    dump = json.loads(json.dumps(rows))
    scores = [
        float("nan") if row["thinking_reward"] is None or not row["format_ok"] else row["thinking_reward"]
        for row in dump
    ]
    gammas = plain_gammas([row["outcome_reward"] >= 0.5 for row in dump], scores, groups, estimator)
    assert rewards.gamma == pytest.approx([gammas[name] for name in groups])
    assert rewards.gamma.min() < 1
