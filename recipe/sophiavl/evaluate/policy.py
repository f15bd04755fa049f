"""Asks a served policy for answers: waits for a server that is away, and gives up on it in one sentence."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp

from recipe.sophiavl.evaluate.asking import AskSettings
from recipe.sophiavl.server_process import ServerError
from recipe.sophiavl.trm.preflight import printable
from recipe.sophiavl.trm.server import Server, backoff_s
from recipe.sophiavl.trm.transport import AttemptError, Reply, list_models, post_chat
from recipe.sophiavl.validation import SettingsError, did_you_mean

logger = logging.getLogger(__name__)

MAX_DETAIL_CHARS = 500
_CONNECT_S = 10.0
_BACKOFF_S = (0.5, 5.0)
_TELL_EVERY_S = 60.0
# Further attempts for a request that fails on a server which answers others.
_MAX_RETRIES = 3


@dataclass(frozen=True)
class Answer:
    """What came of one request.

    Attributes:
        text: the whole response; where the server parts the thinking from it, with its tags put back. None where
            there is no answer.
        error: why there is none; None where there is one.
        cut: whether it ended at the limit of tokens.
        parted: whether the server had parted the thinking.
        prompt_tokens, completion_tokens: as the server counts them; None where it does not.
        latency_s: seconds, waiting for the server included.
    """

    text: str | None
    error: str | None = None
    cut: bool = False
    parted: bool = False
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    latency_s: float = 0.0


class PolicyClient:
    """Asks the model `model` behind an OpenAI-compatible base URL; use it as an async context manager.

    Args:
        died: says why the server will not come back, in a sentence; None while it may.

    Raises:
        SettingsError: the environment variable of the API key is not set.
    """

    def __init__(
        self, url: str, model: str, settings: AskSettings, died: Callable[[], str | None] = lambda: None
    ) -> None:
        self.url, self.model, self.settings = url, model, settings
        self._died = died
        self._key = read_key(settings.api_key_env)
        self._server = Server(
            url,
            limit=settings.concurrency,
            backoff_base_s=_BACKOFF_S[0],
            backoff_max_s=_BACKOFF_S[1],
            longest_rest_s=settings.wait_s,
        )
        # Of a server that has answered nobody since: monotonic seconds.
        self._failing_since: float | None = None
        self._told_at = -math.inf

    async def __aenter__(self) -> PolicyClient:
        self._session = open_session(self._key, self.settings.timeout_s)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def answer(self, messages: bytes, seed: int) -> Answer:
        """Ask once.

        A request that the server refuses, or keeps failing on while it answers others, is an answer with an error.

        Args:
            messages: the chat messages, as JSON.
            seed: of the sampling, below 2**31.

        Raises:
            ServerError: the server is away for longer than ``wait_s``, or will not come back.
        """
        body = self.settings.request_head(self.model, seed) + messages + b"}"
        started, failed_at, retries = time.monotonic(), math.inf, 0
        while True:
            if not await self._server.enter():
                continue
            sent_at = time.monotonic()
            try:
                reply = await post_chat(self._session, self.url, body)
                self._server.answered()
                self._failing_since = None
                return _answer_of(reply, time.monotonic() - started)
            except AttemptError as error:
                reason = printable(f"{error.kind}: {self._without_key(error.detail)}"[:MAX_DETAIL_CHARS])
                if not error.retryable:
                    self._server.answered()
                    self._failing_since = None
                    return Answer(None, reason, latency_s=time.monotonic() - started)
                self._server.failed(error, sent_at)
                failed_at = min(failed_at, time.monotonic())
                retries += error.may_be_the_request and self._server.answered_at > failed_at
                if retries > _MAX_RETRIES or await self._given_up(error, reason):
                    return Answer(None, reason, latency_s=time.monotonic() - started)
            finally:
                self._server.leave()
            if self._server.resting_until <= time.monotonic():
                await asyncio.sleep(backoff_s(retries + 1, *_BACKOFF_S))

    async def _given_up(self, error: AttemptError, reason: str) -> bool:
        """Whether only this request is given up, for the server is there; False to try again."""
        if told := self._died():
            raise ServerError(told)
        if self._failing_since is None:
            self._failing_since = time.monotonic()
            if self._failing_since - self._told_at >= _TELL_EVERY_S:  # an overloaded server fails now and then
                self._told_at = self._failing_since
                logger.warning("%s does not answer (%s): waiting for it", self.url, reason)
        if time.monotonic() - self._failing_since <= self.settings.wait_s:
            return False
        if error.may_be_the_request:
            try:
                await list_models(self._session, self.url)
                return True
            except AttemptError as other:
                reason = printable(str(other)[:MAX_DETAIL_CHARS])
        slow = "; a slow server wants a higher --timeout-s or a lower --concurrency" if error.kind == "timeout" else ""
        raise ServerError(
            f"{self.url} has not answered for {self.settings.wait_s:g} s ({reason}): start it again and give the same "
            f"command, which goes on with what is missing{slow}"
        )

    def _without_key(self, detail: str) -> str:
        return detail.replace(self._key, "***") if self._key else detail


def _answer_of(reply: Reply, latency_s: float) -> Answer:
    text = reply.text
    if reply.reasoning is not None and "<think>" not in text:
        # With nothing after it, the thinking was never ended.
        text = f"<think>{reply.reasoning}</think>{text}" if text else f"<think>{reply.reasoning}"
    counts = (reply.usage.get(name) for name in ("prompt_tokens", "completion_tokens"))
    prompt, completion = (count if isinstance(count, int) else None for count in counts)
    return Answer(
        # JSON can bring half a surrogate pair, which no file takes.
        text.encode("utf-8", "replace").decode("utf-8"),
        cut=reply.cut,
        parted=reply.reasoning is not None,
        prompt_tokens=prompt,
        completion_tokens=completion,
        latency_s=latency_s,
    )


def open_session(key: str | None, timeout_s: float) -> aiohttp.ClientSession:
    """A session on the running loop; the client's own bound is the limit of its connections."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=_CONNECT_S),
        headers={"Authorization": f"Bearer {key}"} if key else {},
        cookie_jar=aiohttp.DummyCookieJar(),
    )


def read_key(variable: str | None) -> str | None:
    """The API key in an environment variable; None where none is named.

    Raises:
        SettingsError: the variable is not set, or cannot be sent in a header.
    """
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key or not key.isprintable():
        raise SettingsError(f"--api-key-env={variable}: this environment variable is not set, or holds no key")
    return key


async def find_model(url: str, wanted: str | None, settings: AskSettings) -> tuple[str, str | None]:
    """The name of the model to ask for, and, where the server tells it, what it serves under that name.

    Args:
        wanted: None takes the only one.

    Raises:
        ServerError: nobody answers, or not as an OpenAI-compatible server does.
        SettingsError: the server does not serve `wanted`, or several models and none was named.
    """
    key = read_key(settings.api_key_env)
    async with open_session(key, min(settings.timeout_s, 3 * _CONNECT_S)) as session:
        try:
            served = await list_models(session, url)
        except AttemptError as error:
            raise ServerError(f"{url}: {_why_not_there(error, key)}") from error
    names = printable(", ".join(sorted(served))) or "nothing"
    if wanted is None and len(served) != 1:
        raise SettingsError(f"{url} serves {names}: name one of them with --model")
    name = next(iter(served)) if wanted is None else wanted
    if name not in served:
        raise SettingsError(f"--model={wanted}: {url} serves {names}{did_you_mean(name, served)}")
    root = served[name].get("root")
    return name, root if isinstance(root, str) else None


def _why_not_there(error: AttemptError, key: str | None) -> str:
    detail = error.detail.replace(key, "***") if key else error.detail
    told = printable(f"{error.kind}: {detail}"[:MAX_DETAIL_CHARS])
    if error.kind in ("http_401", "http_403"):
        return f"the API key is refused ({told}): name the variable that holds the right one with --api-key-env"
    if error.kind in ("connect", "disconnected", "timeout"):
        return f"nobody answers there ({told}): start the server, or correct host and port"
    return f"GET /models brings no list of models ({told}): most servers want a base URL that ends in /v1"
