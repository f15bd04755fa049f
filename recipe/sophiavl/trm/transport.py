"""One HTTP attempt: send a chat request, return the reply or say how the attempt failed."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp

# Kinds of failure by which a server says, or shows, that it has too much to do; and those of one that is not there.
_OVERLOAD = ("timeout", "http_408", "http_429", "http_503", "http_504")
_ABSENT = ("connect", "http_502")
MAX_REPLY_BYTES = 4 * 2**20


class AttemptError(Exception):
    """One attempt failed.

    Attributes:
        kind: "connect" (nobody there), "disconnected" (gone before its whole reply), "timeout", "bad_reply" or
            "http_<status>".
        detail: what happened, for people.
        retryable: whether another attempt may succeed. A server that refuses a request is well, and will do so again.
        retry_after_s: how long the server asked to wait, in seconds.
    """

    def __init__(self, kind: str, detail: str, *, retryable: bool = True, retry_after_s: float | None = None) -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail
        self.retryable = retryable
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"

    @property
    def is_overload(self) -> bool:
        """Whether the server has too much to do."""
        return self.kind in _OVERLOAD

    @property
    def may_be_the_request(self) -> bool:
        """Whether the request itself may be what the server fails on, as far as the kind of failure tells."""
        return self.kind not in (*_OVERLOAD, *_ABSENT)


@dataclass(frozen=True)
class TokenChoice:
    """A generated token, its log-probability, and the likeliest tokens at its position."""

    text: str
    logprob: float
    alternatives: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Reply:
    """What the model wrote.

    Attributes:
        text: without what the server parted from it as `reasoning`.
        cut: whether it ended at the limit of tokens.
        tokens: None where the server returned no log-probabilities.
        reasoning: what a server with a reasoning parser takes for the thinking; None where it has none.
    """

    text: str
    cut: bool
    tokens: tuple[TokenChoice, ...] | None
    usage: dict[str, Any]
    reasoning: str | None = None


async def post_chat(session: aiohttp.ClientSession, url: str, body: bytes) -> Reply:
    """Send a chat completion request to the base URL `url`.

    Raises:
        AttemptError: anything but a well-formed reply.
    """
    headers = {"Content-Type": "application/json"}
    return parse_reply(await _request(session, "POST", f"{url}/chat/completions", data=body, headers=headers))


async def get_models(session: aiohttp.ClientSession, url: str) -> dict[str, int | None]:
    """The models that the server at the base URL `url` serves, with their context lengths in tokens, where told.

    Raises:
        AttemptError: anything but a list of models.
    """
    return {name: entry.get("max_model_len") for name, entry in (await list_models(session, url)).items()}


async def list_models(session: aiohttp.ClientSession, url: str) -> dict[str, dict[str, Any]]:
    """What the server at the base URL `url` says of each model that it serves, by name.

    Raises:
        AttemptError: anything but a list of models.
    """
    raw = await _request(session, "GET", f"{url}/models")
    try:
        return {str(entry["id"]): dict(entry) for entry in json.loads(raw)["data"]}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AttemptError("bad_reply", f"no list of models ({type(error).__name__}: {error})") from error


async def _request(session: aiohttp.ClientSession, method: str, url: str, **content: Any) -> bytes:
    """The body of a JSON reply, whole within the session's total timeout."""
    limits = session.timeout
    # aiohttp keeps its total timeout in two nested contexts, each of which takes a cancellation back: where a caller's
    # own time runs out in the same turn of the loop, the caller's is lost (aiohttp 3.14).
    content["timeout"] = aiohttp.ClientTimeout(total=None, sock_connect=limits.sock_connect)
    try:
        async with (
            asyncio.timeout(limits.total),
            session.request(method, url, allow_redirects=False, **content) as response,
        ):
            raw = await _read(response)
            if response.status != 200:
                raise _status_error(response, raw)
            if "json" not in response.content_type:
                raise AttemptError("bad_reply", f"content type {response.content_type!r} instead of JSON")
            return raw
    except aiohttp.ConnectionTimeoutError as error:
        raise AttemptError("connect", "no connection within connect_timeout_s") from error
    except TimeoutError as error:
        raise AttemptError("timeout", "no whole reply within timeout_s") from error
    except aiohttp.ClientPayloadError as error:
        raise AttemptError("bad_reply", f"reply broke off: {error}") from error
    except aiohttp.ClientConnectorError as error:
        raise AttemptError("connect", f"{type(error).__name__}: {error}") from error
    except aiohttp.ClientConnectionError as error:
        raise AttemptError("disconnected", f"{type(error).__name__}: {error}") from error
    except aiohttp.ClientError as error:
        raise AttemptError("bad_reply", f"{type(error).__name__}: {error}") from error


async def _read(response: aiohttp.ClientResponse) -> bytes:
    pieces: list[bytes] = []
    size = 0
    async for piece in response.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > MAX_REPLY_BYTES:
            raise AttemptError("bad_reply", f"reply longer than {MAX_REPLY_BYTES} bytes")
    return b"".join(pieces)


def _status_error(response: aiohttp.ClientResponse, raw: bytes) -> AttemptError:
    status = response.status
    return AttemptError(
        f"http_{status}",
        _error_message(raw),
        retryable=status in (408, 429) or (status >= 500 and status != 501),
        retry_after_s=retry_after_s(response.headers.get("Retry-After")),
    )


def retry_after_s(header: str | None, now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After header, in seconds or as an HTTP date, asks to wait; None where it says nothing."""
    if header is None:
        return None
    try:
        seconds = float(header.strip())
        return max(0.0, seconds) if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(header.strip())
    except (ValueError, TypeError, OverflowError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())


def _error_message(raw: bytes) -> str:
    """The message of an OpenAI-style error body, or the body itself."""
    try:
        return str(json.loads(raw)["error"]["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return raw.decode("utf-8", errors="replace")


def parse_reply(raw: bytes) -> Reply:
    """Read a chat completion.

    Raises:
        AttemptError: "bad_reply" where it is no JSON or has not the shape of a chat completion.
    """
    try:
        data = json.loads(raw)
        choice = data["choices"][0]
        message = choice["message"]
        content, reasoning = message["content"], message.get("reasoning") or message.get("reasoning_content")
        if not all(text is None or isinstance(text, str) for text in (content, reasoning)):
            raise TypeError("content is no text")
        usage = data.get("usage")
        return Reply(
            text=content or "",
            cut=choice.get("finish_reason") == "length",
            tokens=_tokens(choice.get("logprobs")),
            usage=usage if isinstance(usage, dict) else {},
            reasoning=reasoning,
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise AttemptError("bad_reply", f"no chat completion ({type(error).__name__}: {error})") from error


def _tokens(logprobs: Any) -> tuple[TokenChoice, ...] | None:
    """The generated tokens; None where there are none, or a number among them is no log-probability."""
    if not logprobs or not logprobs.get("content"):
        return None
    content = logprobs["content"]
    numbers = [entry["logprob"] for token in content for entry in (token, *token["top_logprobs"])]
    if not all(map(_is_log_probability, numbers)):
        return None
    return tuple(
        TokenChoice(
            text=str(token["token"]),
            logprob=min(0.0, token["logprob"]),
            alternatives=tuple((str(other["token"]), min(0.0, other["logprob"])) for other in token["top_logprobs"]),
        )
        for token in content
    )


def _is_log_probability(value: Any) -> bool:
    """Finite and not above 0, but for rounding: the sum of a softmax may exceed 1 in its last bits."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and -sys.float_info.max <= value <= 1e-4  # math.isfinite raises for large integers
