"""What a request says, and what of it tells two evaluations apart."""

from __future__ import annotations

import json
from typing import Any

import pytest

from recipe.sophiavl.evaluate.asking import AskSettings, answer_seed, read_prompt
from recipe.sophiavl.validation import SettingsError


def request(seed: int = 5, **settings: Any) -> dict[str, Any]:
    return json.loads(AskSettings(**settings).request_head("policy", seed) + b"[]}")


def test_a_greedy_request_has_no_seed_and_no_field_that_other_servers_refuse():
    assert request() == {"model": "policy", "temperature": 0.0, "top_p": 1.0, "max_tokens": 1024, "messages": []}


def test_a_sampled_request_has_its_seed_pixel_limits_and_further_fields():
    asked = request(temperature=1.0, max_pixels=9408, extra_body={"top_k": 3})
    assert (asked["seed"], asked["mm_processor_kwargs"], asked["top_k"]) == (5, {"max_pixels": 9408}, 3)


def test_each_answer_has_a_seed_of_its_own():
    seeds = {answer_seed(0, question, sample) for question in "abcdefgh" for sample in range(8)}
    assert len(seeds) == 64
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert answer_seed(1, "a", 0) not in seeds


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"min_pixels": 9, "max_pixels": 8}, "--min-pixels=9: is above --max-pixels=8"),
        ({"extra_body": {"temperature": 1}}, "--extra-body: 'temperature' has a flag"),
        ({"extra_body": {"messages": []}}, "--extra-body: 'messages'"),
        ({"temperature": float("nan")}, "--temperature=nan"),
        ({"top_p": 0.0}, "--top-p=0.0"),
        ({"concurrency": 0}, "--concurrency=0"),
    ],
)
def test_a_wrong_setting_is_named_by_its_flag(settings, says):
    with pytest.raises(SettingsError, match=says):
        AskSettings(**settings)


def test_what_changes_no_answer_tells_no_evaluations_apart():
    same = AskSettings(concurrency=1, timeout_s=1.0, wait_s=1.0, seed=3).defining()
    assert same == AskSettings().defining(), "of greedy answers not even the seed does"
    for change in ({"temperature": 0.5}, {"max_tokens": 5}, {"system_prompt": ""}, {"max_pixels": 1}):
        assert AskSettings(**change).defining() != same
    assert AskSettings(temperature=1.0, seed=1).defining() != AskSettings(temperature=1.0).defining()


def test_a_system_prompt_may_stand_in_a_file(tmp_path):
    (tmp_path / "prompt.txt").write_text("Think.\nAnswer.\n")
    assert read_prompt(f"@{tmp_path}/prompt.txt") == "Think.\nAnswer."
    assert read_prompt("Think.") == "Think."
