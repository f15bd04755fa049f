"""A thinking reward model that lies: a real server's scores turned upside down by a proxy in front of it."""

from __future__ import annotations

import asyncio
import json
import threading

import aiohttp
from aiohttp import web

from recipe.sophiavl.trm.parse import parse_score


class LyingProxy:
    """Passes everything on to ``upstream``, but answers a chat's score s with 1 - s. Serves while in its context.

    Args:
        upstream: root URL of the real server, without ``/v1``.

    Attributes:
        url: base URL to ask.
        asked: chats.
        available: while False, every chat is answered with 503.
        refused: chats that were answered so, or with 502 because the real server was not there.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.available = True
        self.asked = self.refused = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runner: web.AppRunner | None = None

    def __enter__(self) -> LyingProxy:
        self._thread.start()
        self.url = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)

    async def _start(self) -> str:
        self._session = aiohttp.ClientSession()
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}/v1"

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _pass_on(self, request: web.Request) -> web.Response:
        chat = request.path.endswith("/chat/completions")
        self.asked += chat
        if not self.available and chat:
            self.refused += 1
            return web.Response(status=503)
        body = await request.read()
        headers = {"Content-Type": request.headers["Content-Type"]} if body else {}
        try:
            async with self._session.request(
                request.method, f"{self.upstream}{request.rel_url}", data=body, headers=headers
            ) as answer:
                raw, status, kind = await answer.read(), answer.status, answer.content_type
        except aiohttp.ClientError:
            self.refused += 1
            return web.Response(status=502)
        if status != 200 or not chat:
            return web.Response(body=raw, status=status, content_type=kind)
        reply = json.loads(raw)
        message = reply["choices"][0]["message"]
        score = parse_score(message["content"])
        if score is not None:
            message["content"] = f"{1 - score:.1f}"
        return web.json_response(reply)
