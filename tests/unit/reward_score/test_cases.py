"""What counts as right: the hand-written cases, and the page that shows them."""

from __future__ import annotations

import pytest
from render_cases import FILES, PAGE, read_cases, render, rewards

from reward_score import OutcomeSettings, score_outcome

ENTRIES = [(problem_type, entry) for problem_type in FILES for entry in read_cases(problem_type)]


@pytest.mark.parametrize(("problem_type", "entry"), ENTRIES, ids=[f"{kind}: {entry['why']}" for kind, entry in ENTRIES])
def test_rewards(problem_type: str, entry: dict) -> None:
    settings = OutcomeSettings(**entry.get("settings", {}))
    expected = rewards(entry)
    scored = {
        answer: score_outcome(
            problem_type,
            f"<think>so</think><answer>{answer}</answer>",
            entry["truth"],
            entry.get("options"),
            settings=settings,
        ).reward
        for answer in expected
    }
    wrong = {
        answer: (scored[answer], reward) for answer, reward in expected.items() if abs(scored[answer] - reward) > 6e-4
    }
    assert not wrong, "answer: (scored, expected)"


@pytest.mark.parametrize("problem_type", FILES)
def test_there_are_over_a_hundred_cases_of_each_type(problem_type: str) -> None:
    entries = read_cases(problem_type)
    assert sum(len(rewards(entry)) for entry in entries) >= 100
    assert all(set(entry.get("right", ())).isdisjoint(entry.get("wrong", ())) for entry in entries)
    assert all(isinstance(text, str) for entry in entries for text in (entry["truth"], *rewards(entry)))


def test_the_page_shows_these_cases() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "python tests/unit/reward_score/render_cases.py"
