"""The client of the thinking reward model: many scores at once, each a number in [0, 1] or missing with a reason.

A score is never invented: a server that fails, hangs or writes prose makes it missing, never 0.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp

from recipe.sophiavl.trm import endpoint as endpoints_of
from recipe.sophiavl.trm.breaker import CircuitBreaker, Permit
from recipe.sophiavl.trm.cache import LruCache, SharedComputations
from recipe.sophiavl.trm.client_settings import ClientSettings
from recipe.sophiavl.trm.endpoint import Endpoint
from recipe.sophiavl.trm.images import BadImageError, ImageInput
from recipe.sophiavl.trm.metrics import ClientMetrics
from recipe.sophiavl.trm.prompt import clean_thinking, load_template
from recipe.sophiavl.trm.questions import Question, Questions, digest_of
from recipe.sophiavl.trm.reply import read_score
from recipe.sophiavl.trm.retry import backoff_s
from recipe.sophiavl.trm.scale import RESTRICTIONS, Restriction, is_refusal, restriction_fields
from recipe.sophiavl.trm.transport import AttemptError, Reply, post_chat

# As aiohttp has it: part of asyncio since Python 3.11, a package of its own, which aiohttp installs, before.
if sys.version_info >= (3, 11):
    import asyncio as async_timeout
else:
    import async_timeout

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ThinkingScore:
    """A thinking score.

    Attributes:
        value: the score in [0, 1]; None where it is missing.
        error: why it is missing: "timeout", "connect", "http_<status>", "bad_reply", "unparsable", "no_mass",
            "no_logprobs", "breaker_open", "deadline" or "bad_image"; None where there is a value.
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
    failed: dict[str, int] = field(default_factory=dict)
    not_before: dict[str, float] = field(default_factory=dict)

    def result(self) -> ThinkingScore:
        error = self.error if self.value is None else None
        return ThinkingScore(self.value, error, 0.0, self.attempts, endpoint=self.endpoint, reply=self.reply)


class ThinkingRewardClient:
    """Scores reasoning with a TRM behind OpenAI-compatible servers.

    It belongs to the event loop on which it is first used. Use it as an async context manager, or call `close`.

    Raises:
        ValueError: the environment variable that ``api_key_env`` names is not set.
        PromptError: the prompt file cannot be used.
    """

    def __init__(self, config: ClientSettings) -> None:
        self.config = config
        self._template = load_template(config.prompt_path)
        self._key = read_api_key(config)
        self._endpoints = [
            Endpoint(
                url,
                CircuitBreaker(config.breaker_failures, config.breaker_reset_s),
                "free" if config.structured_output == "off" else "choice",
                may_be_free=config.structured_output == "auto",
            )
            for url in config.urls
        ]
        self._metrics = ClientMetrics()
        self._scores: SharedComputations[ThinkingScore] = SharedComputations(
            LruCache(config.cache_size), keep=lambda score: score.value is not None
        )
        self._questions = Questions(self._template)
        self._heads = request_heads(config)
        self._session: aiohttp.ClientSession | None = None
        self._slots: asyncio.Semaphore | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reported: set[str] = set()

    async def __aenter__(self) -> ThinkingRewardClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel what is under way and close all connections. A closed client opens again when it is used."""
        await self._scores.cancel()
        await self._questions.close()
        if self._session is not None:
            await self._session.close()
        self._session = self._slots = self._loop = None

    def metrics(self) -> dict[str, Any]:
        """Counts since the start (see `ClientMetrics`) and the state of each endpoint's circuit breaker."""
        return {
            **self._metrics.snapshot(),
            "breakers": {endpoint.url: endpoint.breaker.state for endpoint in self._endpoints},
        }

    async def score(self, question: str, images: Sequence[ImageInput], thinking: str) -> ThinkingScore:
        """Score the reasoning `thinking` about `question` and all its `images`.

        Returns within ``deadline_s``. A server's fault never raises: it is a missing score with its reason.

        Raises:
            TypeError: an argument is not of an accepted kind.
            RuntimeError: the client is in use on another event loop.
        """
        if not isinstance(question, str) or not isinstance(thinking, str):
            raise TypeError("question and thinking must be text")
        started = time.monotonic()
        score: ThinkingScore | None = None
        self._metrics.start()
        try:
            score = await self._score(question, images, thinking, started + self.config.deadline_s)
            score = replace(score, latency_s=time.monotonic() - started)
            return score
        finally:
            error = "aborted" if score is None else score.error
            asked = score is not None and score.attempts > 0
            self._metrics.finish(error, time.monotonic() - started, asked=asked)

    async def _score(
        self, question: str, images: Sequence[ImageInput], thinking: str, deadline: float
    ) -> ThinkingScore:
        self._open()
        try:
            identified = await self._questions.identify(question, images)
        except BadImageError as error:
            self._report("bad_image", str(error))
            return ThinkingScore(None, "bad_image", 0.0)

        async def ask() -> ThinkingScore:
            return await self._ask(identified, thinking, deadline)

        if not self.config.cache_size:
            return await ask()
        score_key = digest_of(self._template.digest, identified.key, thinking.encode("utf-8", "surrogatepass"))
        score, source = await self._scores.get(score_key, ask)
        if source == "computed":
            return score
        if source == "cached":
            self._metrics.cache_hits += 1
        else:
            self._metrics.joined += 1
        return replace(score, attempts=0, cached=True)

    def _open(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self.config.max_concurrency),
                timeout=aiohttp.ClientTimeout(total=self.config.timeout_s, sock_connect=self.config.connect_timeout_s),
                headers=headers,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
            self._slots = asyncio.Semaphore(self.config.max_concurrency)
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError(
                "this ThinkingRewardClient is in use on another event loop: close it there, or make one each"
            )

    async def _ask(self, question: Question, thinking: str, deadline: float) -> ThinkingScore:
        progress = _Progress(deadline)
        try:
            async with async_timeout.timeout(deadline - time.monotonic()):
                await self._attempts(question, thinking, progress)
        except asyncio.TimeoutError:
            progress.error = "deadline"
        except BadImageError as error:
            progress.error = "bad_image"
            self._report("bad_image", str(error))
        if progress.value is None:
            self._report(str(progress.error), f"after {progress.attempts} attempts at {progress.endpoint}")
        return progress.result()

    async def _attempts(self, question: Question, thinking: str, progress: _Progress) -> None:
        ranked = endpoints_of.rank(self._endpoints, question.key)
        messages: bytes | None = None
        for retry in range(self.config.max_retries + 1):
            if retry and not await self._pause(retry - 1, ranked, progress):
                return
            await endpoints_of.wait_for_probe(ranked)
            assert self._slots is not None
            async with self._slots:
                # Here and not earlier: the first requests leave before the last ones are prepared.
                messages = messages or await self._messages(question, thinking)
                leave = endpoints_of.acquire(ranked, progress.failed)
                if leave is None:
                    progress.error = "breaker_open"
                    continue
                done = await self._attempt(messages, *leave, progress)
            if done:
                return

    async def _messages(self, question: Question, thinking: str) -> bytes:
        prompt = await self._questions.prepare(question)
        # In a thread: a long text must not hold up the loop that all requests under way share.
        cleaned = await asyncio.to_thread(clean_thinking, self._template, thinking, self.config.max_thinking_chars)
        return prompt.messages_json(cleaned)

    async def _pause(self, retry: int, ranked: Sequence[Endpoint], progress: _Progress) -> bool:
        """Wait before a retry; False, at once, where the wait would outlast the deadline."""
        now = time.monotonic()
        pause = backoff_s(retry, self.config.backoff_base_s, self.config.backoff_max_s)
        following = endpoints_of.choose(ranked, progress.failed)
        if following is not None:
            pause = max(pause, progress.not_before.get(following.url, now) - now)
        if now + pause >= progress.deadline:
            return False
        self._metrics.retries += 1
        await asyncio.sleep(pause)
        return True

    async def _attempt(self, messages: bytes, endpoint: Endpoint, permit: Permit, progress: _Progress) -> bool:
        """One attempt, or two where the server refuses a restriction; return whether the score is settled."""
        progress.endpoint = endpoint.url
        try:
            restriction, reply = await self._send(messages, endpoint, progress)
        except AttemptError as error:
            permit.failure() if error.server_fault else permit.success()
            self._note(error, endpoint, progress)
            return not error.retryable
        except BaseException:
            permit.release()
            raise
        permit.success()
        progress.reply = reply.text
        progress.value, progress.error = read_score(reply, self.config, restricted=restriction != "free")
        if progress.error is not None:
            self._metrics.attempt_failures[progress.error] += 1
            self._report(progress.error, f"reply {reply.text[:200]!r} from {endpoint.url}")
        # Asked again, a greedy model writes the same text again.
        return progress.value is not None or self.config.temperature == 0

    async def _send(self, messages: bytes, endpoint: Endpoint, progress: _Progress) -> tuple[Restriction, Reply]:
        assert self._session is not None
        while True:
            restriction = endpoint.restriction
            progress.attempts += 1
            self._metrics.attempts += 1
            body = b"".join((self._heads[restriction], messages, b"}"))
            try:
                return restriction, await post_chat(self._session, endpoint.url, body)
            except AttemptError as error:
                refused = restriction != "free" and is_refusal(error.kind, error.detail)
                if not (refused and endpoint.refused(restriction)):
                    raise

    def _note(self, error: AttemptError, endpoint: Endpoint, progress: _Progress) -> None:
        progress.error = error.kind
        progress.failed[endpoint.url] = progress.failed.get(endpoint.url, 0) + 1
        if error.retry_after_s is not None:
            progress.not_before[endpoint.url] = time.monotonic() + error.retry_after_s
        self._metrics.attempt_failures[error.kind] += 1
        self._report(error.kind, f"{error.detail} ({endpoint.url})")

    def _report(self, kind: str, detail: str) -> None:
        """Log the first case of each kind as a warning, the others for debugging: the metrics count them all."""
        level = logging.DEBUG if kind in self._reported else logging.WARNING
        self._reported.add(kind)
        if self._key:
            detail = detail.replace(self._key, "***")  # some servers quote a key that they refuse
        logger.log(level, "thinking reward: %s: %s", kind, detail)


def read_api_key(config: ClientSettings) -> str | None:
    """The API key, from the environment.

    Raises:
        ValueError: the variable is named but not set.
    """
    if config.api_key_env is None:
        return None
    key = os.environ.get(config.api_key_env)
    if not key:
        raise ValueError(
            f"thinking_reward.api_key_env={config.api_key_env!r}: this environment variable is not set; export it, or "
            "set thinking_reward.api_key_env=null for a server without a key"
        )
    return key


def request_heads(config: ClientSettings) -> dict[Restriction, bytes]:
    """For each restriction, the JSON of a request up to its messages; the messages and a brace complete it."""
    shared: dict[str, Any] = {
        "model": config.model,
        "temperature": config.temperature,
        "max_tokens": config.max_tokens,
    }
    if config.score_mode == "expected":
        shared |= {"logprobs": True, "top_logprobs": 20}
    return {
        restriction: json.dumps({**shared, **restriction_fields(restriction)})[:-1].encode() + b', "messages": '
        for restriction in RESTRICTIONS
    }
