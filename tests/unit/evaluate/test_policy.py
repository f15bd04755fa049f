"""Whatever a server does, an answer is an answer, a refusal has its reason, and a server that is gone is told."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import pytest

from recipe.sophiavl.evaluate.asking import AskSettings
from recipe.sophiavl.evaluate.policy import Answer, PolicyClient, find_model
from recipe.sophiavl.server_process import ServerError
from recipe.sophiavl.validation import SettingsError
from testbed.vllm_server import free_port
from tests.support.policy_server import PolicyServer, completion, question_of

RIGHT = "<think>2 and 2</think><answer>4</answer>"


def messages(text: str = "2 + 2?") -> bytes:
    return json.dumps([{"role": "user", "content": text}]).encode()


def ask(url, *texts, died=lambda: None, **settings) -> list[Answer]:
    """All of them at once."""

    async def all_of_them():
        async with PolicyClient(url, "policy", AskSettings(**settings), died) as client:
            return await asyncio.gather(*(client.answer(messages(text), 1) for text in texts))

    return asyncio.run(all_of_them())


def answer_to(reply) -> Answer:
    with PolicyServer(lambda _: reply).running() as server:
        (answer,) = ask(server.url, "2 + 2?")
    return answer


def test_an_answer_comes_with_its_tokens():
    answer = answer_to(RIGHT)
    assert (answer.text, answer.error, answer.cut, answer.parted) == (RIGHT, None, False, False)
    assert (answer.prompt_tokens, answer.completion_tokens) == (7, 3)


def test_an_answer_that_was_cut_says_so():
    assert answer_to(completion("<think>on and", finish_reason="length")).cut


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
@pytest.mark.parametrize(
    ("content", "text"), [("<answer>4</answer>", RIGHT), (None, "<think>2 and 2"), ("", "<think>2 and 2")]
)
def test_thinking_that_the_server_parted_is_put_back(field, content, text):
    answer = answer_to(completion(content, **{field: "2 and 2"}))
    assert (answer.text, answer.parted, answer.error) == (text, True, None)


@pytest.mark.parametrize("content", [None, ""])
def test_an_empty_answer_is_an_answer(content):
    assert answer_to(completion(content)).text == ""


def test_an_answer_of_a_megabyte_and_half_a_surrogate_pair_are_taken():
    assert len(answer_to("<think>" + "x" * 2**20).text) == 2**20 + 7
    assert answer_to("a\ud800b").text == "a?b"


def test_a_refusal_has_its_reason_and_shows_neither_key_nor_control_characters(monkeypatch):
    monkeypatch.setenv("MY_KEY", "s3cret")
    error = {"error": {"message": "too long \x1b[31m for s3cret"}}
    with PolicyServer(lambda body: (400, error) if "long" in question_of(body) else RIGHT).running() as server:
        refused, answered = ask(server.url, "long", "short", api_key_env="MY_KEY")
    assert refused.error == r"http_400: too long \x1b[31m for ***"
    assert (refused.text, answered.text) == (None, RIGHT)
    assert len(server.asked) == 2, "what is refused is not sent again"


def test_a_request_that_only_breaks_the_server_is_given_up_and_the_others_are_answered():
    def reply(body):
        return (500, {"error": {"message": "poison"}}) if "poison" in question_of(body) else RIGHT

    with PolicyServer(reply).running() as server:
        texts = ["poison", *(f"{n} + 1?" for n in range(40))]
        answers = ask(server.url, *texts, concurrency=2, wait_s=0.3)
    assert answers[0].error == "http_500: poison"
    assert {answer.text for answer in answers[1:]} == {RIGHT}


def test_a_server_that_comes_back_in_time_is_waited_for():
    port = free_port()

    def serve_later():
        time.sleep(1)
        server = PolicyServer(lambda _: RIGHT, port=port)
        with server.running():
            done.wait(30)

    done = threading.Event()
    thread = threading.Thread(target=serve_later)
    thread.start()
    try:
        answers = ask(f"http://127.0.0.1:{port}/v1", "a", "b", wait_s=20.0)
    finally:
        done.set()
        thread.join()
    assert [answer.text for answer in answers] == [RIGHT, RIGHT]


def test_a_server_that_stays_away_is_told_once(caplog):
    url = f"http://127.0.0.1:{free_port()}/v1"
    with pytest.raises(ServerError, match=rf"{url} has not answered for 0.6 s \(connect: .*same command"):
        ask(url, *"abcdefgh", wait_s=0.6)
    assert len([record for record in caplog.records if "waiting for it" in record.message]) == 1


def test_a_server_of_our_own_that_died_is_not_waited_for():
    with pytest.raises(ServerError, match="exit status -9"):
        ask(f"http://127.0.0.1:{free_port()}/v1", "a", died=lambda: "it has ended (exit status -9)", wait_s=3600.0)


def find(url, wanted=None, **settings):
    return asyncio.run(find_model(url, wanted, AskSettings(**settings)))


def test_the_only_model_is_found_and_what_it_serves():
    with PolicyServer(lambda _: RIGHT).running() as server:
        assert find(server.url) == ("policy", "weights-1")
        with pytest.raises(SettingsError, match=r"--model=polcy: .* serves policy \(did you mean"):
            find(server.url, "polcy")
        with pytest.raises(ServerError, match=r"GET /models brings no list of models \(http_404.* ends in /v1"):
            find(server.url.removesuffix("/v1"))
        server.models = [{"id": "a"}, {"id": "b\x1b"}]
        with pytest.raises(SettingsError, match=r"serves a, b\\x1b: name one of them with --model"):
            find(server.url)
    with pytest.raises(ServerError, match="nobody answers there"):
        find(server.url)
    with pytest.raises(SettingsError, match="--api-key-env=NO_SUCH_KEY"):
        find(server.url, api_key_env="NO_SUCH_KEY")
