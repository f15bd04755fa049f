"""The preflight against stand-in servers that each lack one thing."""

import asyncio
import json
import re

import pytest
from aiohttp import web

from recipe.sophiavl.trm.client_settings import ClientSettings
from recipe.sophiavl.trm.preflight import PreflightError, main, preflight, run_preflight, sample_text
from testbed.stand_in import completion, make_app, serve
from testbed.vllm_server import free_port


class Server:
    """Answers as a good TRM does, but for what a test changes."""

    key = None
    images = True
    context_chars = 10**9
    structured = ("structured_outputs", "response_format")
    enforced = True
    scores = ("0.7",)

    def __init__(self, **changes):
        for name, value in changes.items():
            assert hasattr(self, name)
            setattr(self, name, value)
        self.count = 0

    async def chat(self, request):
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.Response(status=401)
        data = json.loads(await request.read())
        text = json.dumps(data["messages"])
        for field in ("structured_outputs", "response_format"):
            if field in data and field not in self.structured:
                return web.Response(status=400, text=f"unrecognized field {field}")
        if not self.images and "image_url" in text:
            return web.Response(status=400, text="this model takes no images")
        if len(text) > self.context_chars:
            return web.Response(status=400, text="maximum context length")
        if "banana" in text and not (self.enforced and ("structured_outputs" in data or "response_format" in data)):
            return web.json_response(completion("banana"))
        self.count += 1
        return web.json_response(completion(self.scores[self.count % len(self.scores)]))


async def check(server, **changes):
    async with serve(make_app(server.chat)) as url:
        settings = {"model": "stand-in", "structured_output": "auto", "timeout_s": 2.0, "deadline_s": 3.0, **changes}
        return await preflight(ClientSettings(urls=(url,), **settings))


def failed(found):
    return {one.name: one for one in found.failed}


def test_a_good_server_passes():
    found = asyncio.run(check(Server()))
    assert failed(found) == {}
    assert len(found.checks) == 7
    assert found.settings.structured_output == "choice"
    (line,) = found.lines()
    scores = r"one text scored twice: 0\.7 in \d+\.\d\d s and 0\.7 in \d+\.\d\d s"
    assert re.fullmatch(
        rf"Thinking reward model at http://\S+: model stand-in, structured output choice, {scores}", line
    )


@pytest.mark.parametrize(
    ("server", "changes", "name", "fix"),
    [
        ({}, {"model": "other"}, "model served", "set thinking_reward.model=stand-in (now 'other')"),
        ({"key": "k"}, {}, "key accepted", "thinking_reward.api_key_env=null"),
        ({"key": "k"}, {"api_key_env": "WRONG_KEY"}, "key accepted", "thinking_reward.api_key_env='WRONG_KEY'"),
        ({"images": False}, {}, "image accepted", "vision-language"),
        ({"context_chars": 30_000}, {"max_thinking_chars": 40_000}, "context length", "max_thinking_chars=40000"),
        ({"structured": ()}, {"structured_output": "on"}, "structured output", "structured_output='on' to 'off'"),
        ({"enforced": False}, {"structured_output": "on"}, "structured output", "structured_output='on' to 'off'"),
        ({"scores": ("0.7", "0.8")}, {}, "two scores agree", "thinking_reward.temperature"),
        ({"scores": ("fine",)}, {"structured_output": "off"}, "two scores agree", "structured_output='off' to 'on'"),
        ({}, {"score_mode": "expected"}, "two scores agree", "thinking_reward.score_mode='expected'"),
    ],
)
def test_each_lack_is_named_with_what_to_change(monkeypatch, server, changes, name, fix):
    monkeypatch.setenv("WRONG_KEY", "wrong-key-value")
    found = failed(asyncio.run(check(Server(**server), **changes)))
    assert list(found) == [name]
    assert fix in found[name].fix
    assert "wrong-key-value" not in str(PreflightError(list(found.values())))


@pytest.mark.parametrize(
    ("server", "found"),
    [
        ({}, "choice"),
        ({"structured": ("response_format",)}, "json_schema"),
        ({"structured": ()}, "off"),
        ({"enforced": False}, "off"),
    ],
)
def test_auto_is_settled_as_what_the_server_enforces(server, found):
    result = asyncio.run(check(Server(**server)))
    assert failed(result) == {}
    assert result.settings.structured_output == found


@pytest.mark.parametrize(
    ("served", "told", "fix"),
    [
        (["trm-v2", "trm-v1", "judge"], "judge, trm-v1, trm-v2", "to one of these (did you mean trm-v1?)"),
        (["judge", "policy"], "judge, policy", "to one of these (now 'trm-v11')"),
        ([], "nothing", "serve it under that name"),
        (["\x1b[2Jname"], r"\x1b[2Jname", r"set thinking_reward.model=\x1b[2Jname"),
    ],
)
def test_of_several_models_the_nearest_is_named(served, told, fix):
    async def ask():
        app = web.Application()
        app.router.add_get("/v1/models", models)
        async with serve(app) as url:
            return await preflight(ClientSettings(urls=url, model="trm-v11"))

    async def models(_):
        return web.json_response({"data": [{"id": name} for name in served]})

    (check,) = asyncio.run(ask()).failed
    assert check.detail == f"the server serves {told}"
    assert fix in check.fix


def test_a_way_that_is_named_is_held_to():
    only_schema = {"structured": ("response_format",)}
    assert asyncio.run(check(Server(**only_schema), structured_output="on")).settings.structured_output == "json_schema"
    assert list(failed(asyncio.run(check(Server(**only_schema), structured_output="choice")))) == ["structured output"]


def test_several_servers_get_what_they_have_in_common():
    async def two():
        async with (
            serve(make_app(Server().chat)) as one,
            serve(make_app(Server(structured=("response_format",)).chat)) as other,
        ):
            return await preflight(ClientSettings(urls=(one, other), model="stand-in", structured_output="auto"))

    found = asyncio.run(two())
    assert found.settings.structured_output == "json_schema"
    lines = found.lines()
    assert [url in line for url, line in zip(found.settings.urls, lines, strict=True)] == [True, True]


def test_a_run_prints_a_line_about_each_server(capsys):
    async def inside():
        async with serve(make_app(Server().chat)) as one, serve(make_app(Server().chat)) as other:
            urls = f"{one},{other}"
            await asyncio.to_thread(run_preflight, ClientSettings(urls=urls, model="stand-in", temperature=0.5))
            return one, other

    for url, line in zip(asyncio.run(inside()), capsys.readouterr().out.splitlines(), strict=True):
        assert f"at {url}: model stand-in, structured output off" in line
        assert "not asked for: thinking_reward.temperature=0.5" in line


def test_a_key_that_a_server_quotes_is_not_shown(monkeypatch):
    monkeypatch.setenv("QUOTED_KEY", "s3cret")

    class Quoting(Server):
        async def chat(self, request):
            return web.Response(status=400, text="I do not like s3cret")

    found = asyncio.run(check(Quoting(), api_key_env="QUOTED_KEY"))
    assert list(failed(found)) == ["image accepted"]
    assert "s3cret" not in str(PreflightError(found.failed))


def test_the_right_key_passes(monkeypatch):
    monkeypatch.setenv("RIGHT_KEY", "k")
    assert failed(asyncio.run(check(Server(key="k"), api_key_env="RIGHT_KEY"))) == {}


def test_every_endpoint_is_checked():
    async def two():
        async with serve(make_app(Server().chat)) as good, serve(make_app(Server(images=False).chat)) as bad:
            return good, bad, await preflight(ClientSettings(urls=(good, bad), model="stand-in"))

    good, bad, found = asyncio.run(two())
    assert {one.endpoint for one in found.checks if one.ok} == {good, bad}
    assert [(one.endpoint, one.name) for one in found.failed] == [(bad, "image accepted")]


def test_run_preflight_works_beside_a_running_event_loop():
    async def inside():
        run_preflight(ClientSettings(urls=(f"http://127.0.0.1:{free_port()}/v1",), model="m"))

    with pytest.raises(PreflightError, match="reachable"):
        asyncio.run(inside())


@pytest.mark.parametrize(
    ("server", "code", "shown"), [({}, 0, ", structured output choice, one text"), ({"images": False}, 1, "vision")]
)
def test_the_command_line(capsys, server, code, shown):
    async def inside():
        async with serve(make_app(Server(**server).chat)) as url:
            return await asyncio.to_thread(main, ["--url", url, "--model", "stand-in"])

    assert asyncio.run(inside()) == code
    assert shown in capsys.readouterr().out


def test_the_command_line_with_wrong_settings(capsys):
    assert main(["--url", "localhost:8000", "--model", "m"]) == 2
    assert "thinking_reward.urls" in capsys.readouterr().out


def test_the_sample_text_is_as_long_as_it_should_be_and_always_the_same():
    assert len(sample_text(5000)) == 5000
    assert sample_text(100) == sample_text(100)
