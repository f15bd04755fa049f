"""A judge behind a real HTTP endpoint: answers OpenAI chat requests about easy-VQA images by rule.

It takes the place that Qwen2.5-VL-72B has in the paper, for machines without a GPU. It recognises the image by its
bytes, reads question and reasoning where ``trm_prompt.yaml`` puts them, and replies what it sees beside what the
reasoning says, with a score. A request that it can't read gets HTTP 400, never a score.

    python examples/quickstart/judge_server.py --port 8001
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import web
from traces import critique, judge

from data_preprocess.easy_vqa import Question, ShapeImage, load_images
from recipe.sophiavl.trm.prompt import NO_THINKING, load_template

MODEL = "rule-judge"
MAX_BODY_BYTES = 16 * 2**20
_OPTION = re.compile(r"[A-D]\. \w+")


class Judge:
    """Knows every image of easy-VQA and how the quickstart's prompt is built."""

    def __init__(self) -> None:
        template = load_template(Path(__file__).parent / "trm_prompt.yaml")
        pieces = [
            "(?P<" + text + ">.*?)" if is_slot else re.escape(text)
            for is_slot, text in template.parts
            if text != "images"
        ]
        self._layout = re.compile("".join(pieces), re.DOTALL)
        self._images = {
            _digest(image.path.read_bytes()): image for split in ("train", "test") for image in load_images(split)
        }

    def reply(self, request: Mapping[str, Any]) -> str:
        """The verdict on one chat request.

        Raises:
            ValueError: the request holds no image of easy-VQA, or its text has another layout.
        """
        content = request["messages"][-1]["content"]
        image = self._image([part["image_url"]["url"] for part in content if part["type"] == "image_url"])
        found = self._layout.fullmatch("".join(part["text"] for part in content if part["type"] == "text"))
        if found is None:
            raise ValueError("the text does not have the layout of examples/quickstart/trm_prompt.yaml")
        thinking = found["thinking"] if found["thinking"] != NO_THINKING else ""
        return critique(image, thinking, judge(image, read_question(found["question"]), thinking))

    def _image(self, urls: list[str]) -> ShapeImage:
        if len(urls) != 1:
            raise ValueError(f"{len(urls)} images; questions of easy-VQA have one")
        image = self._images.get(_digest(base64.b64decode(urls[0].partition(",")[2])))
        if image is None:
            raise ValueError("an image that easy-VQA does not have")
        return image


def read_question(text: str) -> Question:
    """A question from its lines; the truth is not in it, and the rule does not need it."""
    first, *rest = text.strip().splitlines()
    if not all(_OPTION.fullmatch(line) for line in rest):
        raise ValueError(f"lines after the question that are no options: {rest}")
    kind = "numerical" if first.startswith("how many ") else "multiple choice" if rest else "free-form"
    return Question(first, kind, "", tuple(rest))


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def make_app(judge_of: Judge) -> web.Application:
    """The server: the model's name, its health, and chat completions."""

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model", "max_model_len": 4096}]})

    async def health(_: web.Request) -> web.Response:
        return web.Response()

    async def chat(request: web.Request) -> web.Response:
        try:
            text = judge_of.reply(await request.json())
        except (ValueError, KeyError, TypeError, IndexError) as error:
            return web.json_response({"error": {"message": str(error), "type": "BadRequestError"}}, status=400)
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        return web.json_response({"object": "chat.completion", "model": MODEL, "choices": [choice]})

    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.router.add_get("/health", health)
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/chat/completions", chat)
    return app


def main(arguments: list[str] | None = None) -> int:
    """Command line; serves until it is stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    options = parser.parse_args(arguments)
    web.run_app(make_app(Judge()), host=options.host, port=options.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
