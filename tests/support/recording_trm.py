"""A stand-in TRM that records what it is asked, and a client that is quick to try again."""

import asyncio
import json
import time

from aiohttp import web
from PIL import Image

from recipe.sophiavl.trm.client import ThinkingRewardClient
from recipe.sophiavl.trm.client_settings import ClientSettings
from testbed.stand_in import completion, make_app, serve


class Server:
    """A stand-in that records requests and answers as told; `answer` gets the request's data and its number."""

    def __init__(self, answer=lambda data, number: "0.7"):
        self.answer = answer
        self.requests = []
        self.headers = []
        self.busy = self.most_busy = 0
        self.delay_s = 0.0

    async def chat(self, request):
        data = json.loads(await request.read())
        self.requests.append(data)
        self.headers.append(request.headers)
        self.busy += 1
        self.most_busy = max(self.busy, self.most_busy)
        try:
            await asyncio.sleep(self.delay_s)
        finally:
            self.busy -= 1
        result = self.answer(data, len(self.requests))
        return web.json_response(completion(result)) if isinstance(result, str) else result

    def serve(self):
        return serve(make_app(self.chat))


def make_client(*urls, **changes):
    settings = {"model": "trm", "backoff_base_s": 0.01, "backoff_max_s": 0.05, "timeout_s": 20.0, "deadline_s": 30.0}
    return ThinkingRewardClient(ClientSettings(urls=urls, **{**settings, **changes}))


def status(code, **headers):
    return web.Response(status=code, headers=headers)


def image(colour="red"):
    return Image.new("RGB", (8, 8), colour)


class Outage:
    """A server that answers as told until a time from now, then as it should."""

    def __init__(self, seconds, fault=lambda: status(503)):
        self.over_at = time.monotonic() + seconds
        self.fault = fault

    def __call__(self, data, number):
        return self.fault() if time.monotonic() < self.over_at else "0.7"
