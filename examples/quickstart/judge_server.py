"""A judge behind a real HTTP endpoint: answers OpenAI chat requests about easy-VQA images by rule.

It takes the place that Qwen2.5-VL-72B has in the paper, for machines without a GPU. It recognises the three pictures of
an image by their pixels, reads question and reasoning where ``trm_prompt.yaml`` puts them, and replies what it sees
beside what the reasoning says, with a score. A request that it can't read gets HTTP 400, never a score.

    python examples/quickstart/judge_server.py --port 8001
"""

from __future__ import annotations

import argparse
import base64
import io
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import web
from PIL import Image
from traces import critique

from data_preprocess.easy_vqa import ASKS, FRAME, PICTURE_SIDE, PLACES, Question, Scene, load_images
from recipe.sophiavl.trm.prompt import NO_THINKING, load_template

MODEL = "rule-judge"
MAX_BODY_BYTES = 16 * 2**20
_INSIDE = (FRAME, FRAME, PICTURE_SIDE - FRAME, PICTURE_SIDE - FRAME)
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
        images = [image for split in ("train", "test") for image in load_images(split)]
        self._pictures = {image.picture().crop(_INSIDE).tobytes(): image for image in images}

    def reply(self, request: Mapping[str, Any]) -> str:
        """The verdict on one chat request.

        Raises:
            ValueError: the request holds no row of easy-VQA pictures, or its text has another layout.
            OSError: what it holds is no image.
        """
        content = request["messages"][-1]["content"]
        scene = self._scene([part["image_url"]["url"] for part in content if part["type"] == "image_url"])
        found = self._layout.fullmatch("".join(part["text"] for part in content if part["type"] == "text"))
        if found is None:
            raise ValueError("the text does not have the layout of examples/quickstart/trm_prompt.yaml")
        thinking = found["thinking"] if found["thinking"] != NO_THINKING else ""
        return critique(scene, read_question(found["question"]), thinking)

    def _scene(self, urls: list[str]) -> Scene:
        if len(urls) != 1:
            raise ValueError(f"{len(urls)} images; questions of easy-VQA have one")
        with Image.open(io.BytesIO(base64.b64decode(urls[0].partition(",")[2]))) as image:
            row = image.convert("RGB")
        if row.size != (len(PLACES) * PICTURE_SIDE, PICTURE_SIDE):
            raise ValueError(f"an image of {row.width} x {row.height} pixels is no row of easy-VQA pictures")
        thirds = [row.crop((x, 0, x + PICTURE_SIDE, PICTURE_SIDE)) for x in range(0, row.width, PICTURE_SIDE)]
        parts = [third.crop(_INSIDE).tobytes() for third in thirds]
        unknown = [place for place, part in zip(PLACES, parts, strict=True) if part not in self._pictures]
        if unknown:
            raise ValueError(f"a picture that easy-VQA does not have: {', '.join(unknown)}")
        return Scene(tuple(self._pictures[part] for part in parts))


def read_question(text: str) -> Question:
    """A question from its lines; the truth is not in it, and the rule does not need it."""
    first, *rest = text.strip().splitlines()
    if first not in ASKS:
        raise ValueError(f"no question about easy-VQA: {first!r}")
    if not all(_OPTION.fullmatch(line) for line in rest):
        raise ValueError(f"lines after the question that are no options: {rest}")
    kind = "numerical" if ASKS[first].wanted == "number" else "multiple choice" if rest else "free-form"
    return Question(first, kind, "", tuple(rest))


def make_app(judge_of: Judge) -> web.Application:
    """The server: the model's name, its health, and chat completions."""

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model", "max_model_len": 4096}]})

    async def health(_: web.Request) -> web.Response:
        return web.Response()

    async def chat(request: web.Request) -> web.Response:
        try:
            text = judge_of.reply(await request.json())
        except (ValueError, KeyError, TypeError, IndexError, OSError) as error:
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
