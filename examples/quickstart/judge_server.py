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
import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from PIL import Image
from traces import critique

from data_preprocess.easy_vqa import ASKS, FRAME, PICTURE_SIDE, PLACES, Question, Scene, load_images
from recipe.sophiavl.trm.prompt import NO_THINKING, load_template

MODEL = "rule-judge"
MAX_BODY_BYTES = 16 * 2**20
# What reading a request raises that is none: the JSON's form, its image, its text.
BAD_REQUEST = (
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    RecursionError,
    OSError,
    SyntaxError,
    struct.error,
    Image.DecompressionBombError,
)
_INSIDE = (FRAME, FRAME, PICTURE_SIDE - FRAME, PICTURE_SIDE - FRAME)
_OPTION = re.compile(r"[A-D]\. \w+")


@dataclass(frozen=True)
class Asked:
    """What a chat request asks to be judged."""

    scene: Scene
    question: Question
    thinking: str


class Judge:
    """Knows every image of easy-VQA and how the quickstart's prompt is built."""

    def __init__(self) -> None:
        self.template = load_template(Path(__file__).parent / "trm_prompt.yaml")
        pieces = [
            "(?P<" + text + ">.*?)" if is_slot else re.escape(text)
            for is_slot, text in self.template.parts
            if text != "images"
        ]
        self._layout = re.compile("".join(pieces), re.DOTALL)
        images = [image for split in ("train", "test") for image in load_images(split)]
        self._pictures = {image.picture().crop(_INSIDE).tobytes(): image for image in images}

    def reply(self, request: Mapping[str, Any]) -> str:
        """The verdict on one chat request; raises as `read`."""
        asked = self.read(request)
        return critique(asked.scene, asked.question, asked.thinking)

    def read(self, request: Mapping[str, Any]) -> Asked:
        """What a chat request asks.

        Raises:
            ValueError, KeyError, TypeError, IndexError: it holds no row of easy-VQA pictures, or its text has another
                layout, or it is no chat request.
            OSError, SyntaxError, struct.error, Image.DecompressionBombError: what it holds is no image.
        """
        content = request["messages"][-1]["content"]
        urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
        if len(urls) != 1:
            raise ValueError(f"{len(urls)} images; questions of easy-VQA have one")
        scene = self.scene(base64.b64decode(str(urls[0]).partition(",")[2]))
        found = self._layout.fullmatch("".join(part["text"] for part in content if part["type"] == "text"))
        if found is None:
            raise ValueError("the text does not have the layout of examples/quickstart/trm_prompt.yaml")
        thinking = found["thinking"] if found["thinking"] != NO_THINKING else ""
        return Asked(scene, read_question(found["question"]), thinking)

    def scene(self, image_file: bytes) -> Scene:
        """The pictures that an image file shows.

        Raises:
            ValueError: it is no row of easy-VQA pictures.
            OSError, SyntaxError, struct.error, Image.DecompressionBombError: it is no image.
        """
        with Image.open(io.BytesIO(image_file)) as image:
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


def make_app(reply: Callable[[Mapping[str, Any]], str], model: str) -> web.Application:
    """The server: the model's name, its health, and chat completions.

    Args:
        reply: a chat request's reply; raises as `Judge.read` where there is none, which is HTTP 400.
    """

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": model, "object": "model", "max_model_len": 4096}]})

    async def health(_: web.Request) -> web.Response:
        return web.Response()

    async def chat(request: web.Request) -> web.Response:
        try:
            text = reply(await request.json())
        except BAD_REQUEST as error:
            return web.json_response({"error": {"message": str(error), "type": "BadRequestError"}}, status=400)
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        return web.json_response({"object": "chat.completion", "model": model, "choices": [choice]})

    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.router.add_get("/health", health)
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/chat/completions", chat)
    return app


def add_server_arguments(parser: argparse.ArgumentParser, model: str) -> None:
    """Where to serve, and under which name."""
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--model", default=model, help=f"the model's name (default: {model})")


def main(arguments: list[str] | None = None) -> int:
    """Command line; serves until it is stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_server_arguments(parser, MODEL)
    options = parser.parse_args(arguments)
    web.run_app(make_app(Judge().reply, options.model), host=options.host, port=options.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
