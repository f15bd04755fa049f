"""A stand-in for a TRM server: the shape of an OpenAI-compatible one, with a fixed delay and a fixed capacity.

python -m testbed.stand_in --port 8000 --delay-s 0.05 --capacity 64
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from aiohttp import web

from testbed.vllm_server import free_port

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
MAX_BODY_BYTES = 64 * 2**20


def completion(text: str, *, finish_reason: str = "stop", logprobs: Any = None) -> dict[str, Any]:
    """A chat completion with `text` as its only choice."""
    message = {"role": "assistant", "content": text}
    return {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason, "logprobs": logprobs}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1},
    }


def make_app(chat: Handler, *, model: str = "stand-in", max_model_len: int = 4096) -> web.Application:
    """A server that lists one model and passes chat requests to `chat`."""

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": model, "max_model_len": max_model_len}]})

    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/chat/completions", chat)
    return app


@contextlib.asynccontextmanager
async def serve(app: web.Application, port: int | None = None):
    """Serve `app` on the running loop; yields its base URL."""
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = port or free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        await runner.cleanup()


@dataclass
class Work:
    """What a stand-in process has done: chat requests, the bytes of their bodies, and its own CPU seconds."""

    requests: int = 0
    body_bytes: int = 0
    cpu_s: float = 0.0

    def since(self, before: Work) -> Work:
        """What was done after `before`."""
        return Work(*(now - then for now, then in zip(asdict(self).values(), asdict(before).values(), strict=True)))


def delayed(delay_s: float, capacity: int, work: Work | None = None) -> Handler:
    """A handler that takes `delay_s` seconds for each request, serves `capacity` of them at once, and counts them.

    It cannot answer n requests faster than `bound_s`.
    """
    work = work or Work()
    slots = asyncio.Semaphore(capacity)

    async def chat(request: web.Request) -> web.Response:
        work.body_bytes += len(await request.read())
        work.requests += 1
        async with slots:
            await asyncio.sleep(delay_s)
        return web.json_response(completion("0.7"))

    return chat


def bound_s(requests: int, delay_s: float, capacity: int) -> float:
    """Seconds that a `delayed` server needs for this many requests, however they come."""
    return -(-requests // capacity) * delay_s


def work_of(url: str) -> Work:
    """What the stand-in process at this base URL has done so far."""
    with urllib.request.urlopen(url.removesuffix("/v1") + "/work", timeout=30) as response:
        return Work(**json.load(response))


@contextlib.contextmanager
def stand_in_process(delay_s: float, capacity: int) -> Iterator[str]:
    """Run the stand-in in a process of its own; yields its base URL."""
    port = free_port()
    command = [sys.executable, "-m", "testbed.stand_in", "--port", str(port)]
    process = subprocess.Popen([*command, "--delay-s", str(delay_s), "--capacity", str(capacity)])
    try:
        _wait_until_served(f"http://127.0.0.1:{port}/v1/models", process)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def _wait_until_served(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("the stand-in server does not serve")


def main() -> None:
    parser = argparse.ArgumentParser(description="Stand-in TRM server")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--delay-s", type=float, default=0.05)
    parser.add_argument("--capacity", type=int, default=64)
    given = parser.parse_args()
    work = Work()

    async def told(_: web.Request) -> web.Response:
        work.cpu_s = time.process_time()
        return web.json_response(asdict(work))

    app = make_app(delayed(given.delay_s, given.capacity, work))
    app.router.add_get("/work", told)
    web.run_app(app, host="127.0.0.1", port=given.port, print=None)


if __name__ == "__main__":
    main()
