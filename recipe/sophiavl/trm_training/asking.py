"""Asks a served model for many replies: the one loop under `annotate` and the evaluations.

What a command does with a reply (write it down, count it, give up) is the command's; how many requests are held and
under way, and what a stop leaves behind, is decided here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tqdm import tqdm

from recipe.sophiavl.trm.client import ThinkingRewardClient, ThinkingScore

UNREADABLE = ("unparsable", "no_mass", "no_logprobs")
"""Reasons of a missing score that are the model's own: it replied, but its reply holds no score."""
NOT_TRANSPORT = (*UNREADABLE, "bad_image")
"""Reasons that asking again does not cure, and that say nothing about the server or the way to it."""

Key = TypeVar("Key")
T = TypeVar("T")
Reply = TypeVar("Reply")


@dataclass(frozen=True)
class Request(Generic[Key]):
    """One text to be scored. `key` is the caller's; `images` are what `ThinkingRewardClient` takes."""

    key: Key
    question: str
    images: Sequence[Any]
    thinking: str


async def ask_all(
    client: ThinkingRewardClient,
    requests: Iterable[Request[Key]],
    take: Callable[[Request[Key], ThinkingScore], bool | None],
    *,
    bound: int,
    total: int,
    label: str,
) -> None:
    """Ask for every score; see `ask_each`."""

    async def ask(request: Request[Key]) -> ThinkingScore:
        return await client.score(request.question, request.images, request.thinking)

    await ask_each(ask, requests, take, bound=bound, total=total, label=label, unit="score")


async def ask_each(
    ask: Callable[[T], Awaitable[Reply]],
    requests: Iterable[T],
    take: Callable[[T, Reply], bool | None],
    *,
    bound: int,
    total: int,
    label: str,
    unit: str,
) -> None:
    """Ask for every request, with at most `bound` of them in memory, under way or about to be.

    However it ends (an error, Ctrl-C), nothing that it started goes on after it.

    Args:
        requests: none is None; read in a thread, one at a time and only when there is room; those under way go on
            meanwhile.
        take: gets each request with its reply the moment it arrives, in no order: nothing can come between a reply
            and this call, so that whoever kills the process finds a reply taken, or its request under way. Once it
            returns True, no further request is begun, and those under way are waited for. What it raises ends all.
        total: most requests that will come, for the progress bar.
        label, unit: what the progress bar calls them.
    """
    waiting = iter(requests)
    reading = asyncio.Lock()
    enough = False

    async def work(bar: tqdm) -> None:
        nonlocal enough
        while True:
            async with reading:
                request = None if enough else await asyncio.to_thread(next, waiting, None)
            if request is None or enough:
                return
            reply = await ask(request)
            # No await from here on: see `take`.
            enough = bool(take(request, reply)) or enough
            bar.update()

    with tqdm(total=total, desc=label, unit=unit) as bar:
        workers = [asyncio.create_task(work(bar)) for _ in range(min(bound, max(total, 1)))]
        try:
            await asyncio.gather(*workers)
            bar.total = bar.n
            bar.refresh()
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)


def storable_reply(score: ThinkingScore, most_chars: int) -> str | None:
    """The reply, cut, as text that every file can hold: JSON can bring half a surrogate pair."""
    if score.reply is None:
        return None
    return score.reply[:most_chars].encode("utf-8", "replace").decode("utf-8")


def kinds(counts: Mapping[str, int]) -> str:
    """Counts by kind in words, the most frequent first; "none" where there are none."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{kind} {count}" for kind, count in ordered) or "none"
