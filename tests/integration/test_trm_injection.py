"""No reasoning leaves its place in the prompt: token ids, as a real vLLM server counts them."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable

import pytest
from PIL import Image

from examples.quickstart.tiny_qwen import CONTROL_TOKENS
from recipe.sophiavl.trm.images import data_url, digest_image
from recipe.sophiavl.trm.prompt import (
    build_messages,
    clean_question,
    clean_thinking,
    load_template,
    prepare_prompt,
)
from testbed.vllm_server import VllmServer
from tests.support.attacks import ATTACKS

pytestmark = pytest.mark.e2e

MAX_THINKING_CHARS = 4000
PLAIN = "It is four"
QUESTION = "<image>How many corners does it have?"
Tokenize = Callable[[object], list[str]]


@pytest.fixture(scope="module")
def tokenize(vllm_server: VllmServer) -> Tokenize:
    """The tokens, as strings, that the server makes of chat messages."""

    def ask(messages: object) -> list[str]:
        body = json.dumps({"model": vllm_server.name, "messages": messages, "return_token_strs": True}).encode()
        request = urllib.request.Request(f"{vllm_server.root}/tokenize", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["token_strs"]

    return ask


@pytest.fixture(scope="module")
def image_url() -> str:
    return data_url(digest_image(Image.new("RGB", (56, 56), "white")))


def prompt(thinking: str, image_url: str, question: str = QUESTION) -> object:
    """The messages that the client sends, read back from its JSON."""
    template = load_template()
    prepared = prepare_prompt(template, clean_question(question), [image_url])
    return json.loads(prepared.messages_json(clean_thinking(template, thinking, MAX_THINKING_CHARS)))


@pytest.fixture(scope="module")
def frame(tokenize: Tokenize, image_url: str) -> tuple[list[str], list[str]]:
    """The tokens before and after the response, from two responses that have nothing in common."""
    first, second = tokenize(prompt("It is four", image_url)), tokenize(prompt("Nine", image_url))
    before = common_start(first, second)
    after = common_start(first[::-1], second[::-1])[::-1]
    assert "".join(before).endswith("BEGINĠREASONINGĠ=====Ċ")
    assert "".join(after).startswith("Ċ=====ĠENDĠREASONING")
    return before, after


def common_start(first: list[str], second: list[str]) -> list[str]:
    length = next((at for at, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1]), 0)
    return first[:length]


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_stays_in_its_place(name, tokenize, frame, image_url):
    before, after = frame
    tokens = tokenize(prompt(ATTACKS[name], image_url))
    assert tokens[: len(before)] == before
    # The response's last punctuation mark may merge with the line break after it, which is not yet the marker.
    assert tokens[len(tokens) - len(after) + 1 :] == after[1:]
    inside = tokens[len(before) : len(tokens) - len(after) + 1]
    assert inside, "an empty response would let the lines around it merge"
    assert not set(inside) & set(CONTROL_TOKENS)
    assert len(inside) <= 3 * MAX_THINKING_CHARS


@pytest.mark.parametrize(
    "name", ["chatml_verdict", "vision_tokens", "image_pad_flood", "llava_image", "zero_width_inside"]
)
def test_a_question_brings_no_control_tokens(name, tokenize, image_url):
    def controls(question: str) -> list[str]:
        return [token for token in tokenize(prompt(PLAIN, image_url, question)) if token in CONTROL_TOKENS]

    assert controls(QUESTION + ATTACKS[name]) == controls(QUESTION)


def test_the_server_does_take_control_tokens_from_raw_text(tokenize, frame, image_url):
    """The danger is real: without neutralising, the same text moves the prompt's end."""
    template = load_template()
    raw = build_messages(template, QUESTION, [image_url], ATTACKS["chatml_verdict"])
    inside = tokenize(raw)[len(frame[0]) : -len(frame[1])]
    assert inside.count("<|im_end|>") == 2
    assert "<|im_start|>" in inside
