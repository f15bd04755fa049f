"""Settings of the thinking reward client, checked when they are made."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, HttpUrl, StringConstraints, TypeAdapter, ValidationError

from recipe.sophiavl.trm.scale import StructuredOutput
from recipe.sophiavl.validation import SettingsError, settings_group

ScoreMode = Literal["discrete", "expected"]

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, StringConstraints(pattern=r"\S")]

_HTTP_URL = TypeAdapter(HttpUrl)


def _base_url(url: str) -> str:
    advice = "give a base URL, up to and with /v1, such as http://localhost:8000/v1"
    try:
        parts = _HTTP_URL.validate_python(url.strip())
    except ValidationError as error:
        raise ValueError(f"{advice} ({error.errors()[0]['msg']})") from error
    if parts.username or parts.password:
        # Not with the value, as pydantic's own errors have it: it may hold a password.
        raise SettingsError(
            "thinking_reward.urls: a URL holds a user name or password; remove it and put the key in the environment "
            "variable that thinking_reward.api_key_env names"
        )
    if re.search(r"\s", url.strip()):  # which pydantic would write as %20
        raise ValueError(f"{advice}, without blanks in it; several are a list, [URL,URL]")
    if parts.query or parts.fragment or (parts.path or "").rstrip("/").endswith("/completions"):
        raise ValueError(f"{advice}, without more")
    return url.strip().rstrip("/")


def _listed(urls: Any) -> Any:
    """A list of URLs of one text, or of several, each of which may hold more than one with commas between them."""
    urls = [urls] if isinstance(urls, str) else urls
    if not isinstance(urls, list | tuple):
        return urls
    parts = [part for url in urls for part in (url.split(",") if isinstance(url, str) else [url])]
    return [part for part in parts if not (isinstance(part, str) and not part.strip())]


def _each_once(urls: tuple[str, ...]) -> tuple[str, ...]:
    # Not as a minimum length, which pydantic reports, with the whole list, when a URL in it is refused.
    if not urls:
        raise ValueError("give at least one base URL, such as http://localhost:8000/v1")
    if len(set(urls)) != len(urls):
        raise ValueError("name each endpoint once")
    return urls


BaseUrls = Annotated[
    tuple[Annotated[str, AfterValidator(_base_url)], ...],
    Field(strict=False),
    BeforeValidator(_listed),
    AfterValidator(_each_once),
]


@settings_group("thinking_reward")
class ClientSettings:
    """How to reach a thinking reward model (TRM) behind OpenAI-compatible servers, and how long to try.

    Attributes:
        urls: base URLs, such as ``http://host:8000/v1``; several are used with affinity per question and failover. One
            text is a list of one, and a comma parts several.
        model: the name under which the servers serve the TRM.
        api_key_env: name of the environment variable that holds the API key; None sends no key.
        max_concurrency: requests under way at once from this process, at each server.
        connect_timeout_s: limit for opening a connection, in seconds.
        timeout_s: limit for one attempt, from sending to the whole reply, in seconds.
        deadline_s: limit for one score: waiting, every attempt and every pause between them, in seconds.
        max_retries: further attempts for a request that fails on a server which answers others. A server that fails
            all is waited for until the deadline.
        backoff_base_s, backoff_max_s: the pause after n failures in a row, of a server or of a request, is at most
            min(max, base * 2**(n - 1)) seconds.
        temperature: sampling temperature; 0 is greedy, and then the same text gets the same score.
        max_tokens: most tokens of a reply.
        structured_output: hold replies to 0.0, 0.1 … 1.0 on the server: "choice", "json_schema" or "off"; "auto" and
            "on" have to be settled before a client takes the settings (`structured_output.settle`).
        score_mode: "discrete" reads the number in the reply, "expected" takes the probability-weighted one.
        expected_min_mass: "expected" only: least probability on readable values, in (0, 1]; less is a missing score.
        prompt_path: YAML file with the prompt; None is the package's own.
        max_thinking_chars: longest reasoning that is sent, in characters; the middle of a longer one is left out.
        cache_size: scores remembered, so that identical ones are asked for once; 0 is off.

    Raises:
        SettingsError: a setting is out of range; the message names it and says what to change.
    """

    urls: BaseUrls
    model: Name
    api_key_env: Name | None = None
    max_concurrency: Count = 128
    connect_timeout_s: Seconds = 5.0
    timeout_s: Seconds = 60.0
    deadline_s: Seconds = 180.0
    max_retries: Annotated[int, Field(ge=0)] = 5
    backoff_base_s: Seconds = 0.25
    backoff_max_s: Seconds = 2.0
    temperature: Annotated[float, Field(ge=0)] = 0.0
    max_tokens: Count = 16
    structured_output: StructuredOutput = "off"
    score_mode: ScoreMode = "discrete"
    expected_min_mass: Annotated[float, Field(gt=0, le=1)] = 0.5
    prompt_path: Name | None = None
    max_thinking_chars: Count = 16_000
    cache_size: Annotated[int, Field(ge=0)] = 20_000

    def __post_init__(self) -> None:
        if self.deadline_s <= self.timeout_s:
            raise SettingsError(
                f"thinking_reward.deadline_s={self.deadline_s!r}: raise it above thinking_reward.timeout_s="
                f"{self.timeout_s}, or lower that: a deadline no longer than one attempt would end attempts before "
                "their own limit shows that a server hangs"
            )
