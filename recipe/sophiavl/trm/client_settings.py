"""Settings of the thinking reward client, checked when they are made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, get_args
from urllib.parse import urlsplit

StructuredOutput = Literal["auto", "on", "off"]
ScoreMode = Literal["discrete", "expected"]

_POSITIVE_INT = ("max_concurrency", "breaker_failures", "max_tokens", "max_thinking_chars")
_POSITIVE = ("connect_timeout_s", "timeout_s", "deadline_s", "breaker_reset_s")
_NOT_NEGATIVE = ("backoff_base_s", "backoff_max_s", "temperature")
_NOT_NEGATIVE_INT = ("max_retries", "cache_size")


def _setting(name: str, value: object, change: str) -> ValueError:
    return ValueError(f"thinking_reward.{name}={value!r}: {change}")


@dataclass(frozen=True)
class ClientConfig:
    """How to reach a thinking reward model (TRM) behind OpenAI-compatible servers, and how long to try.

    Attributes:
        urls: base URLs, such as ``http://host:8000/v1``; several are used with affinity per question and failover.
        model: the name under which the servers serve the TRM.
        api_key_env: name of the environment variable that holds the API key; None sends no key.
        max_concurrency: requests in flight from this process at once.
        connect_timeout_s: limit for opening a connection, in seconds.
        timeout_s: limit for one attempt, from sending to the whole reply, in seconds.
        deadline_s: limit for one score: queueing, every attempt and every pause between them, in seconds.
        max_retries: further attempts after the first.
        backoff_base_s, backoff_max_s: the pause before retry n is uniform in [0, min(max, base * 2**n)] seconds.
        breaker_failures: failures in a row after which an endpoint is left alone.
        breaker_reset_s: how long it is left alone before one probe is sent, in seconds.
        temperature: sampling temperature; 0 is greedy, and then the same text gets the same score.
        max_tokens: most tokens of a reply.
        structured_output: restrict replies to 0.0, 0.1 … 1.0 on the server. "auto" does so where the server can, "on"
            insists, "off" leaves the reply free.
        score_mode: "discrete" reads the number in the reply, "expected" takes the probability-weighted one.
        expected_min_mass: "expected" only: least probability on readable values, in (0, 1]; less is a missing score.
        prompt_path: YAML file with the prompt; None is the package's own.
        max_thinking_chars: longest reasoning that is sent, in characters; the middle of a longer one is left out.
        cache_size: scores remembered, so that identical ones are asked for once; 0 is off.

    Raises:
        ValueError: a setting is out of range; the message names it and says what to change.
    """

    urls: Sequence[str]
    model: str
    api_key_env: str | None = None
    max_concurrency: int = 128
    connect_timeout_s: float = 5.0
    timeout_s: float = 60.0
    deadline_s: float = 180.0
    max_retries: int = 3
    backoff_base_s: float = 0.5
    backoff_max_s: float = 8.0
    breaker_failures: int = 16
    breaker_reset_s: float = 10.0
    temperature: float = 0.0
    max_tokens: int = 16
    structured_output: StructuredOutput = "auto"
    score_mode: ScoreMode = "discrete"
    expected_min_mass: float = 0.5
    prompt_path: str | None = None
    max_thinking_chars: int = 16_000
    cache_size: int = 100_000

    def __post_init__(self) -> None:
        object.__setattr__(self, "urls", _checked_urls(self.urls))
        if not isinstance(self.model, str) or not self.model.strip():
            raise _setting("model", self.model, "set the name under which the server at thinking_reward.urls serves it")
        for name in ("api_key_env", "prompt_path"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value.strip()):
                raise _setting(name, value, "give a name, or null for none")
        self._check_numbers()
        for name, kind in (("structured_output", StructuredOutput), ("score_mode", ScoreMode)):
            if getattr(self, name) not in get_args(kind):
                raise _setting(name, getattr(self, name), f"use one of {', '.join(get_args(kind))}")
        if self.deadline_s <= self.timeout_s:
            raise _setting(
                "deadline_s",
                self.deadline_s,
                f"raise it above thinking_reward.timeout_s={self.timeout_s}, or lower that: a deadline no longer than "
                "one attempt would end attempts before their own limit shows that a server hangs",
            )

    def _check_numbers(self) -> None:
        for name in (*_POSITIVE_INT, *_POSITIVE, *_NOT_NEGATIVE, *_NOT_NEGATIVE_INT, "expected_min_mass"):
            value = getattr(self, name)
            whole = name in _POSITIVE_INT or name in _NOT_NEGATIVE_INT
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                raise _setting(name, value, "give a whole number" if whole else "give a number")
            if not math.isfinite(value):
                raise _setting(name, value, "give a finite number")
            if name in (*_POSITIVE_INT, *_POSITIVE) and value <= 0:
                raise _setting(name, value, "give a number above 0")
            if value < 0:
                raise _setting(name, value, "give 0 or more")
        if not 0 < self.expected_min_mass <= 1:
            raise _setting("expected_min_mass", self.expected_min_mass, "give a probability above 0 and at most 1")

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of all settings."""
        return tuple(field.name for field in fields(cls))


def _checked_urls(urls: Sequence[str] | str) -> tuple[str, ...]:
    given = (urls,) if isinstance(urls, str) else tuple(urls or ())
    if not given:
        raise _setting("urls", urls, "give at least one base URL, such as http://localhost:8000/v1")
    checked: list[str] = []
    for url in given:
        if not isinstance(url, str):
            raise _setting("urls", url, "give URLs as text, such as http://localhost:8000/v1")
        checked.append(_checked_url(url))
    if len(set(checked)) != len(checked):
        raise _setting("urls", list(given), "name each endpoint once")
    return tuple(checked)


def _checked_url(url: str) -> str:
    stripped = url.strip().rstrip("/")
    try:
        parts = urlsplit(stripped)
    except ValueError as error:
        raise _setting("urls", url, f"give a base URL, such as http://localhost:8000/v1 ({error})") from error
    if "@" in parts.netloc:
        # The value is left out: it may hold a password.
        raise ValueError(
            "thinking_reward.urls: a URL holds a user name or password; remove it and put the key in the "
            "environment variable that thinking_reward.api_key_env names"
        )
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("http", "https") or not parts.hostname or port == -1 or any(c.isspace() for c in stripped):
        raise _setting("urls", url, "give a base URL, such as http://localhost:8000/v1")
    if parts.query or parts.fragment or parts.path.endswith(("/chat/completions", "/completions")):
        raise _setting("urls", url, "give the base URL only, up to and with /v1")
    return stripped
