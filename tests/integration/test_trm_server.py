"""The client and the preflight against a real vLLM server."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image, ImageDraw

from recipe.sophiavl.trm.client import ThinkingRewardClient
from recipe.sophiavl.trm.client_settings import ClientSettings
from recipe.sophiavl.trm.preflight import PreflightError, preflight, run_preflight
from recipe.sophiavl.trm.scale import VALUES
from testbed.stand_in import serve
from testbed.vllm_server import free_port
from tests.support.attacks import ATTACKS
from tests.support.fault_proxy import FaultProxy

pytestmark = pytest.mark.e2e

QUESTION = "<image>How many corners does it have?"


def picture(colour: str) -> Image.Image:
    image = Image.new("RGB", (112, 112), "white")
    ImageDraw.Draw(image).rectangle((20, 20, 80, 60), fill=colour)
    return image


def settings(url: str, **changes: Any) -> ClientSettings:
    given = {"model": "tiny", "max_thinking_chars": 3000, "structured_output": "choice", **changes}
    return ClientSettings(urls=(url,), **given)


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["chatml_verdict", "json_breakout", "long_varied", "score_lines"])
async def test_a_reply_is_one_of_the_allowed_values_whatever_the_reasoning(vllm_server, name):
    async with ThinkingRewardClient(settings(vllm_server.url, structured_output="choice")) as client:
        score = await client.score(QUESTION, [picture("red")], ATTACKS[name])
    assert score.error is None
    assert f"{score.value:.1f}" in VALUES
    assert (score.attempts, score.cached, score.endpoint) == (1, False, vllm_server.url)


@pytest.mark.asyncio
async def test_the_expected_score_lies_between_the_values(vllm_server):
    async with ThinkingRewardClient(settings(vllm_server.url, score_mode="expected", expected_min_mass=0.3)) as client:
        score = await client.score(QUESTION, [picture("red")], "It has four.")
    assert score.error is None
    assert 0.0 < score.value < 1.0
    assert round(score.value, 1) != score.value, "a random model spreads its probability"


@pytest.mark.asyncio
async def test_free_prose_of_a_random_model_is_no_score(vllm_server):
    async with ThinkingRewardClient(settings(vllm_server.url, structured_output="off")) as client:
        score = await client.score(QUESTION, [picture("red")], "It has four.")
    assert (score.value, score.error) == (None, "unparsable")


@pytest.mark.asyncio
async def test_the_group_shares_its_prefix_and_every_image_is_sent(vllm_server):
    proxy = FaultProxy(vllm_server.url, lambda _: None)
    async with serve(proxy.app()) as url, ThinkingRewardClient(settings(url)) as client:
        images = [picture("red"), picture("blue")]
        for number in range(3):
            await client.score(QUESTION, images, f"Response {number}: four corners, as {number + 2} + {2 - number}")
        await client.score(QUESTION, images[:1], "Response 3: four corners")
    prompts = [usage["prompt_tokens"] for usage in proxy.usages]
    cached = [usage["prompt_tokens_details"]["cached_tokens"] for usage in proxy.usages]
    assert min(cached[1], cached[2]) > 0.85 * prompts[1]
    one_image = 2 + 16  # its start and end tokens, and its 16 merged patches
    assert prompts[2] - prompts[3] == pytest.approx(one_image, abs=12)


@pytest.mark.asyncio
async def test_preflight_passes(vllm_server):
    how = {"score_mode": "expected", "expected_min_mass": 0.3, "structured_output": "auto"}
    found = await preflight(settings(vllm_server.url, **how))
    assert [check.name for check in found.failed] == []
    assert found.settings.structured_output == "choice", "vLLM has it, and enforces it"
    assert [check.name for check in found.checks] == [
        *("reachable", "key accepted", "model served", "image accepted"),
        *("context length", "structured output", "two scores agree"),
    ]


@pytest.mark.parametrize(
    ("changes", "failed", "hints"),
    [
        ({"model": "tinny"}, "model served", ["serves tiny", "set thinking_reward.model=tiny (now 'tinny')"]),
        ({"max_thinking_chars": 40_000}, "context length", ["8192", "thinking_reward.max_thinking_chars=40000"]),
        ({"structured_output": "off"}, "two scores agree", ["unparsable", "thinking_reward.structured_output='off'"]),
    ],
)
def test_preflight_says_what_to_change(vllm_server, changes, failed, hints):
    with pytest.raises(PreflightError) as caught:
        run_preflight(settings(vllm_server.url, **changes))
    assert [check.name for check in caught.value.failed] == [failed]
    for hint in hints:
        assert hint in str(caught.value)


def test_preflight_finds_a_wrong_path_and_a_wrong_port(vllm_server):
    with pytest.raises(PreflightError, match=r"reachable .*http_404[\s\S]*thinking_reward.urls.*/v1"):
        run_preflight(settings(vllm_server.root))
    nothing = f"http://127.0.0.1:{free_port()}/v1"
    with pytest.raises(PreflightError, match=rf"reachable [\s\S]*{nothing}: start the server"):
        run_preflight(settings(nothing))
