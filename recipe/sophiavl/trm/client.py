"""The client of the thinking reward model: many scores at once, each a number in [0, 1] or missing with a reason.

A score is never invented: a server that fails, hangs or writes prose makes it missing, never 0. Nor is one given up
while its deadline has time and a server may come back: it waits for a server (`server.Server`), is sent, and where that
fails it waits again. Two things end it early: a reply that will not change, and a request that keeps failing on a
server which answers others.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp

from recipe.sophiavl.trm.cache import SharedComputations
from recipe.sophiavl.trm.client_settings import ClientSettings
from recipe.sophiavl.trm.images import BadImageError, ImageInput
from recipe.sophiavl.trm.prompt import clean_thinking, load_template
from recipe.sophiavl.trm.questions import Question, Questions, digest_of
from recipe.sophiavl.trm.reply import read_score
from recipe.sophiavl.trm.scale import REQUEST_FIELDS
from recipe.sophiavl.trm.server import Server, backoff_s, choose, rank
from recipe.sophiavl.trm.transport import AttemptError, Reply, get_models, post_chat
from recipe.sophiavl.validation import SettingsError

logger = logging.getLogger(__name__)

MAX_DETAIL_CHARS = 500


@dataclass(frozen=True)
class ThinkingScore:
    """A thinking score.

    Attributes:
        value: the score in [0, 1]; None where it is missing.
        error: why it is missing: "timeout", "connect", "disconnected", "http_<status>", "bad_reply", "unparsable",
            "no_mass", "no_logprobs", "bad_image", or "deadline" where its time was over before any server had answered
            or failed; None where there is a value.
        latency_s: seconds from the call to its result.
        attempts: HTTP requests sent for it.
        cached: it came from the cache, or from an identical score under way, and no request was sent.
        endpoint: base URL of the server that was asked last; None where none was.
        reply: the last reply's text, readable or not; None where there was none.
    """

    value: float | None
    error: str | None
    latency_s: float
    attempts: int = 0
    cached: bool = False
    endpoint: str | None = None
    reply: str | None = None


@dataclass
class _Progress:
    """What has happened to one score so far; complete at any moment, since the deadline may strike at any moment."""

    deadline: float
    value: float | None = None
    error: str | None = None
    attempts: int = 0
    endpoint: str | None = None
    reply: str | None = None
    retries: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    first_failed_at: dict[str, float] = field(default_factory=dict)

    def result(self, latency_s: float) -> ThinkingScore:
        error = (self.error or "deadline") if self.value is None else None
        return ThinkingScore(self.value, error, latency_s, self.attempts, endpoint=self.endpoint, reply=self.reply)


class ThinkingRewardClient:
    """Scores reasoning with a TRM behind OpenAI-compatible servers.

    It belongs to the event loop on which it is first used. Use it as an async context manager, or call `close`.

    Raises:
        ValueError: the environment variable that ``api_key_env`` names is not set, or no key.
        PromptError: the prompt file cannot be used.
        SettingsError: ``structured_output`` is still a wish (`structured_output.settle` finds out what it can be).
    """

    def __init__(self, config: ClientSettings) -> None:
        if config.structured_output not in REQUEST_FIELDS:
            raise SettingsError(
                f"thinking_reward.structured_output={config.structured_output!r}: what the servers can do is found out "
                "by the preflight; set thinking_reward.preflight=true, or choice (vLLM), json_schema or off here"
            )
        self.config = config
        self._template = load_template(config.prompt_path)
        self._key = read_api_key(config)
        self._head = request_head(config)
        self._scores: SharedComputations[ThinkingScore] = SharedComputations(
            config.cache_size, keep=lambda score: score.value is not None
        )
        self._questions = Questions(self._template)
        self._session: aiohttp.ClientSession | None = None
        self._servers: list[Server] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reported: set[str] = set()

    async def __aenter__(self) -> ThinkingRewardClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel what is under way and close all connections. A closed client opens again when it is used."""
        session, self._session, self._loop = self._session, None, None
        await self._scores.cancel()
        await self._questions.close()
        if session is not None:
            await session.close()

    async def score(self, question: str, images: Sequence[ImageInput], thinking: str) -> ThinkingScore:
        """Score the reasoning `thinking` about `question` and all its `images`.

        Returns within ``deadline_s``. A server's fault never raises: it is a missing score with its reason.

        Raises:
            TypeError: an argument is not of an accepted kind.
            RuntimeError: the client is in use on another event loop.
            asyncio.CancelledError: the client was closed meanwhile.
        """
        if not isinstance(question, str) or not isinstance(thinking, str):
            raise TypeError("question and thinking must be text")
        started = time.monotonic()
        deadline = started + self.config.deadline_s
        self._open()
        try:
            async with asyncio.timeout(self.config.deadline_s):
                identified = await self._questions.identify(question, images)
        except TimeoutError:
            return ThinkingScore(None, "deadline", time.monotonic() - started)
        except BadImageError as error:
            self._report("bad_image", str(error))
            return ThinkingScore(None, "bad_image", time.monotonic() - started)
        key = digest_of(self._template.digest, identified.key, thinking.encode("utf-8", "surrogatepass"))
        shared = key if self.config.cache_size else object()
        while True:
            score, fresh = await self._scores.get(shared, lambda: self._ask(identified, thinking, deadline))
            # One that it joined may have run out of its own time, which ends earlier.
            too_short = not fresh and score.value is None and score.latency_s >= self.config.deadline_s
            if not too_short or time.monotonic() >= deadline:
                break
        score = score if fresh else replace(score, attempts=0, cached=True)
        return replace(score, latency_s=time.monotonic() - started)

    async def ask(self, url: str, messages: bytes) -> Reply:
        """Send one request with these messages (a JSON array) to one server: a single attempt, for checks of a server.

        Raises:
            AttemptError: anything but a well-formed reply.
        """
        with self._key_hidden():
            return await post_chat(self._open(), url, self._head + messages + b"}")

    async def models(self, url: str) -> dict[str, int | None]:
        """What one server serves: names with their context lengths in tokens, where told.

        Raises:
            AttemptError: anything but a list of models.
        """
        with self._key_hidden():
            return await get_models(self._open(), url)

    def _open(self) -> aiohttp.ClientSession:
        loop, config = asyncio.get_running_loop(), self.config
        if self._session is None:
            headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),  # the servers' windows are the limit
                timeout=aiohttp.ClientTimeout(total=config.timeout_s, sock_connect=config.connect_timeout_s),
                headers=headers,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
            self._servers = [
                Server(
                    url,
                    limit=config.max_concurrency,
                    backoff_base_s=config.backoff_base_s,
                    backoff_max_s=config.backoff_max_s,
                    longest_rest_s=config.deadline_s,
                )
                for url in config.urls
            ]
            for server in self._servers:
                server.peers = [peer for peer in self._servers if peer is not server]
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError(
                "this ThinkingRewardClient is in use on another event loop: close it there, or make one each"
            )
        return self._session

    @contextmanager
    def _key_hidden(self) -> Iterator[None]:
        """Some servers quote a key that they refuse. Hidden before anything is cut, or its beginning would stay."""
        try:
            yield
        except AttemptError as error:
            detail = error.detail.replace(self._key, "***") if self._key else error.detail
            error.detail = detail[:MAX_DETAIL_CHARS]
            error.args = (error.kind, error.detail)
            raise

    async def _ask(self, question: Question, thinking: str, deadline: float) -> ThinkingScore:
        progress = _Progress(deadline)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await self._attempts(question, thinking, progress)
        except TimeoutError:
            pass  # the reason stands in `progress`
        except BadImageError as error:
            progress.error = "bad_image"
            self._report("bad_image", str(error))
        score = progress.result(time.monotonic() - deadline + self.config.deadline_s)
        if score.error is not None:
            self._report(f"missing: {score.error}", f"after {score.attempts} attempts, the last at {score.endpoint}")
        return score

    async def _attempts(self, question: Question, thinking: str, progress: _Progress) -> None:
        ranked = rank(self._servers, question.key)
        messages: bytes | None = None
        while True:
            server = choose(ranked, progress.failures)
            progress.error = progress.error or server.trouble
            if server.asked_to_rest and server.resting_until >= progress.deadline:
                return  # it said that it will not answer in time
            if not await server.enter():
                continue
            try:
                # Here and not earlier: the first requests leave before the last ones are prepared.
                messages = messages or await self._messages(question, thinking)
                settled = await self._attempt(messages, server, progress)
            finally:
                server.leave()
            if settled or progress.retries > self.config.max_retries:
                return
            if server.resting_until <= time.monotonic():
                failures = max(1, progress.failures.total())
                await asyncio.sleep(backoff_s(failures, self.config.backoff_base_s, self.config.backoff_max_s))

    async def _messages(self, question: Question, thinking: str) -> bytes:
        prompt = await self._questions.prepare(question)
        # In a thread: a long text must not hold up the loop that all requests under way share.
        cleaned = await asyncio.to_thread(clean_thinking, self._template, thinking, self.config.max_thinking_chars)
        return prompt.messages_json(cleaned)

    async def _attempt(self, messages: bytes, server: Server, progress: _Progress) -> bool:
        """One attempt; return whether the score is settled."""
        progress.endpoint = server.url
        progress.attempts += 1
        sent_at = time.monotonic()
        try:
            reply = await self.ask(server.url, messages)
        except AttemptError as error:
            self._note(error, server, sent_at, progress)
            return not error.retryable
        server.answered()
        progress.reply = reply.text
        progress.value, progress.error = read_score(reply, self.config)
        if progress.error is not None:
            self._report(progress.error, f"reply {reply.text[:200]!r} from {server.url}")
        progress.retries += 1
        # Asked again, a greedy model writes the same text again.
        return progress.value is not None or self.config.temperature == 0

    def _note(self, error: AttemptError, server: Server, sent_at: float, progress: _Progress) -> None:
        progress.error = error.kind
        progress.failures[server.url] += 1
        if error.retryable:
            first = progress.first_failed_at.setdefault(server.url, time.monotonic())
            # The server has answered others since it failed here first: it may be this request that it fails on.
            progress.retries += error.may_be_the_request and server.answered_at > first
            server.failed(error, sent_at)
        else:
            server.answered()
        self._report(error.kind, f"{error.detail} ({server.url})")

    def _report(self, kind: str, detail: str) -> None:
        """Log the first case of each kind as a warning, the others for debugging: the training metrics count them."""
        level = logging.DEBUG if kind in self._reported else logging.WARNING
        self._reported.add(kind)
        logger.log(level, "thinking reward: %s: %s", kind, detail)


def read_api_key(config: ClientSettings) -> str | None:
    """The API key, from the environment.

    Raises:
        ValueError: the variable is named but not set, or cannot be sent in a header.
    """
    if config.api_key_env is None:
        return None
    key = os.environ.get(config.api_key_env, "").strip()
    if not key.isprintable():
        raise ValueError(f"thinking_reward.api_key_env={config.api_key_env!r}: the key holds line breaks or the like")
    if not key:
        raise ValueError(
            f"thinking_reward.api_key_env={config.api_key_env!r}: this environment variable is not set; export it, or "
            "set thinking_reward.api_key_env=null for a server without a key"
        )
    return key


def request_head(config: ClientSettings) -> bytes:
    """The JSON of a request up to its messages; the messages and a brace complete it."""
    request: dict[str, Any] = {
        "model": config.model,
        "temperature": config.temperature,
        "max_tokens": config.max_tokens,
        **REQUEST_FIELDS[config.structured_output],
    }
    if config.score_mode == "expected":
        request |= {"logprobs": True, "top_logprobs": 20}
    return json.dumps(request)[:-1].encode() + b', "messages": '
