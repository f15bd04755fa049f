"""The client against stand-in servers on the test's own event loop."""

import asyncio
import base64
import io
import json
import logging
import threading
import time
from contextlib import AsyncExitStack

import pytest
from aiohttp import web
from PIL import Image

from recipe.sophiavl.trm import questions
from recipe.sophiavl.trm.client import ThinkingRewardClient, read_api_key
from recipe.sophiavl.trm.client_settings import ClientSettings
from recipe.sophiavl.trm.scale import VALUES
from recipe.sophiavl.trm.transport import MAX_REPLY_BYTES, AttemptError
from testbed.stand_in import completion, make_app, serve
from testbed.vllm_server import free_port

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
    settings = {"model": "trm", "backoff_base_s": 0.01, "backoff_max_s": 0.05, "timeout_s": 20.0, "deadline_s": 30.0}
    return ThinkingRewardClient(ClientSettings(urls=urls, **{**settings, **changes}))


def status(code, **headers):
    return web.Response(status=code, headers=headers)


def image(colour="red"):
    return Image.new("RGB", (8, 8), colour)


async def test_a_score_and_what_is_sent_for_it():
    server = Server()
    async with server.serve() as url, make_client(url, max_tokens=9, structured_output="choice") as client:
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
        shown = f"{client!r} {client.config!r} {score}"
    assert server.headers[0]["Authorization"] == "Bearer s3cret"
    assert (score.error, score.attempts) == ("http_401", 1)
    assert "bad key ***" in caplog.text
    assert "s3cret" not in caplog.text + shown


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


class Outage:
    """A server that answers as told until a time from now, then as it should."""

    def __init__(self, seconds, fault=lambda: status(503)):
        self.over_at = time.monotonic() + seconds
        self.fault = fault

    def __call__(self, data, number):
        return self.fault() if time.monotonic() < self.over_at else "0.7"


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
    async with server.serve() as url, make_client(url, timeout_s=0.9, deadline_s=1.0) as client:
        started = time.monotonic()
        scores = await score_many(client, 200)
        assert time.monotonic() - started < 5
    assert {(score.value, score.error) for score in scores} == {(None, "http_503")}
    assert sum(score.attempts for score in scores) == len(server.requests), "what was not sent is not counted"


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
    assert {score.value for score in joined} == {0.7}
    assert sorted(score.attempts for score in joined) == [0, 0, 0, 0, 1]
    assert (later.cached, later.attempts) == (True, 0)
    assert len(server.requests) == 4


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
        await asyncio.gather(*tasks)
    assert server.most_busy == 3


async def test_the_deadline_counts_queueing():
    server = Server()
    server.delay_s = 1.0
    async with server.serve() as url, make_client(url, max_concurrency=1, timeout_s=2.4, deadline_s=2.5) as client:
        started = time.monotonic()
        scores = await asyncio.gather(*(client.score("q", [], f"t{number}") for number in range(8)))
        assert time.monotonic() - started < 8 * server.delay_s
    # One at a time, at most two of them fit in.
    assert scores[0].value is not None
    assert [score.error for score in scores].count("deadline") >= 6
    assert [score.attempts for score in scores[-4:]] == [0, 0, 0, 0]


@pytest.mark.parametrize(("kind", "field"), [("choice", "structured_outputs"), ("json_schema", "response_format")])
async def test_structured_output_is_what_the_settings_say(kind, field):
    server = Server(lambda data, number: "0.4" if kind == "choice" else '{"score": 0.4}')
    async with server.serve() as url:
        async with make_client(url, structured_output=kind) as client:
            assert (await client.score("q", [], "t")).value == 0.4
        async with make_client(url, structured_output="off") as client:
            await client.score("q", [], "t")
    restricted, free = server.requests
    assert field in restricted
    assert not {"structured_outputs", "response_format"} & free.keys()
    if kind == "json_schema":
        schema = restricted["response_format"]["json_schema"]["schema"]
        assert schema["properties"]["score"]["enum"] == [float(value) for value in VALUES]


async def test_a_refused_field_is_a_missing_score_and_not_negotiated():
    server = Server(lambda data, number: web.Response(status=400, text="unknown field structured_outputs"))
    async with server.serve() as url, make_client(url, structured_output="choice") as client:
        score = await client.score("q", [], "t")
    assert (score.error, score.attempts) == ("http_400", 1)


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


async def test_an_image_that_cannot_be_read_is_a_missing_score():
    server = Server()
    async with server.serve() as url, make_client(url) as client:
        for bad in (b"", b"no image at all", {"path": "/nowhere.png"}):
            score = await client.score("q", [bad], "t")
            assert (score.value, score.error, score.attempts) == (None, "bad_image", 0)
    assert not server.requests


async def test_programming_errors_raise():
    async with make_client("http://127.0.0.1:9/v1") as client:
        with pytest.raises(TypeError):
            await client.score("q", [3], "t")
        with pytest.raises(TypeError):
            await client.score("q", [], None)


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


async def test_a_key_is_hidden_where_the_detail_is_cut(monkeypatch, caplog):
    monkeypatch.setenv("TRM_KEY", "s3cret-and-long")
    server = Server(lambda data, number: web.Response(status=401, text="x" * 495 + "s3cret-and-long"))
    async with server.serve() as url, make_client(url, api_key_env="TRM_KEY") as client:
        await client.score("q", [], "t")
        with pytest.raises(AttemptError) as raised:
            await client.ask(url, b"[]")
    assert "s3cr" not in caplog.text + repr(raised.value) + str(raised.value)


async def test_a_key_that_no_header_can_hold_is_refused_and_white_space_around_it_goes(monkeypatch):
    config = ClientSettings(urls="http://a/v1", model="trm", api_key_env="TRM_KEY")
    monkeypatch.setenv("TRM_KEY", " s3cret\n")
    assert read_api_key(config) == "s3cret"
    monkeypatch.setenv("TRM_KEY", "s3\ncret")
    with pytest.raises(ValueError, match="TRM_KEY") as raised:
        read_api_key(config)
    assert "cret" not in str(raised.value).replace("TRM_KEY", "")


async def test_reading_the_images_counts_for_the_deadline(monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(questions, "_read", lambda images: over.wait(20) and [])
    async with make_client("http://127.0.0.1:9/v1", timeout_s=0.1, deadline_s=0.2) as client:
        started = time.monotonic()
        score = await client.score("q", [image()], "t")
        assert time.monotonic() - started < 10
        over.set()
    assert (score.value, score.error, score.attempts) == (None, "deadline", 0)


async def test_a_score_that_joined_another_has_its_own_deadline():
    server = Server(Outage(1.4))
    async with server.serve() as url, make_client(url, timeout_s=0.9, deadline_s=1.0) as client:
        first = asyncio.create_task(client.score("q", [], "t"))
        await asyncio.sleep(0.8)
        second = await client.score("q", [], "t")
        assert (await first).error == "http_503"
    assert second.value == 0.7


@pytest.mark.parametrize("cache_size", [0, 100])
async def test_closing_ends_what_is_under_way(cache_size):
    server = Server()
    server.delay_s = 30
    async with server.serve() as url:
        client = make_client(url, cache_size=cache_size)
        scores = [asyncio.create_task(client.score("q", [], f"t{number}")) for number in range(5)]
        await asyncio.sleep(0.2)
        await client.close()
        results = await asyncio.wait_for(asyncio.gather(*scores, return_exceptions=True), 10)
        assert {type(result) for result in results} == {asyncio.CancelledError}
        assert client._session is None, "nothing was opened again"


async def test_cancelled_scores_give_their_places_back_with_a_cache_too():
    server = Server()
    server.delay_s = 30
    async with server.serve() as url, make_client(url, max_concurrency=1) as client:
        task = asyncio.create_task(client.score("q", [], "t"))
        await asyncio.sleep(0.1)
        task.cancel()
        server.delay_s = 0
        assert (await asyncio.wait_for(client.score("q", [], "t2"), 10)).value == 0.7


async def test_an_endless_reply_is_cut_off():
    def answer(data, number):
        return web.json_response(completion("0.7" + " " * MAX_REPLY_BYTES)) if number == 1 else "0.4"

    server = Server(answer)
    async with server.serve() as url, make_client(url) as client:
        score = await client.score("q", [], "t")
    assert (score.value, score.attempts) == (0.4, 2)
