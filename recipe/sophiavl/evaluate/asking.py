"""How a policy is asked: the settings that make an answer, and those that only say how often and how long."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from recipe.sophiavl.validation import FLAGS, SettingsError, settings_group

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]
_PIXELS = ("min_pixels", "max_pixels")


@settings_group(FLAGS)
class AskSettings:
    """How a policy is asked.

    Attributes:
        temperature: sampling temperature; 0 is greedy.
        top_p: share of the probability that is sampled from, in (0, 1].
        max_tokens: most tokens of an answer; the paper's responses have 1024.
        seed: of the sampling; each answer has a seed of its own, made from this one.
        system_prompt: in place of the data's own; @FILE reads it from a file, and "" leaves it out.
        min_pixels: images are scaled up to this many pixels by the model's processor; None leaves it to the server.
        max_pixels: images are scaled down to this many; None leaves it to the server.
        extra_body: further fields of each request, as JSON, such as {"repetition_penalty": 1.05}.
        api_key_env: environment variable that holds the server's API key.
        concurrency: requests under way at once.
        timeout_s: seconds for one answer.
        wait_s: seconds that a server which does not answer is waited for.

    Raises:
        SettingsError: a value is out of range.
    """

    temperature: Annotated[float, Field(ge=0)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: Count = 1024
    seed: Annotated[int, Field(ge=0)] = 0
    system_prompt: str | None = None
    min_pixels: Count | None = None
    max_pixels: Count | None = None
    extra_body: dict[str, Any] | None = None
    api_key_env: str | None = None
    concurrency: Count = 64
    timeout_s: Seconds = 600.0
    wait_s: Seconds = 300.0

    def __post_init__(self) -> None:
        if self.min_pixels and self.max_pixels and self.min_pixels > self.max_pixels:
            raise SettingsError(f"--min-pixels={self.min_pixels}: is above --max-pixels={self.max_pixels}")
        if own := sorted({"messages", "model", *self.sampling()} & (self.extra_body or {}).keys()):
            raise SettingsError(f"--extra-body: {own[0]!r} has a flag, or is made by this command: leave it out")

    def sampling(self) -> dict[str, Any]:
        """The fields of a request that say how is sampled."""
        return {"temperature": self.temperature, "top_p": self.top_p, "max_tokens": self.max_tokens}

    def defining(self) -> dict[str, Any]:
        """What can change an answer, as JSON values: two evaluations that differ in it are different ones."""
        prompt = "the data's own" if self.system_prompt is None else self.system_prompt
        pixels = {name: getattr(self, name) for name in _PIXELS}
        seed = self.seed if self.temperature else "none: greedy"
        return {**self.sampling(), "seed": seed, "system_prompt": prompt, **pixels, "extra_body": self.extra_body or {}}

    def request_head(self, model: str, seed: int) -> bytes:
        """The JSON of a request up to its messages; the messages and a brace complete it."""
        fields: dict[str, Any] = {"model": model, **self.sampling(), **(self.extra_body or {})}
        if self.temperature:
            fields["seed"] = seed
        if pixels := {name: value for name in _PIXELS if (value := getattr(self, name))}:
            fields["mm_processor_kwargs"] = pixels
        return json.dumps(fields)[:-1].encode() + b', "messages": '


def answer_seed(seed: int, question: str, sample: int) -> int:
    """The seed of one answer, below 2**31: answers of a question differ, and questions are independent."""
    return int.from_bytes(blake2b(f"{seed} {sample} {question}".encode(), digest_size=4).digest()) >> 1


def read_prompt(text: str) -> str:
    """What ``--system-prompt`` says: the text itself, or of ``@FILE`` the file's content without its last line end."""
    return Path(text[1:]).read_text(encoding="utf-8").removesuffix("\n") if text.startswith("@") else text


def read_body(text: str) -> dict[str, Any]:
    """What ``--extra-body`` says. Raises ValueError where it is no JSON object."""
    body = json.loads(text)
    if not isinstance(body, dict):
        raise ValueError("no JSON object")
    return body
