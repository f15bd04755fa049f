"""Settings of the client: what is refused, and that the message says what to change."""

import asyncio

import pytest

from recipe.sophiavl.trm.client import ThinkingRewardClient
from recipe.sophiavl.trm.client_settings import ClientSettings
from testbed.vllm_server import free_port

URL = "http://localhost:8000/v1"


def test_defaults_are_valid_and_urls_are_normalised():
    config = ClientSettings(urls=[f"{URL}/", "https://host.example/v1"], model="trm")
    assert config.urls == (URL, "https://host.example/v1")
    assert ClientSettings(urls=URL, model="trm").urls == (URL,)


@pytest.mark.parametrize(
    "urls",
    [f"{URL},http://b:1/v1", f" {URL} , http://b:1/v1/, ", [f"{URL},http://b:1/v1"], (f"{URL},", " http://b:1/v1 ")],
)
def test_several_urls_in_one_text(urls):
    assert ClientSettings(urls=urls, model="trm").urls == (URL, "http://b:1/v1")


@pytest.mark.parametrize(
    "urls",
    [
        [],
        "",
        " , ",
        None,
        8000,
        ["localhost:8000/v1"],
        ["ftp://localhost/v1"],
        ["http://"],
        ["http://:8000/v1"],
        ["http://host:80800/v1"],
        ["http://host:port/v1"],
        ["http://[::1/v1"],
        ["http://host /v1"],
        [f"{URL}/chat/completions"],
        [f"{URL}?x=1"],
        [f"{URL}#x"],
        f"{URL},host:8000",
        f"{URL} http://b:1/v1",
        f"{URL},{URL}/",
        [URL, URL],
        [URL, f"{URL}/"],
        [8000],
    ],
)
def test_wrong_urls_are_refused(urls):
    with pytest.raises(ValueError, match=r"thinking_reward\.urls"):
        ClientSettings(urls=urls, model="trm")


def test_a_password_in_a_url_is_refused_and_not_repeated():
    for urls in (
        ["http://me:hunter2@host/v1"],
        f"{URL},http://me:hunter2@host/v1",
        f"http://me:hunter2@host/v1,{URL} x",
    ):
        with pytest.raises(ValueError, match=r"thinking_reward\.urls.*api_key_env") as caught:
            ClientSettings(urls=urls, model="trm")
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "near"),
    [("score_mode", "Discret", "discrete"), ("structured_output", "json-schema", "json_schema")],
)
def test_of_wrong_choices_the_nearest_is_named(name, value, near):
    with pytest.raises(ValueError, match=rf"thinking_reward\.{name}='{value}'.*did you mean {near}\?"):
        ClientSettings(urls=URL, model="trm", **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", ""),
        ("model", None),
        ("api_key_env", ""),
        ("prompt_path", ""),
        ("max_concurrency", 0),
        ("max_concurrency", 1.5),
        ("max_concurrency", True),
        ("connect_timeout_s", 0),
        ("timeout_s", -1),
        ("timeout_s", float("nan")),
        ("deadline_s", float("inf")),
        ("deadline_s", 60.0),
        ("deadline_s", "180"),
        ("max_retries", -1),
        ("backoff_base_s", 0),
        ("backoff_max_s", -1),
        ("temperature", -0.1),
        ("max_tokens", 0),
        ("structured_output", "yes"),
        ("score_mode", "mean"),
        ("expected_min_mass", 0),
        ("expected_min_mass", 1.1),
        ("max_thinking_chars", 0),
        ("cache_size", -1),
    ],
)
def test_wrong_values_are_refused_by_name(name, value):
    settings = {"urls": [URL], "model": "trm", name: value}
    with pytest.raises(ValueError, match=rf"^thinking_reward\.{name}={value!r}: ".replace("(", r"\(")):
        ClientSettings(**settings)


def test_a_key_variable_that_is_not_set_stops_the_client(monkeypatch):
    monkeypatch.delenv("TRM_KEY", raising=False)
    config = ClientSettings(urls=[URL], model="trm", api_key_env="TRM_KEY")
    with pytest.raises(ValueError, match=r"thinking_reward\.api_key_env='TRM_KEY'.*not set"):
        ThinkingRewardClient(config)


@pytest.mark.parametrize("wish", ["auto", "on"])
def test_a_client_takes_no_wish_for_structured_output(wish):
    with pytest.raises(ValueError, match=rf"structured_output='{wish}'.*preflight"):
        ThinkingRewardClient(ClientSettings(urls=[URL], model="trm", structured_output=wish))


def test_another_event_loop_is_refused_until_it_is_closed():
    async def once(client):
        return await client.score("q", [], "t")

    settings = {"urls": f"http://127.0.0.1:{free_port()}/v1", "model": "trm", "timeout_s": 0.2, "deadline_s": 0.3}
    client = ThinkingRewardClient(ClientSettings(**settings))
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(once(client)).error == "connect"
    with pytest.raises(RuntimeError, match="another event loop"):
        asyncio.run(once(client))
    loop.run_until_complete(client.close())
    loop.close()
    assert asyncio.run(once(client)).error == "connect"
