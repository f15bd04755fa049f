"""Check a thinking reward model before a run depends on it; every failed check says what to change.

python -m recipe.sophiavl.trm.preflight --url http://localhost:8000/v1 --model my-trm
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recipe.sophiavl.trm.arguments import add_client_arguments, client_settings
from recipe.sophiavl.trm.client import ThinkingRewardClient
from recipe.sophiavl.trm.client_settings import ClientSettings
from recipe.sophiavl.trm.images import data_url, digest_image
from recipe.sophiavl.trm.prompt import PromptError, clean_thinking, load_template, prepare_prompt
from recipe.sophiavl.trm.structured_output import NotEnforcedError, settle
from recipe.sophiavl.trm.transport import AttemptError
from recipe.sophiavl.validation import did_you_mean

QUESTION = "How many dark squares does the image show, and do they touch each other?"
REASONING = "The image shows one dark square on a light ground. A single square touches no other, so the answer is one."
SAMPLE_QUESTION_CHARS = 1000
SAMPLE_IMAGE_SIDE = 512
# Two expected scores of one text may differ by rounding, since servers batch requests differently each time.
EXPECTED_TOLERANCE = 0.02
_WORDS = (
    "so",
    "the",
    "first",
    "angle",
    "equals",
    "its",
    "because",
    "lines",
    "meet",
    "here",
    "while",
    "sum",
    "half",
    "of",
)
_REFUSED_KEY = ("http_401", "http_403")
_TWO_SCORES = "two scores agree"


@dataclass(frozen=True)
class Check:
    """One check of one endpoint. `fix` says what to change; it is empty where the check passed."""

    endpoint: str
    name: str
    ok: bool
    detail: str
    fix: str = ""


class PreflightError(RuntimeError):
    """The thinking reward model is not fit for a run; the message holds every failed check."""

    def __init__(self, failed: Sequence[Check]) -> None:
        lines = [f"- {check.name} ({check.endpoint}): {check.detail}\n  {check.fix}" for check in failed]
        super().__init__("thinking reward model failed its preflight:\n" + "\n".join(lines))
        self.failed = tuple(failed)

    def __reduce__(self) -> tuple[type, tuple]:
        return type(self), (self.failed,)  # else another process would make one of the message


@dataclass(frozen=True)
class Preflight:
    """What the preflight found: the checks, and the settings that a run should use (``structured_output`` settled)."""

    checks: tuple[Check, ...]
    settings: ClientSettings

    @property
    def failed(self) -> list[Check]:
        """The checks that failed."""
        return [check for check in self.checks if not check.ok]

    def lines(self) -> list[str]:
        """What was found, a line for each server that passed all checks."""
        how = f"model {self.settings.model}, structured output {self.settings.structured_output}"
        return [
            f"Thinking reward model at {check.endpoint}: {how}, one text scored twice: {check.detail}"
            for check in self.checks
            if check.name == _TWO_SCORES and check.ok
        ]


async def preflight(config: ClientSettings) -> Preflight:
    """Check every endpoint. A check that makes the later ones pointless ends that endpoint's list.

    Raises:
        ValueError: the API key's environment variable is not set, or the prompt file cannot be used.
    """
    checks: list[Check] = []
    free = replace(config, structured_output="off")
    async with ThinkingRewardClient(free) as client:
        for url in config.urls:
            checks.extend(await _Endpoint(config, client, url).check())
    if all(check.ok for check in checks):
        config, check = await _structured_output(config)
        checks.append(check)
    if checks[-1].ok:
        for url in config.urls:
            checks.append(await _repeatable(replace(config, urls=(url,), cache_size=0)))
    return Preflight(tuple(checks), config)


def run_preflight(config: ClientSettings) -> ClientSettings:
    """Check every endpoint, from code that is not asynchronous, and print a line about each.

    Returns:
        The settings that a run should use, ``structured_output`` settled.

    Raises:
        PreflightError: a check failed.
        ValueError: as `preflight`.
    """
    # A thread of its own: the caller's may have an event loop running already.
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(asyncio.run, preflight(config)).result()
    if found.failed:
        raise PreflightError(found.failed)
    print(*found.lines(), sep="\n", flush=True)
    return found.settings


class _Endpoint:
    """The checks of one endpoint that go through single requests, in order."""

    def __init__(self, config: ClientSettings, client: ThinkingRewardClient, url: str) -> None:
        self._config = config
        self._client = client
        self._url = url
        self._template = load_template(config.prompt_path)
        self._context: int | None = None

    async def check(self) -> list[Check]:
        steps: tuple[Callable[[], Awaitable[list[Check]]], ...] = (self._models, self._image, self._context_length)
        checks: list[Check] = []
        for step in steps:
            checks.extend(await step())
            if not checks[-1].ok:
                break
        return checks

    def _passed(self, name: str, detail: str) -> Check:
        return Check(self._url, name, True, printable(detail))

    def _failed(self, name: str, detail: str, fix: str) -> Check:
        return Check(self._url, name, False, printable(" ".join(detail.split())[:400]), fix)

    async def _models(self) -> list[Check]:
        setting = f"thinking_reward.urls holds {self._url}"
        try:
            served = await self._client.models(self._url)
        except AttemptError as error:
            if error.kind in _REFUSED_KEY:
                return [self._passed("reachable", "answers"), self._key_refused(error.kind)]
            if error.kind in ("connect", "disconnected", "timeout"):
                fix = f"{setting}: start the server, or correct host and port"
            else:
                fix = f"{setting}: correct the port or the path; most servers want it to end in /v1"
            return [self._failed("reachable", f"GET {self._url}/models: {error}", fix)]
        checks = [
            self._passed("reachable", "answers"),
            self._passed("key accepted", "yes" if self._config.api_key_env else "none sent"),
        ]
        if self._config.model not in served:
            return [*checks, self._other_model(sorted(served))]
        self._context = served[self._config.model]
        return [*checks, self._passed("model served", self._config.model)]

    def _other_model(self, served: Sequence[str]) -> Check:
        wanted = self._config.model
        fix = f"thinking_reward.model={wanted!r}: serve it under that name"
        if served:
            name = f"={served[0]}" if len(served) == 1 else f" to one of these{did_you_mean(wanted, served)}"
            fix = f"set thinking_reward.model{name} (now {wanted!r}), or serve it under that name"
        return self._failed("model served", f"the server serves {', '.join(served) or 'nothing'}", printable(fix))

    def _key_refused(self, detail: str) -> Check:
        named = self._config.api_key_env
        fix = (
            f"the key in the variable that thinking_reward.api_key_env={named!r} names is refused: export the right one"
            if named
            else "set thinking_reward.api_key_env=null to the name of the environment variable with the server's key"
        )
        return self._failed("key accepted", detail, fix)

    async def _image(self) -> list[Check]:
        prompt = prepare_prompt(self._template, QUESTION, [data_url(digest_image(sample_image(64)))])
        try:
            reply = await self._client.ask(self._url, prompt.messages_json(REASONING))
        except AttemptError as error:
            if error.kind in _REFUSED_KEY:
                return [self._key_refused(error.kind)]
            fix = (
                f"serve a vision-language model as thinking_reward.model={self._config.model!r}, with images allowed "
                "(vLLM: --limit-mm-per-prompt)"
            )
            return [self._failed("image accepted", str(error), fix)]
        return [self._passed("image accepted", f"{reply.usage.get('prompt_tokens', '?')} prompt tokens")]

    async def _context_length(self) -> list[Check]:
        limit = self._config.max_thinking_chars
        thinking = clean_thinking(self._template, sample_text(limit), limit)
        image = data_url(digest_image(sample_image(SAMPLE_IMAGE_SIDE)))
        prompt = prepare_prompt(self._template, sample_text(SAMPLE_QUESTION_CHARS), [image])
        has = f"context of {self._context} tokens" if self._context else "context length not told"
        try:
            reply = await self._client.ask(self._url, prompt.messages_json(thinking))
        except AttemptError as error:
            fix = (
                "serve with a longer context (vLLM: --max-model-len), or lower "
                f"thinking_reward.max_thinking_chars={limit}, the longest reasoning that is sent"
            )
            return [self._failed("context length", f"{has}; the longest prompt fails: {error}", fix)]
        tokens = reply.usage.get("prompt_tokens", "?")
        return [self._passed("context length", f"{has}; the longest reasoning with one image takes {tokens}")]


async def _structured_output(config: ClientSettings) -> tuple[ClientSettings, Check]:
    """The settings with a structured output that all endpoints enforce, and the check of it."""
    name, where, wish = "structured output", ", ".join(config.urls), config.structured_output
    try:
        config = await settle(config)
    except (NotEnforcedError, AttemptError) as error:
        fix = f"serve with structured output (vLLM has it), or set thinking_reward.structured_output={wish!r} to 'off'"
        return config, Check(where, name, False, printable(" ".join(str(error).split())[:400]), fix)
    found = config.structured_output
    detail = "not available, replies are read as they come" if (wish, found) == ("auto", "off") else found
    return config, Check(where, name, True, detail)


async def _repeatable(config: ClientSettings) -> Check:
    """Whether one endpoint gives one text one score."""
    name, (url,) = _TWO_SCORES, config.urls
    if config.temperature > 0:
        return Check(url, name, True, f"not asked for: thinking_reward.temperature={config.temperature}")
    config = replace(config, deadline_s=min(config.deadline_s, 1.5 * config.timeout_s))
    async with ThinkingRewardClient(config) as client:
        scores = [await client.score(QUESTION, [sample_image(64)], REASONING) for _ in range(2)]
    for score in scores:
        if score.value is None:
            return Check(url, name, False, f"no score: {score.error}", _fix_of_missing(str(score.error), config))
    first, second = (float(score.value) for score in scores if score.value is not None)
    if abs(first - second) > (EXPECTED_TOLERANCE if config.score_mode == "expected" else 0.0):
        fix = "serve so that thinking_reward.temperature=0.0 is honoured: a sampled score is noise in the reward"
        return Check(url, name, False, f"{first} and {second}", fix)
    return Check(url, name, True, f"{first} in {scores[0].latency_s:.2f} s and {second} in {scores[1].latency_s:.2f} s")


def _fix_of_missing(error: str, config: ClientSettings) -> str:
    if error == "unparsable":
        return (
            f"the reply is no score: set thinking_reward.structured_output={config.structured_output!r} to 'on', use "
            f"the prompt that the model was trained on (thinking_reward.prompt_path={config.prompt_path!r}), or raise "
            f"thinking_reward.max_tokens={config.max_tokens} if it was cut"
        )
    if error in ("no_mass", "no_logprobs"):
        return (
            f"thinking_reward.score_mode={config.score_mode!r} needs log-probabilities of likely scores: use a server "
            "that returns 20 top_logprobs, or set it to 'discrete'"
        )
    if error in ("timeout", "deadline"):
        return f"raise thinking_reward.timeout_s={config.timeout_s}, or look why the server is this slow"
    return "see the server's log for this request"


def printable(text: str) -> str:
    """What a server wrote, with control characters written out: it shall not write to the terminal itself."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def sample_image(side: int) -> Image.Image:
    """A light square image with one dark square; `side` in pixels."""
    image = Image.new("RGB", (side, side), "white")
    ImageDraw.Draw(image).rectangle((side // 4, side // 4, side // 2, side // 2), fill="navy")
    return image


def sample_text(chars: int) -> str:
    """Varied prose of `chars` characters, the same each time."""
    chooser = random.Random(0)
    text = " ".join(chooser.choice(_WORDS) for _ in range(chars // 2))
    return text[:chars]


def show(found: Preflight, console: Console) -> None:
    """Print the checks of each endpoint as a table, what to change, and the line that a run prints."""
    for url in dict.fromkeys(check.endpoint for check in found.checks):
        mine = [check for check in found.checks if check.endpoint == url]
        table = Table(title=f"Thinking reward model at {url}", title_justify="left")
        for column in ("check", "", "detail"):
            table.add_column(column, overflow="fold")
        for check in mine:
            table.add_row(check.name, "[green]ok[/]" if check.ok else "[red]failed[/]", escape(check.detail))
        console.print(table)
        for check in mine:
            if not check.ok:
                console.print(f"[red]{check.name}[/]: {escape(check.fix)}", highlight=False, soft_wrap=True)
    for line in found.lines():
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: 0 where all checks pass, 1 where one fails, 2 where the settings are wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m recipe.sophiavl.trm.preflight", description=__doc__.splitlines()[0] if __doc__ else None
    )
    add_client_arguments(parser)
    given = parser.parse_args(argv)
    console = Console()
    try:
        found = asyncio.run(preflight(client_settings(given)))
    except (ValueError, PromptError) as error:
        console.print(escape(str(error)), style="red", soft_wrap=True, highlight=False)
        return 2
    show(found, console)
    return 1 if found.failed else 0


if __name__ == "__main__":
    sys.exit(main())
