"""Asks the served TRM for many scores: bounded memory, bounded concurrency, and an early end where nothing comes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from tqdm import tqdm

from recipe.sophiavl.trm.client import ThinkingRewardClient, ThinkingScore
from recipe.sophiavl.trm_training.evaluate.rows import Floats

UNREADABLE = ("unparsable", "no_mass", "no_logprobs")
"""Reasons of a missing score that are the TRM's own: it replied, but its reply holds no score."""
NOT_TRANSPORT = (*UNREADABLE, "bad_image")
MAX_REPLY_CHARS = 4000
# Fewer failures than this say nothing about the server yet.
_ENOUGH_TO_JUDGE = 64
_FEED = 16


class ServerError(RuntimeError):
    """The server cannot be used; the message says how its requests failed and what to look at."""


@dataclass(frozen=True)
class Request:
    """One text to be scored. `key` is its place among the results; `images` are what `ThinkingRewardClient` takes."""

    key: int
    question: str
    images: Sequence[Any]
    thinking: str


@dataclass(frozen=True)
class Scored:
    """A score in [0, 1], or None with the reason (see `ThinkingScore.error`); `reply` is the TRM's text, if any."""

    value: float | None
    error: str | None
    reply: str | None


def values_of(scores: Sequence[Scored]) -> Floats:
    """The scores as an array, NaN where missing."""
    return np.array([np.nan if score.value is None else score.value for score in scores], dtype=np.float64)


async def score_all(
    client: ThinkingRewardClient, requests: Iterable[Request], total: int, label: str
) -> dict[int, Scored]:
    """Scores by the keys of the requests, of which hardly more than ``max_concurrency`` are in memory at once.

    Args:
        total: most requests that will come.
        label: what the progress bar calls them.

    Raises:
        ServerError: more than half of the requests failed because of the server or the way to it.
    """
    scores: dict[int, Scored] = {}
    failures: Counter[str] = Counter()
    pending: set[asyncio.Task[tuple[int, ThinkingScore]]] = set()
    with tqdm(total=total, desc=label, unit="score") as bar:

        async def settle(most: int) -> None:
            nonlocal pending
            while len(pending) > most:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    key, score = task.result()
                    scores[key] = Scored(score.value, score.error, _reply(score))
                    if score.error is not None and score.error not in NOT_TRANSPORT:
                        failures[score.error] += 1
                    bar.update()
                _judge(failures, bar.n, total, client)

        try:
            async for request in _fed(iter(requests)):
                await settle(client.config.max_concurrency - 1)
                pending.add(asyncio.create_task(_score(client, request)))
            await settle(0)
            bar.total = bar.n
            bar.refresh()
            _judge(failures, bar.n, bar.n, client)
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
    return scores


async def _score(client: ThinkingRewardClient, request: Request) -> tuple[int, ThinkingScore]:
    return request.key, await client.score(request.question, request.images, request.thinking)


async def _fed(requests: Iterator[Request]) -> AsyncIterator[Request]:
    """The requests, read from their file in a thread: requests under way go on meanwhile."""
    while batch := await asyncio.to_thread(lambda: list(islice(requests, _FEED))):
        for request in batch:
            yield request


def _reply(score: ThinkingScore) -> str | None:
    """The reply as text that every file can hold: JSON can bring half a surrogate pair."""
    if score.reply is None:
        return None
    return score.reply[:MAX_REPLY_CHARS].encode("utf-8", "replace").decode("utf-8")


def _judge(failures: Counter[str], done: int, total: int, client: ThinkingRewardClient) -> None:
    failed = failures.total()
    if done < min(_ENOUGH_TO_JUDGE, total) or 2 * failed <= done:
        return
    attempts = client.metrics()["attempt_failures"]
    raise ServerError(
        f"{failed} of the first {done} scores from {', '.join(client.config.urls)} failed: {_kinds(failures)}; HTTP "
        f"requests that failed: {_kinds(attempts)}. Look at the server's log, and try "
        "python -m recipe.sophiavl.trm.preflight with the same settings; a slow server wants a higher "
        "--timeout-s or a lower --max-concurrency"
    )


def _kinds(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{kind} ({count})" for kind, count in ordered) or "none"
