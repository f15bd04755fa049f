"""The client and servers that fail: what is tried again, what is given up, and that no score is lost on the way."""

import asyncio
import json
import time
from contextlib import AsyncExitStack

import pytest

from testbed.stand_in import make_app, serve
from testbed.vllm_server import free_port
from tests.support.recording_trm import Outage, Server, make_client, status

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
async def test_passing_trouble_is_tried_again(code):
    server = Server(lambda data, number: status(code) if number < 3 else "0.4")
    async with server.serve() as url, make_client(url) as client:
        score = await client.score("q", [], "t")
    assert (score.value, score.error, score.attempts) == (0.4, None, 3)


@pytest.mark.parametrize("code", [302, 400, 401, 403, 404, 413, 422])
async def test_a_refusal_is_not(code):
    server = Server(lambda data, number: status(code, Location="/v1/models"))
    async with server.serve() as url, make_client(url) as client:
        score = await client.score("q", [], "t")
    assert (score.value, score.error, score.attempts) == (None, f"http_{code}", 1)


async def score_many(client, count):
    return await asyncio.gather(*(client.score(f"q{number // 8}", [], f"t{number}") for number in range(count)))


@pytest.mark.parametrize("code", [500, 502, 503, 429])
async def test_an_outage_shorter_than_the_deadline_loses_no_score(code):
    server = Server(Outage(1.5, lambda: status(code)))
    async with server.serve() as url, make_client(url, backoff_base_s=0.25, backoff_max_s=2) as client:
        scores = await score_many(client, 200)
    assert [score.value for score in scores] == [0.7] * 200
    assert len(server.requests) < 200 + 128 + 20, "while it is out, one request at a time finds out"


async def test_a_server_that_is_started_again_loses_no_score():
    server, port = Server(), free_port()
    async with make_client(f"http://127.0.0.1:{port}/v1", max_retries=0) as client:
        waiting = asyncio.create_task(score_many(client, 50))
        await asyncio.sleep(1.0)
        async with serve(make_app(server.chat), port):
            scores = await waiting
    assert {(score.value, score.error) for score in scores} == {(0.7, None)}


async def test_an_outage_longer_than_the_deadline_costs_the_scores_and_says_why():
    server = Server(lambda data, number: status(503))
    async with server.serve() as url, make_client(url, timeout_s=2.9, deadline_s=3.0) as client:
        scores = await asyncio.wait_for(score_many(client, 200), 60)
    assert {(score.value, score.error) for score in scores} == {(None, "http_503")}
    assert sum(score.attempts for score in scores) == len(server.requests), "what was not sent is not counted"


async def test_a_loop_held_up_over_the_timeout_and_the_deadline_ends_the_score():
    server = Server()
    server.delay_s = 3.0
    async with server.serve() as url, make_client(url, timeout_s=0.4, deadline_s=0.5) as client:
        task = asyncio.create_task(client.score("q", [], "t"))
        await asyncio.sleep(0.3)
        time.sleep(0.4)  # both run out meanwhile, and end in one turn of the loop
        score = await asyncio.wait_for(task, 30)
    assert (score.value, score.attempts) == (None, 1), "it was asked again after its deadline"


async def test_overload_slows_down_and_loses_no_score():
    capacity = asyncio.Semaphore(4)

    class Slow(Server):
        async def chat(self, request):
            async with capacity:
                return await super().chat(request)

    server = Slow()
    server.delay_s = 0.1
    async with server.serve() as url, make_client(url, timeout_s=0.8, max_concurrency=64) as client:
        scores = await score_many(client, 100)
    assert [score.value for score in scores] == [0.7] * 100
    assert sum(score.attempts for score in scores) < 300


async def test_a_request_that_keeps_failing_on_a_server_which_answers_others_is_given_up():
    def answer(data, number):
        return status(500) if "poison" in json.dumps(data) else "0.7"

    server = Server(answer)
    server.delay_s = 0.01
    async with server.serve() as url, make_client(url, max_retries=2, max_concurrency=4) as client:
        poisoned = asyncio.create_task(client.score("q", [], "poison"))
        others = await score_many(client, 60)
        poisoned = await poisoned
    assert [score.value for score in others] == [0.7] * 60
    assert (poisoned.value, poisoned.error) == (None, "http_500")
    assert 3 <= poisoned.attempts <= 5


async def test_a_server_that_breaks_the_connection_now_and_then_loses_nothing():
    class Breaking(Server):
        async def chat(self, request):
            if len(self.requests) % 3 == 0:
                self.requests.append(None)
                request.transport.abort()
            return await super().chat(request)

    server = Breaking()
    async with server.serve() as url, make_client(url, max_retries=12) as client:
        scores = await score_many(client, 60)
    assert [score.value for score in scores] == [0.7] * 60


async def test_nobody_listens():
    url = f"http://127.0.0.1:{free_port()}/v1"
    async with make_client(url, timeout_s=0.2, deadline_s=0.3) as client:
        score = await client.score("q", [], "t")
    assert (score.value, score.error, score.endpoint) == (None, "connect", url)
    assert score.attempts > 1


async def test_a_rest_beyond_the_deadline_ends_the_score_at_once():
    server = Server(lambda data, number: status(429, **{"Retry-After": "3600"}))
    async with server.serve() as url, make_client(url) as client:
        started = time.monotonic()
        scores = await score_many(client, 20)
        assert time.monotonic() - started < 10
    assert {score.error for score in scores} == {"http_429"}


async def test_a_dead_endpoint_is_left_for_the_other_one():
    server, dead = Server(), f"http://127.0.0.1:{free_port()}/v1"
    async with server.serve() as url, make_client(dead, url, backoff_base_s=60.0, backoff_max_s=60.0) as client:
        scores = [await client.score(f"q{number}", [], "t") for number in range(20)]
    assert [score.value for score in scores] == [0.7] * 20
    assert sum(score.attempts for score in scores) == 21, "it was asked once"


async def test_a_server_that_dies_with_requests_waiting_for_it_hands_them_on():
    servers = [Server(), Server()]
    servers[0].delay_s = servers[1].delay_s = 0.02
    async with servers[0].serve() as first, servers[1].serve() as second:
        changes = {"max_concurrency": 2, "backoff_base_s": 20.0, "backoff_max_s": 20.0, "cache_size": 0}
        async with make_client(first, second, **changes) as client:
            tasks = [asyncio.create_task(client.score(f"q{number}", [], "t")) for number in range(40)]
            await asyncio.sleep(0.05)
            servers[0].answer = lambda data, number: status(503)
            scores = await asyncio.gather(*tasks)
    assert [score.value for score in scores] == [0.7] * 40


async def test_a_slow_server_among_fast_ones_loses_no_score():
    """Its share, one at a time, would take four times the deadline; the others take what waits for it."""
    servers = [Server(), Server(), Server()]
    servers[0].delay_s = 0.8
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(server.serve()) for server in servers]
        client = await stack.enter_async_context(make_client(*urls, max_concurrency=4, timeout_s=3.0, deadline_s=6.0))
        scores = await asyncio.gather(*(client.score(f"q{number}", [], "t") for number in range(360)))
    assert {score.error for score in scores} == {None}
    assert len(servers[0].requests) < 60


async def test_retry_after_does_not_hold_back_from_another_endpoint():
    servers = [Server(lambda data, number: status(429, **{"Retry-After": "60"})), Server()]
    async with servers[0].serve() as first, servers[1].serve() as second, make_client(first, second) as client:
        scores = [await client.score(f"q{number}", [], "t") for number in range(10)]
    assert [score.value for score in scores] == [0.7] * 10
    assert servers[0].requests
