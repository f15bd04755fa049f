"""A proxy in front of a real TRM server that spoils some of the replies, and keeps a record of all of them."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any, Literal

import aiohttp
from aiohttp import web

from testbed.stand_in import completion, make_app

Fault = Literal[
    "503",
    "429",
    "429_for_an_hour",
    "hang",
    "reset",
    "truncated_json",
    "broken_off",
    "wrong_type",
    "wrong_shape",
    "prose",
]
Plan = Callable[[int], Fault | None]
"""The fault for the request with this number, counted from 0; None passes it on."""

HANG_S = 3600.0
RETRY_AFTER_S = 1
PROSE = "Step 1 is sound, but step 2 of 3 takes 0.5 for granted."


class FaultProxy:
    """Passes chat requests on to `target` unless `plan` has a fault for them.

    Attributes:
        faults: how often each fault struck.
        passed: requests passed on.
        answers: for each response, by the number in its text ("Response 12: …"), the texts the real server replied.
        usages: the `usage` of each passed reply, in order.
        arrivals: monotonic time of each request, by number of the response.
    """

    def __init__(self, target: str, plan: Plan) -> None:
        self.plan = plan
        self.faults: Counter[str] = Counter()
        self.passed = 0
        self.answers: defaultdict[int, list[str]] = defaultdict(list)
        self.usages: list[dict[str, Any]] = []
        self.arrivals: defaultdict[int, list[float]] = defaultdict(list)
        self._target = target
        self._count = 0
        self._session: aiohttp.ClientSession | None = None

    def app(self) -> web.Application:
        """The proxy as an application, for `testbed.stand_in.serve`."""
        app = make_app(self._chat)
        app.cleanup_ctx.append(self._sessions)
        return app

    async def _sessions(self, _: web.Application):
        self._session = aiohttp.ClientSession()
        yield
        await self._session.close()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        number = response_number(body)
        self.arrivals[number].append(time.monotonic())
        fault = self.plan(self._count)
        self._count += 1
        if fault is not None:
            self.faults[fault] += 1
            return await _spoil(fault, request)
        self.passed += 1
        return await self._pass_on(body, number)

    async def _pass_on(self, body: bytes, number: int) -> web.Response:
        assert self._session is not None
        try:
            async with self._session.post(
                f"{self._target}/chat/completions", data=body, headers={"Content-Type": "application/json"}
            ) as reply:
                raw = await reply.read()
                if reply.status == 200:
                    data = json.loads(raw)
                    self.answers[number].append(data["choices"][0]["message"]["content"])
                    self.usages.append(data["usage"])
                return web.Response(body=raw, status=reply.status, content_type=reply.content_type)
        except aiohttp.ClientError:
            return web.Response(status=502)


def response_number(body: bytes) -> int:
    """The number in the reasoning that a request carries, or -1."""
    match = re.search(r"Response (\d+):", json.loads(body)["messages"][-1]["content"][-1]["text"])
    return int(match[1]) if match else -1


async def _spoil(fault: Fault, request: web.Request) -> web.StreamResponse:
    good = json.dumps(completion("0.9")).encode()
    if fault == "hang":
        await asyncio.sleep(HANG_S)
    if fault == "reset":
        assert request.transport is not None
        request.transport.abort()
    if fault == "broken_off":
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(good))})
        await response.prepare(request)
        await response.write(good[: len(good) // 2])
        assert request.transport is not None
        request.transport.close()
        return response
    answers: dict[str, web.Response] = {
        "503": web.Response(status=503, text="overloaded, 0.9"),
        "429": web.Response(status=429, headers={"Retry-After": str(RETRY_AFTER_S)}),
        "429_for_an_hour": web.Response(status=429, headers={"Retry-After": "3600"}),
        "truncated_json": web.Response(body=good[: len(good) - 20], content_type="application/json"),
        "wrong_type": web.Response(body=good, content_type="text/html"),
        "wrong_shape": web.json_response({"score": 0.9}),
        "prose": web.json_response(completion(PROSE)),
    }
    return answers.get(fault, web.Response(status=500))
