"""Rows with reference scores for the tests of the evaluation, and a server that scores them, in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from aiohttp import web
from PIL import Image

from recipe.sophiavl.trm_training.pairs import (
    PAIR_SCHEMA,
    pair_digest,
    question_digest,
    write_pairs,
)
from testbed.stand_in import completion, make_app, serve

Answer = Callable[[str], "str | web.Response"]


def png(colour: str | tuple[int, int, int]) -> bytes:
    """A small image of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
    return buffer.getvalue()


def make_row(question: int = 0, response: int = 0, **changes: Any) -> dict[str, Any]:
    """A row of `PAIR_SCHEMA`: response number `response` (its score in tenths) to question number `question`."""
    text, image = f"<image>How many shapes, variant {question}?\nA. circle\nB. square", png((question % 256, 0, 0))
    score = min(response, 10) / 10
    thinking = f"We see the image and count. There are {question + 2} shapes. So the value is {score} and that is all."
    key = question_digest(text, [image])
    return {
        "pair_id": pair_digest(key, thinking),
        "question_id": key,
        "question": text,
        "images": [{"bytes": image, "path": None}],
        "thinking": thinking,
        "outcome": float(response >= 5),
        "group": f"1/{question}",
        "score": score,
        **changes,
    }


def write_rows(file: Path, rows: list[dict[str, Any]], leave_out: tuple[str, ...] = ()) -> Path:
    """Write rows as pairs, without the columns of `leave_out`."""
    schema = pa.schema([field for field in PAIR_SCHEMA if field.name not in leave_out])
    if rows:
        write_pairs(file, [{name: row.get(name) for name in schema.names} for row in rows], schema)
    else:
        pq.write_table(schema.empty_table(), file)
    return file


def written_value(text: str) -> str:
    """The last "value is X" of a prompt: a TRM that agrees with the reference of `make_row`."""
    return re.findall(r"value is ([0-9.]+)", text)[-1].rstrip(".")


@contextlib.contextmanager
def scoring_server(answer: Answer) -> Iterator[str]:
    """Serve a TRM in a thread; `answer` gets a request's messages as JSON. Yields the base URL."""
    ready, url = threading.Event(), []
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def chat(request: web.Request) -> web.Response:
        text = json.dumps(json.loads(await request.read())["messages"], ensure_ascii=False)
        result = answer(text)
        return web.json_response(completion(result)) if isinstance(result, str) else result

    async def run() -> None:
        async with serve(make_app(chat)) as base:
            url.append(base)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    try:
        assert ready.wait(20)
        yield url[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()
