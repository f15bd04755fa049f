"""The client against stand-in servers on the test's own event loop."""

import asyncio
import base64
import io
import json
import logging
import time
from contextlib import AsyncExitStack

import pytest
from aiohttp import web
from PIL import Image

from recipe.sophiavl.trm import questions
from recipe.sophiavl.trm.client import ThinkingRewardClient
from recipe.sophiavl.trm.client_settings import ClientSettings
from recipe.sophiavl.trm.scale import VALUES
from tests.support.stand_in import completion, make_app, serve
from tests.support.vllm_server import free_port

pytestmark = pytest.mark.asyncio


class Server:
    """A stand-in that records requests and answers as told; `answer` gets the request's data and its number."""

    def __init__(self, answer=lambda data, number: "0.7"):
        self.answer = answer
        self.requests = []
        self.headers = []
        self.busy = self.most_busy = 0
        self.delay_s = 0.0

    async def chat(self, request):
        data = json.loads(await request.read())
        self.requests.append(data)
        self.headers.append(request.headers)
        self.busy += 1
        self.most_busy = max(self.busy, self.most_busy)
        try:
            await asyncio.sleep(self.delay_s)
        finally:
            self.busy -= 1
        result = self.answer(data, len(self.requests))
        return web.json_response(completion(result)) if isinstance(result, str) else result

    def serve(self):
        return serve(make_app(self.chat))


def make_client(*urls, **changes):
    settings = {"model": "trm", "backoff_base_s": 0.001, "backoff_max_s": 0.002, "timeout_s": 20.0, "deadline_s": 30.0}
    return ThinkingRewardClient(ClientSettings(urls=urls, **{**settings, **changes}))


def status(code, **headers):
    return web.Response(status=code, headers=headers)


def image(colour="red"):
    return Image.new("RGB", (8, 8), colour)


async def test_a_score_and_what_is_sent_for_it():
    server = Server()
    async with server.serve() as url, make_client(url, max_tokens=9) as client:
        score = await client.score("<image>Why?", [image(), image("blue")], "Because.")
    assert (score.value, score.error, score.attempts, score.cached, score.endpoint) == (0.7, None, 1, False, url)
    assert 0 < score.latency_s < 30
    (sent,) = server.requests
    assert {key: sent[key] for key in ("model", "temperature", "max_tokens")} == {
        "model": "trm",
        "temperature": 0.0,
        "max_tokens": 9,
    }
    assert sent["structured_outputs"] == {"choice": list(VALUES)}
    assert "logprobs" not in sent
    assert [part["type"] for part in sent["messages"][1]["content"]].count("image_url") == 2
    assert "Authorization" not in server.headers[0]


async def test_the_key_is_sent_and_never_shown(monkeypatch, caplog):
    monkeypatch.setenv("TRM_KEY", "s3cret")
    caplog.set_level(logging.DEBUG)
    server = Server(lambda data, number: web.Response(status=401, text="bad key s3cret"))
    async with server.serve() as url, make_client(url, api_key_env="TRM_KEY") as client:
        score = await client.score("q", [], "t")
        shown = f"{client!r} {client.config!r} {client.metrics()} {score}"
    assert server.headers[0]["Authorization"] == "Bearer s3cret"
    assert (score.error, score.attempts) == ("http_401", 1)
    assert "bad key ***" in caplog.text
    assert "s3cret" not in caplog.text + shown


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
async def test_passing_trouble_is_tried_again(code):
    server = Server(lambda data, number: status(code) if number < 3 else "0.4")
    async with server.serve() as url, make_client(url) as client:
        score = await client.score("q", [], "t")
        assert (score.value, score.attempts) == (0.4, 3)
        assert client.metrics()["attempt_failures"] == {f"http_{code}": 2}
        assert client.metrics()["retries"] == 2


@pytest.mark.parametrize("code", [302, 400, 401, 403, 404, 413, 422])
async def test_a_refusal_is_not(code):
    server = Server(lambda data, number: status(code, Location="/v1/models"))
    async with server.serve() as url, make_client(url) as client:
        score = await client.score("q", [], "t")
    assert (score.value, score.error, score.attempts) == (None, f"http_{code}", 1)


async def test_retries_end():
    server = Server(lambda data, number: status(503))
    async with server.serve() as url, make_client(url, max_retries=2) as client:
        score = await client.score("q", [], "t")
    assert (score.error, score.attempts) == ("http_503", 3)


async def test_nobody_listens():
    async with make_client(f"http://127.0.0.1:{free_port()}/v1") as client:
        score = await client.score("q", [], "t")
    assert (score.value, score.error, score.attempts) == (None, "connect", 4)


async def test_an_unparsable_reply_is_asked_for_again_only_where_sampling_may_change_it():
    server = Server(lambda data, number: "well" if number % 2 else "0.3")
    async with server.serve() as url:
        async with make_client(url) as client:
            assert (await client.score("q", [], "t")).error == "unparsable"
        server.requests.clear()
        async with make_client(url, temperature=0.5) as client:
            score = await client.score("q", [], "t")
    assert (score.value, score.attempts) == (0.3, 2)


async def test_identical_scores_are_asked_for_once():
    server = Server()
    server.delay_s = 0.02
    async with server.serve() as url, make_client(url) as client:
        joined = await asyncio.gather(*(client.score("q", [image()], "t") for _ in range(5)))
        later = await client.score("q", [image()], "t")
        for question, picture, thinking in (("q2", "red", "t"), ("q", "blue", "t"), ("q", "red", "t2")):
            assert not (await client.score(question, [image(picture)], thinking)).cached
        counts = client.metrics()
    assert {score.value for score in joined} == {0.7}
    assert sorted(score.attempts for score in joined) == [0, 0, 0, 0, 1]
    assert (later.cached, later.attempts) == (True, 0)
    assert len(server.requests) == 4
    assert (counts["requests"], counts["scores"], counts["joined"], counts["cache_hits"]) == (9, 9, 4, 1)


async def test_the_cache_can_be_off_and_is_bounded():
    server = Server()
    async with server.serve() as url:
        async with make_client(url, cache_size=0) as client:
            await asyncio.gather(*(client.score("q", [], "t") for _ in range(3)))
        assert len(server.requests) == 3
        async with make_client(url, cache_size=2) as client:
            for thinking in ("a", "b", "c", "a"):
                assert not (await client.score("q", [], thinking)).cached
            assert (await client.score("q", [], "c")).cached


async def test_failures_are_not_remembered():
    server = Server(lambda data, number: "well" if number == 1 else "0.3")
    async with server.serve() as url, make_client(url) as client:
        assert (await client.score("q", [], "t")).error == "unparsable"
        assert (await client.score("q", [], "t")).value == 0.3


async def test_concurrency_is_bounded():
    server = Server()
    server.delay_s = 0.02
    async with server.serve() as url, make_client(url, max_concurrency=3) as client:
        tasks = [asyncio.create_task(client.score("q", [], f"t{number}")) for number in range(12)]
        await asyncio.sleep(0.01)
        assert client.metrics()["in_flight"] == 12
        await asyncio.gather(*tasks)
    assert server.most_busy == 3


async def test_the_deadline_counts_queueing():
    server = Server()
    server.delay_s = 1.0
    async with server.serve() as url, make_client(url, max_concurrency=1, timeout_s=2.4, deadline_s=2.5) as client:
        started = time.monotonic()
        scores = await asyncio.gather(*(client.score("q", [], f"t{number}") for number in range(8)))
        assert time.monotonic() - started < 8 * server.delay_s
        failures = client.metrics()["failures"]
    # One at a time, at most two of them fit in.
    assert scores[0].value is not None
    assert list(failures) == ["deadline"]
    assert failures["deadline"] >= 6
    assert [score.attempts for score in scores[-4:]] == [0, 0, 0, 0]


async def test_auto_falls_back_once_per_endpoint_and_remembers(caplog):
    def answer(data, number):
        if "structured_outputs" in data:
            return web.json_response(
                {"error": {"message": "Unrecognized request argument: structured_outputs"}}, status=400
            )
        return '{"score": 0.4}' if "response_format" in data else "0.1"

    server = Server(answer)
    async with server.serve() as url, make_client(url) as client:
        first, second = await client.score("q", [], "a"), await client.score("q", [], "b")
    assert (first.value, first.attempts, second.value, second.attempts) == (0.4, 2, 0.4, 1)
    schema = server.requests[1]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["score"]["enum"] == [float(value) for value in VALUES]
    assert caplog.text.count("does not support choice") == 1


@pytest.mark.parametrize(("wish", "value", "error"), [("auto", 0.1, None), ("on", None, "http_400")])
async def test_only_auto_falls_back_to_free_replies(wish, value, error):
    def answer(data, number):
        restricted = "structured_outputs" in data or "response_format" in data
        return web.Response(status=400, text="structured_outputs or response_format unknown") if restricted else "0.1"

    server = Server(answer)
    async with server.serve() as url, make_client(url, structured_output=wish) as client:
        score = await client.score("q", [], "t")
    assert (score.value, score.error) == (value, error)


async def test_off_restricts_nothing_and_another_400_is_no_reason_to_fall_back():
    server = Server(lambda data, number: web.Response(status=400, text="maximum context length"))
    async with server.serve() as url:
        async with make_client(url, structured_output="off") as client:
            await client.score("q", [], "t")
        assert "structured_outputs" not in server.requests[0]
        async with make_client(url) as client:
            assert (await client.score("q", [], "t")).attempts == 1


async def test_a_group_stays_with_one_endpoint_and_groups_spread():
    servers = [Server(), Server(), Server()]
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(server.serve()) for server in servers]
        client = await stack.enter_async_context(make_client(*urls))
        used = []
        for question in range(30):
            scores = [await client.score(f"q{question}", [], f"t{response}") for response in range(3)]
            assert len({score.endpoint for score in scores}) == 1
            used.append(scores[0].endpoint)
    assert set(used) == set(urls)


async def test_a_dead_endpoint_is_left_for_the_other_one():
    server = Server()
    async with server.serve() as url:
        dead = f"http://127.0.0.1:{free_port()}/v1"
        async with make_client(dead, url, breaker_failures=3, breaker_reset_s=60) as client:
            scores = [await client.score(f"q{number}", [], "t") for number in range(20)]
            counts = client.metrics()
    assert [score.value for score in scores] == [0.7] * 20
    assert counts["breakers"] == {dead: "open", url: "closed"}
    assert counts["attempt_failures"] == {"connect": 3}


async def test_retry_after_does_not_hold_back_from_another_endpoint():
    servers = [Server(lambda data, number: status(429, **{"Retry-After": "60"})), Server()]
    async with servers[0].serve() as first, servers[1].serve() as second, make_client(first, second) as client:
        scores = [await client.score(f"q{number}", [], "t") for number in range(10)]
    assert [score.value for score in scores] == [0.7] * 10
    assert servers[0].requests


async def test_when_a_server_is_back_one_probe_finds_out_and_nobody_is_lost():
    server = Server(lambda data, number: status(503))
    reset_s = 2.0
    async with (
        server.serve() as url,
        make_client(url, breaker_failures=2, breaker_reset_s=reset_s, max_retries=1) as client,
    ):
        assert (await client.score("q", [], "down")).error == "http_503"
        assert (await client.score("q", [], "still")).error == "breaker_open"
        await asyncio.sleep(reset_s)
        server.answer, server.delay_s = (lambda data, number: "0.7"), 0.2
        before = len(server.requests)
        tasks = [asyncio.create_task(client.score("q", [], f"t{number}")) for number in range(5)]
        while len(server.requests) == before:
            await asyncio.sleep(0.01)
        assert server.busy == 1
        scores = await asyncio.gather(*tasks)
    assert [score.value for score in scores] == [0.7] * 5


async def test_an_image_that_cannot_be_read_is_a_missing_score():
    server = Server()
    async with server.serve() as url, make_client(url) as client:
        for bad in (b"", b"no image at all", {"path": "/nowhere.png"}):
            score = await client.score("q", [bad], "t")
            assert (score.value, score.error, score.attempts) == (None, "bad_image", 0)
        assert client.metrics()["failures"] == {"bad_image": 3}
    assert not server.requests


async def test_programming_errors_raise_and_leave_the_counts_whole():
    async with make_client("http://127.0.0.1:9/v1") as client:
        with pytest.raises(TypeError):
            await client.score("q", [3], "t")
        with pytest.raises(TypeError):
            await client.score("q", [], None)
        counts = client.metrics()
    assert (counts["requests"], counts["missing"], counts["in_flight"]) == (1, 1, 0)


async def test_a_cancelled_score_gives_its_place_back():
    server = Server()
    server.delay_s = 30
    async with server.serve() as url, make_client(url, max_concurrency=1, cache_size=0) as client:
        task = asyncio.create_task(client.score("q", [], "t"))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        server.delay_s = 0
        assert (await client.score("q", [], "t2")).value == 0.7
        assert client.metrics()["failures"] == {"aborted": 1}


async def test_dataset_bytes_reach_the_server_untouched():
    buffer = io.BytesIO()
    image().save(buffer, format="JPEG")
    server = Server()
    async with server.serve() as url, make_client(url) as client:
        await client.score("q", [{"bytes": buffer.getvalue(), "path": None}], "t")
    sent = next(part for part in server.requests[0]["messages"][1]["content"] if part["type"] == "image_url")
    encoded = sent["image_url"]["url"]
    assert base64.b64decode(encoded.split(",")[1]) == buffer.getvalue()


async def test_an_image_is_encoded_once_per_question(monkeypatch):
    encodings = []
    real = questions.data_url
    monkeypatch.setattr(questions, "data_url", lambda source: encodings.append(source) or real(source))
    server = Server()
    async with server.serve() as url, make_client(url) as client:
        await asyncio.gather(*(client.score("q", [image()], f"t{number}") for number in range(8)))
    assert len(encodings) == 1
    assert len({json.dumps(sent["messages"]).split("BEGIN REASONING")[0] for sent in server.requests}) == 1


async def test_expected_scores_ask_for_log_probabilities():
    logprobs = {"content": [{"token": "0.2", "logprob": -0.1, "top_logprobs": [{"token": "0.2", "logprob": -0.1}]}]}
    server = Server(lambda data, number: web.json_response(completion("0.2", logprobs=logprobs)))
    async with server.serve() as url, make_client(url, score_mode="expected") as client:
        score = await client.score("q", [], "t")
    assert score.value == pytest.approx(0.2)
    assert (server.requests[0]["logprobs"], server.requests[0]["top_logprobs"]) == (True, 20)


async def test_latency_percentiles_are_of_scores_that_were_asked_for():
    server = Server()
    server.delay_s = 0.05
    async with server.serve() as url, make_client(url) as client:
        assert client.metrics()["latency_p50_s"] is None
        for _ in range(20):
            await client.score("q", [], "t")
        counts = client.metrics()
    assert 0.05 <= counts["latency_p50_s"] <= counts["latency_p95_s"] < 2


def test_another_event_loop_is_refused_until_it_is_closed():
    async def once(client):
        return await client.score("q", [], "t")

    client = make_client(f"http://127.0.0.1:{free_port()}/v1", max_retries=0)
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(once(client)).error == "connect"
    with pytest.raises(RuntimeError, match="another event loop"):
        asyncio.run(once(client))
    loop.run_until_complete(client.close())
    loop.close()
    assert asyncio.run(once(client)).error == "connect"
