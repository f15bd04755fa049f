"""Asks a served model for many scores, and ends early where the server cannot be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from recipe.sophiavl.trm.client import ThinkingRewardClient, ThinkingScore
from recipe.sophiavl.trm.client_settings import ClientSettings
from recipe.sophiavl.trm.structured_output import settle
from recipe.sophiavl.trm.transport import AttemptError
from recipe.sophiavl.trm_training.asking import NOT_TRANSPORT, Request, ask_all, kinds, storable_reply
from recipe.sophiavl.trm_training.evaluate.statistics import Floats

MAX_REPLY_CHARS = 4000
# Fewer failures than this say nothing about the server yet.
_ENOUGH_TO_JUDGE = 64
_NOT_THERE = ("connect", "disconnected", "timeout")
_ADVICE = (
    "Look at the server's log, and try python -m recipe.sophiavl.trm.preflight with the same settings; a slow server "
    "wants a higher --timeout-s or a lower --max-concurrency"
)


class ServerError(ConnectionError):
    """The server cannot be used; the message says how its requests failed and what to look at."""


@dataclass(frozen=True)
class Scored:
    """A score in [0, 1], or None with the reason (see `ThinkingScore.error`); `reply` is the model's text, if any."""

    value: float | None
    error: str | None
    reply: str | None


def values_of(scores: Sequence[Scored]) -> Floats:
    """The scores as an array, NaN where missing."""
    return np.array([np.nan if score.value is None else score.value for score in scores], dtype=np.float64)


async def settled(config: ClientSettings) -> ClientSettings:
    """The settings with the structured output that the servers have; finds a server that is not there at once.

    Raises:
        ServerError: a server is not there, or fails.
        SettingsError: a structured output that is insisted on is not enforced.
    """
    try:
        async with ThinkingRewardClient(replace(config, structured_output="off")) as client:
            for url in config.urls:
                try:
                    await client.models(url)
                except AttemptError as error:
                    # Whatever else it answers, it is there: not every server lists its models.
                    if error.kind in _NOT_THERE:
                        raise
        return await settle(config)
    except AttemptError as error:
        raise ServerError(f"{', '.join(config.urls)}: {error}. {_ADVICE}") from error


async def score_all(
    client: ThinkingRewardClient, requests: Iterable[Request[int]], total: int, label: str
) -> dict[int, Scored]:
    """Scores by the keys of the requests, of which no more than ``max_concurrency`` are in memory at once.

    Args:
        total: most requests that will come.
        label: what the progress bar calls them.

    Raises:
        ServerError: more than half of the requests failed because of the server or the way to it.
    """
    scores: dict[int, Scored] = {}
    failures: Counter[str] = Counter()

    def take(request: Request[int], score: ThinkingScore) -> None:
        scores[request.key] = Scored(score.value, score.error, storable_reply(score, MAX_REPLY_CHARS))
        if score.error is not None and score.error not in NOT_TRANSPORT:
            failures[score.error] += 1
        _judge(failures, len(scores), total, client)

    await ask_all(client, requests, take, bound=client.config.max_concurrency, total=total, label=label)
    _judge(failures, len(scores), len(scores), client)
    return scores


def _judge(failures: Counter[str], done: int, total: int, client: ThinkingRewardClient) -> None:
    failed = failures.total()
    if done < min(_ENOUGH_TO_JUDGE, total) or 2 * failed <= done:
        return
    raise ServerError(
        f"{failed} of the first {done} scores from {', '.join(client.config.urls)} failed: {kinds(failures)}. {_ADVICE}"
    )
