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

from recipe.sophiavl.trm import questions
from recipe.sophiavl.trm.client import read_api_key
from recipe.sophiavl.trm.client_settings import ClientSettings
from recipe.sophiavl.trm.scale import VALUES
from recipe.sophiavl.trm.transport import MAX_REPLY_BYTES, AttemptError
from testbed.stand_in import completion
from tests.support.recording_trm import Outage, Server, image, make_client

pytestmark = pytest.mark.asyncio


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
