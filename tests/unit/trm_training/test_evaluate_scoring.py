"""Asking for many scores: order, bounds, and the early end."""

import asyncio
from contextlib import asynccontextmanager

import numpy as np
import pytest
from aiohttp import web

from recipe.sophiavl.trm.client import ThinkingRewardClient
from recipe.sophiavl.trm.client_settings import ClientSettings
from recipe.sophiavl.trm_training.asking import Request
from recipe.sophiavl.trm_training.evaluate.scoring import Scored, ServerError, score_all, settled, values_of
from testbed.stand_in import completion, make_app, serve
from testbed.vllm_server import free_port

pytestmark = pytest.mark.asyncio


@asynccontextmanager
async def client_of(answer, **changes):
    async def chat(request):
        result = await answer(await request.json())
        return web.json_response(completion(result)) if isinstance(result, str) else result

    settings = {"structured_output": "off", "max_retries": 0, "cache_size": 0, **changes}
    async with (
        serve(make_app(chat)) as url,
        ThinkingRewardClient(ClientSettings(urls=(url,), model="trm", **settings)) as client,
    ):
        yield client


async def test_scores_come_by_key_and_few_requests_are_held():
    busy = most_busy = made = answered = furthest = 0

    async def answer(data):
        nonlocal busy, most_busy, answered
        busy += 1
        most_busy = max(busy, most_busy)
        await asyncio.sleep(0.001)
        busy -= 1
        answered += 1
        text = data["messages"][-1]["content"][-1]["text"]
        return f"0.{text.split('tenth ')[1][0]}"

    def requests():
        nonlocal made, furthest
        for key in range(200):
            made += 1
            furthest = max(furthest, made - answered)
            yield Request(key, "Why?", [], f"tenth {key % 10}")

    async with client_of(answer, max_concurrency=4) as client:
        scores = await score_all(client, requests(), 200, "asking")
    assert values_of([scores[key] for key in range(200)]).tolist() == [key % 10 / 10 for key in range(200)]
    assert 1 < most_busy <= 4
    assert furthest <= 4 + 1


@pytest.mark.parametrize(("failing", "ends"), [(10, False), (11, True), (20, True)])
async def test_more_than_half_of_the_requests_must_fail(failing, ends):
    async def answer(data):
        text = data["messages"][-1]["content"][-1]["text"]
        lost = int(text.split("number ")[1].split(".")[0]) >= 20 - failing
        return web.Response(status=400) if lost else "0.5"

    requests = [Request(key, "Why?", [], f"number {key}.") for key in range(20)]
    async with client_of(answer) as client:
        if ends:
            with pytest.raises(ServerError, match=rf"failed: http_400 {failing}\."):
                await score_all(client, requests, 20, "asking")
        else:
            scores = await score_all(client, requests, 20, "asking")
            assert [scores[key].error for key in range(20)] == [None] * 10 + ["http_400"] * 10


async def test_fewer_requests_than_foreseen_are_judged_by_what_came():
    async def answer(_data):
        return web.Response(status=400)

    async with client_of(answer) as client:
        with pytest.raises(ServerError, match="3 of the first 3"):
            await score_all(client, [Request(key, "Why?", [], "So.") for key in range(3)], 50, "asking")
        assert await score_all(client, [], 0, "asking") == {}


async def test_bad_images_and_prose_are_no_fault_of_the_way():
    async def answer(_data):
        return "Fine work!"

    requests = [Request(key, "Why?", [{"bytes": b"no image", "path": None}] * (key % 2), "So.") for key in range(6)]
    async with client_of(answer) as client:
        scores = await score_all(client, requests, 6, "asking")
    assert [scores[key].error for key in range(6)] == ["unparsable", "bad_image"] * 3
    assert (scores[0].reply, scores[1].reply) == ("Fine work!", None)


async def test_a_reader_that_fails_ends_it_and_leaves_nothing_running():
    async def answer(_data):
        await asyncio.sleep(30)
        return "0.5"

    def requests():
        yield from (Request(key, "Why?", [], "So.") for key in range(16))
        raise OSError("disk gone")

    async with client_of(answer, max_concurrency=32) as client:
        with pytest.raises(OSError, match="disk gone"):
            await asyncio.wait_for(score_all(client, requests(), 32, "asking"), 10)
        assert not [task for task in asyncio.all_tasks() if "ask_all" in repr(task.get_coro())]


async def test_a_server_that_fails_before_the_first_score_ends_it_too():
    config = ClientSettings(urls=(f"http://127.0.0.1:{free_port()}/v1",), model="trm", structured_output="auto")
    with pytest.raises(ServerError, match=r"http://127.*preflight"):
        await settled(config)


async def test_missing_is_not_a_number():
    assert np.isnan(values_of([Scored(None, "timeout", None)])).all()
