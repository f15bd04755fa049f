"""A real vLLM server behind a proxy that spoils replies: no score is invented, counts add up, no wait is too long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from PIL import Image

from recipe.sophiavl.trm.client import ThinkingRewardClient, ThinkingScore
from recipe.sophiavl.trm.client_settings import ClientSettings
from testbed.stand_in import serve
from testbed.vllm_server import VllmServer
from tests.support.fault_proxy import RETRY_AFTER_S, Fault, FaultProxy, Plan

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio]

RESPONSES = 30
SLACK_S = 4.0  # for a busy machine
SETTINGS: dict[str, Any] = {
    "model": "tiny",
    "timeout_s": 30.0,
    "deadline_s": 90.0,
    "max_retries": 20,
    "backoff_base_s": 0.05,
    "backoff_max_s": 0.2,
    "max_concurrency": 8,
    "structured_output": "choice",
}
SHORT = {"timeout_s": 1.9, "deadline_s": 2.0}


def every(nth: int, fault: Fault) -> Plan:
    return lambda number: fault if number % nth == 0 else None


def thirty_percent(fault: Fault) -> Plan:
    return lambda number: fault if number % 10 in (1, 4, 8) else None


def make_client(url: str, **changes: Any) -> ThinkingRewardClient:
    return ThinkingRewardClient(ClientSettings(urls=(url,), **{**SETTINGS, **changes}))


async def score_all(client: ThinkingRewardClient, numbers: Sequence[int]) -> list[ThinkingScore]:
    image = Image.new("RGB", (56, 56), "white")
    return await asyncio.gather(
        *(
            client.score(f"How many corners, {number // 8}?", [image], f"Response {number}: I count {number % 5}.")
            for number in numbers
        )
    )


def check_honest(scores: Sequence[ThinkingScore], proxy: FaultProxy, client: ThinkingRewardClient) -> None:
    """Every score is one that the real server gave to this very response; attempts add up; none waited too long."""
    for number, score in enumerate(scores):
        assert (score.value is None) == (score.error is not None)
        if score.value is not None:
            assert f"{score.value:.1f}" in proxy.answers[number]
        assert score.latency_s <= client.config.deadline_s + SLACK_S
    # Fewer arrive than were begun only where the deadline strikes in between.
    assert sum(score.attempts for score in scores) >= proxy.passed + proxy.faults.total()


async def run(server: VllmServer, plan: Plan, **changes: Any) -> tuple[list[ThinkingScore], FaultProxy]:
    proxy = FaultProxy(server.url, plan)
    async with serve(proxy.app()) as url, make_client(url, **changes) as client:
        scores = await score_all(client, range(RESPONSES))
        check_honest(scores, proxy, client)
        return scores, proxy


@pytest.mark.parametrize("fault", ["503", "reset", "truncated_json", "broken_off", "wrong_type", "wrong_shape"])
async def test_three_in_ten_replies_spoiled_cost_no_score(vllm_server, fault):
    scores, proxy = await run(vllm_server, thirty_percent(fault))
    assert all(score.value is not None for score in scores)
    assert proxy.faults[fault] == sum(score.attempts - 1 for score in scores) > 0


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("503", "http_503"),
        ("reset", "disconnected"),
        ("truncated_json", "bad_reply"),
        ("broken_off", "bad_reply"),
        ("wrong_type", "bad_reply"),
        ("wrong_shape", "bad_reply"),
        ("prose", "unparsable"),
    ],
)
async def test_a_server_that_only_fails_gives_only_missing_scores(vllm_server, fault, error):
    scores, proxy = await run(vllm_server, lambda _: fault, **SHORT)
    assert {score.error for score in scores} == {error}
    if fault == "prose":
        assert proxy.faults[fault] == RESPONSES
    else:
        assert proxy.faults[fault] < 3 * RESPONSES, "one request at a time finds out whether it is back"


async def test_prose_now_and_then_is_missing_and_not_asked_again(vllm_server):
    scores, proxy = await run(vllm_server, thirty_percent("prose"))
    assert [score.error for score in scores].count("unparsable") == proxy.faults["prose"] == 3 * RESPONSES // 10
    assert {score.attempts for score in scores} == {1}


async def test_an_outage_in_mid_run_costs_no_score(vllm_server):
    over_at = time.monotonic() + 3.0
    scores, proxy = await run(vllm_server, lambda number: "503" if number > 3 and time.monotonic() < over_at else None)
    assert all(score.value is not None for score in scores)
    assert proxy.faults["503"] > 0


async def test_replies_that_hang_end_at_the_timeout_and_are_asked_for_again(vllm_server):
    scores, proxy = await run(vllm_server, every(8, "hang"), timeout_s=4.0)
    assert all(score.value is not None for score in scores)
    assert sum(score.attempts - 1 for score in scores) >= proxy.faults["hang"] >= RESPONSES // 8


async def test_a_server_that_only_hangs_costs_no_more_than_the_deadline(vllm_server):
    started = time.monotonic()
    scores, _ = await run(vllm_server, lambda _: "hang", timeout_s=1.0, deadline_s=2.5, max_concurrency=RESPONSES)
    # The attempts of 1 s each: the third is cut by the deadline, unless no time was left to begin it.
    assert {score.error for score in scores} <= {"deadline", "timeout"}
    assert time.monotonic() - started < 2.5 + SLACK_S


async def test_a_server_that_hangs_is_asked_by_one_request_at_a_time(vllm_server):
    changes = {"timeout_s": 1.0, "deadline_s": 6.0, "max_concurrency": 4}
    scores, proxy = await run(vllm_server, lambda _: "hang", **changes)
    assert 4 < proxy.faults["hang"] <= 4 + 5, "the first four, then one at a time"
    assert {score.error for score in scores} == {"timeout"}


async def test_retry_after_is_honoured(vllm_server):
    scores, proxy = await run(vllm_server, every(4, "429"))
    assert all(score.value is not None for score in scores)
    waits = [later - earlier for times in proxy.arrivals.values() for earlier, later in pairwise(times)]
    assert len(waits) == proxy.faults["429"] > 0
    assert min(waits) >= RETRY_AFTER_S


async def test_retry_after_beyond_the_deadline_ends_at_once(vllm_server):
    started = time.monotonic()
    scores, proxy = await run(vllm_server, lambda _: "429_for_an_hour")
    assert {score.error for score in scores} == {"http_429"}
    assert proxy.faults["429_for_an_hour"] <= SETTINGS["max_concurrency"], "nobody else asks a server that wants rest"
    assert time.monotonic() - started < SETTINGS["deadline_s"] / 2


async def test_a_prompt_that_does_not_fit_is_refused_once(vllm_server):
    long = " ".join(f"step {number} follows" for number in range(5_000))
    async with make_client(vllm_server.url, max_thinking_chars=60_000) as client:
        score = await client.score("How many?", [], long)
    assert (score.value, score.error, score.attempts) == (None, "http_400", 1)


async def test_a_server_killed_and_restarted_in_mid_run_costs_no_score(vllm_server):
    proxy = FaultProxy(vllm_server.url, lambda _: None)
    async with serve(proxy.app()) as url, make_client(url, deadline_s=180.0, max_retries=0) as client:
        try:
            running = asyncio.create_task(score_all(client, range(RESPONSES)))
            while not proxy.usages:
                await asyncio.sleep(0.005)
            await asyncio.to_thread(vllm_server.kill)
        finally:
            await asyncio.to_thread(vllm_server.start)
        scores = await running
        check_honest(scores, proxy, client)
    assert all(score.value is not None for score in scores)
    assert any(score.attempts > 1 for score in scores)
