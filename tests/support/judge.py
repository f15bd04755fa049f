"""A stand-in judge over HTTP, and rows for it that have a number each."""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from aiohttp import web

from recipe.sophiavl.trm_training.annotate import journal_path
from recipe.sophiavl.trm_training.pairs import pair_digest, question_digest, read_pairs, write_pairs
from testbed.stand_in import completion, make_app, serve
from tests.support.scored_rows import png

Answer = Callable[[int, int], str | web.StreamResponse]


IMAGES = [png(colour) for colour in ("red", "green", "blue")]


def make_row(number: int, **changes: Any) -> dict[str, Any]:
    """A row whose thinking tells the stand-in judge its number."""
    images = IMAGES[: number % 3]
    question = f"Question {number // 4}?"
    thinking = f"Thought number {number}."
    question_id = question_digest(question, images)
    return {
        "pair_id": pair_digest(question_id, thinking),
        "question_id": question_id,
        "question": question,
        "images": [{"bytes": image, "path": None} for image in images],
        "thinking": thinking,
        "response": f"<think>{thinking}</think>",
        "outcome": float(number % 2),
        "index": number,
        **changes,
    }


def make_file(path: Path, numbers: Iterable[int], **changes: Any) -> Path:
    """A file of these rows."""
    write_pairs(path, (make_row(number, **changes) for number in numbers))
    return path


def score_of(number: int) -> float:
    """The right score of a row: one of 0.0, 0.1 … 1.0."""
    return zlib.crc32(str(number).encode()) % 11 / 10


def right_score(number: int, time_asked: int) -> str:
    """A judge that is always right."""
    return f"{score_of(number):.1f}"


class Judge:
    """A stand-in judge; `answer` gets a pair's number and how often it was asked, and returns a text or a response."""

    def __init__(self, answer: Answer = right_score, delay_s: float = 0.0) -> None:
        self.answer = answer
        self.delay_s = delay_s
        self.enforces = False
        self.requests: list[int] = []
        self.bodies: list[dict[str, Any]] = []
        self.asked: Counter[int] = Counter()
        self.busy = self.most_busy = 0

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        found = re.search(r"Thought number (\d+)", json.dumps(body["messages"]))
        if found is None:  # no pair, but whoever finds out what this server can do
            held = {"structured_outputs", "response_format", "guided_choice"} & body.keys()
            return web.json_response(completion("0.5" if self.enforces and held else "banana"))
        number = int(found[1])
        self.requests.append(number)
        self.bodies.append(body)
        self.asked[number] += 1
        time_asked = self.asked[number]
        self.busy += 1
        self.most_busy = max(self.busy, self.most_busy)
        try:
            await asyncio.sleep(self.delay_s)
        finally:
            self.busy -= 1
        answer = self.answer(number, time_asked)
        return web.json_response(completion(answer)) if isinstance(answer, str) else answer

    def serve(self) -> AbstractAsyncContextManager[str]:
        """Serve it on the running loop; yields its base URL."""
        return serve(make_app(self.chat))


def read(out: Path) -> list[dict[str, Any]]:
    """The rows of a file."""
    return list(read_pairs(out))


def journalled(out: Path) -> set[str]:
    """The pairs of the whole lines of a journal."""
    file = journal_path(out)
    lines = file.read_bytes().split(b"\n")[1:-1] if file.exists() else []
    return {json.loads(line)["pair_id"] for line in lines}
