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
from tests.support.fault_proxy import RETRY_AFTER_S, Fault, FaultProxy, Plan
from tests.support.stand_in import serve
from tests.support.vllm_server import VllmServer

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio]

RESPONSES = 30
SLACK_S = 4.0  # for a busy machine
SETTINGS: dict[str, Any] = {
    "model": "tiny",
    "timeout_s": 30.0,
    "deadline_s": 90.0,
    "max_retries": 3,
    "backoff_base_s": 0.05,
    "backoff_max_s": 0.2,
    "breaker_failures": 1000,
    "max_concurrency": 8,
}


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
    """Every score is one that the real server gave to this very response; the counts add up; none waited too long."""
    for number, score in enumerate(scores):
        assert (score.value is None) == (score.error is not None)
        if score.value is not None:
            assert f"{score.value:.1f}" in proxy.answers[number]
        assert score.latency_s <= client.config.deadline_s + SLACK_S
    counts = client.metrics()
    missing = sum(score.value is None for score in scores)
    assert counts["in_flight"] == 0
    assert counts["requests"] == len(scores) == counts["scores"] + counts["missing"]
    assert counts["missing"] == missing == sum(counts["failures"].values())
    # Fewer arrive than were begun only where the deadline strikes in between.
    assert counts["attempts"] >= proxy.passed + proxy.faults.total()


async def run(server: VllmServer, plan: Plan, **changes: Any) -> tuple[list[ThinkingScore], FaultProxy, dict[str, Any]]:
    proxy = FaultProxy(server.url, plan)
    async with serve(proxy.app()) as url, make_client(url, **changes) as client:
        scores = await score_all(client, range(RESPONSES))
        check_honest(scores, proxy, client)
        return scores, proxy, client.metrics()


@pytest.mark.parametrize("fault", ["503", "reset", "truncated_json", "broken_off", "wrong_type", "wrong_shape"])
async def test_three_in_ten_replies_spoiled_are_asked_for_again(vllm_server, fault):
    scores, proxy, counts = await run(vllm_server, thirty_percent(fault), max_retries=6)
    assert all(score.value is not None for score in scores)
    assert proxy.faults[fault] == counts["retries"] > 0
    assert sum(counts["attempt_failures"].values()) == proxy.faults[fault]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("503", "http_503"),
        ("reset", "connect"),
        ("truncated_json", "bad_reply"),
        ("broken_off", "bad_reply"),
        ("wrong_type", "bad_reply"),
        ("wrong_shape", "bad_reply"),
        ("prose", "unparsable"),
    ],
)
async def test_a_server_that_only_fails_gives_only_missing_scores(vllm_server, fault, error):
    scores, proxy, counts = await run(vllm_server, lambda _: fault)
    assert {score.error for score in scores} == {error}
    assert counts["failures"] == {error: RESPONSES}
    tries = 1 if fault == "prose" else 1 + SETTINGS["max_retries"]
    assert proxy.faults[fault] == RESPONSES * tries


async def test_prose_now_and_then_is_missing_and_not_asked_again(vllm_server):
    scores, proxy, counts = await run(vllm_server, thirty_percent("prose"))
    assert counts["failures"] == {"unparsable": proxy.faults["prose"]}
    assert counts["retries"] == 0
    assert sum(score.value is None for score in scores) == 3 * RESPONSES // 10


async def test_replies_that_hang_end_at_the_timeout_and_are_asked_for_again(vllm_server):
    scores, proxy, counts = await run(vllm_server, every(8, "hang"), timeout_s=4.0)
    assert all(score.value is not None for score in scores)
    assert counts["attempt_failures"]["timeout"] >= proxy.faults["hang"] >= RESPONSES // 8


async def test_a_server_that_only_hangs_costs_no_more_than_the_deadline(vllm_server):
    started = time.monotonic()
    scores, _, _ = await run(vllm_server, lambda _: "hang", timeout_s=1.0, deadline_s=2.5, max_concurrency=RESPONSES)
    # The attempts of 1 s each: the third is cut by the deadline, unless no time was left to begin it.
    assert {score.error for score in scores} <= {"deadline", "timeout"}
    assert time.monotonic() - started < 2.5 + SLACK_S


async def test_the_breaker_spares_a_server_that_hangs(vllm_server):
    changes = {"timeout_s": 3.0, "breaker_failures": 4, "breaker_reset_s": 60.0, "max_concurrency": 4}
    scores, proxy, counts = await run(vllm_server, lambda _: "hang", **changes)
    assert 4 <= proxy.faults["hang"] < 8  # those that were sent before the fourth one had failed
    assert {score.error for score in scores} == {"breaker_open"}
    assert counts["breakers"] == {next(iter(counts["breakers"])): "open"}


async def test_retry_after_is_honoured(vllm_server):
    _, proxy, counts = await run(vllm_server, every(4, "429"), max_retries=6)
    assert counts["scores"] == RESPONSES
    waits = [later - earlier for times in proxy.arrivals.values() for earlier, later in pairwise(times)]
    assert len(waits) == proxy.faults["429"] > 0
    assert min(waits) >= RETRY_AFTER_S


async def test_retry_after_beyond_the_deadline_ends_at_once(vllm_server):
    started = time.monotonic()
    _, proxy, counts = await run(vllm_server, lambda _: "429_for_an_hour")
    assert counts["failures"] == {"http_429": RESPONSES}
    assert proxy.faults["429_for_an_hour"] == RESPONSES
    assert time.monotonic() - started < SETTINGS["deadline_s"] / 2


async def test_a_prompt_that_does_not_fit_is_refused_once(vllm_server):
    long = " ".join(f"step {number} follows" for number in range(5_000))
    async with make_client(vllm_server.url, max_thinking_chars=60_000) as client:
        score = await client.score("How many?", [], long)
    assert (score.value, score.error, score.attempts) == (None, "http_400", 1)


async def test_a_server_killed_and_restarted_in_mid_run(vllm_server):
    proxy = FaultProxy(vllm_server.url, lambda _: None)
    breaker_reset_s = 0.5
    async with (
        serve(proxy.app()) as url,
        make_client(url, breaker_failures=3, breaker_reset_s=breaker_reset_s) as client,
    ):
        try:
            running = asyncio.create_task(score_all(client, range(RESPONSES)))
            while not proxy.usages:
                await asyncio.sleep(0.005)
            await asyncio.to_thread(vllm_server.kill)
            during = await running
            down = await score_all(client, range(RESPONSES, RESPONSES + 8))
        finally:
            await asyncio.to_thread(vllm_server.start)
        await asyncio.sleep(breaker_reset_s)
        after = await score_all(client, range(RESPONSES + 8, RESPONSES + 16))
        check_honest([*during, *down, *after], proxy, client)
    assert any(score.value is not None for score in during)
    assert any(score.value is None for score in during)
    assert {score.error for score in down} <= {"http_502", "breaker_open"}
    assert all(score.value is not None for score in after)
