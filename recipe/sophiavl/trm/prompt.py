"""The prompt of the thinking reward model: a template file, and the chat messages made from it.

Everything that the responses of one question share comes before what differs, byte for byte the same, so that the
server's prefix cache serves it. The shared part is serialised once per question (`PreparedPrompt`); a response adds
only its own text.
"""

from __future__ import annotations

import hashlib
import json
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from recipe.sophiavl.trm.neutralise import neutralise

DEFAULT_PROMPT = Path(__file__).parent / "prompts" / "default.yaml"
SLOTS = ("images", "question", "thinking")
NO_THINKING = "(nothing was written)"
# More text than a closing marker and one instruction belongs before the response, where a group shares it.
MAX_TAIL_CHARS = 500

_IMAGE_MARK = re.compile(r"(?:(?<!\s)\s+)?<image>\s*", re.IGNORECASE)
# Stands for the response while the shared part is serialised. JSON would escape this character, so no text holds it.
_HOLE = "\x00thinking\x00"


class PromptError(ValueError):
    """A prompt file that cannot be used; the message says what to change."""


@dataclass(frozen=True)
class PromptTemplate:
    """A checked prompt: the system text, and the user text cut at its slots.

    Attributes:
        system: system message; empty for none.
        parts: literal texts and slot names in order, as (is_slot, text).
        allow_response_first: the file permits the response before what its group shares.
    """

    system: str
    parts: tuple[tuple[bool, str], ...]
    allow_response_first: bool = False

    @cached_property
    def digest(self) -> bytes:
        """Digest of the whole prompt, part of a score's cache key."""
        return hashlib.blake2b(repr((self.system, self.parts)).encode(), digest_size=16).digest()

    @cached_property
    def delimiters(self) -> tuple[str, ...]:
        """The lines of the template next to the response: text that must not occur inside it."""
        place = self.parts.index((True, "thinking"))
        before = self.parts[place - 1] if place else (True, "")
        after = self.parts[place + 1] if place + 1 < len(self.parts) else (True, "")
        lines = []
        for (is_slot, text), index in ((before, -1), (after, 0)):
            written = [line.strip() for line in text.splitlines() if line.strip()]
            if not is_slot and written:
                lines.append(written[index])
        return tuple(lines)


@dataclass(frozen=True)
class PreparedPrompt:
    """The messages of one question as JSON, with the place of the response left open."""

    head: bytes
    tail: bytes

    def messages_json(self, thinking: str) -> bytes:
        """The JSON array of messages with `thinking`, which must be neutralised already, in its place."""
        return b"".join((self.head, json.dumps(thinking)[1:-1].encode("ascii"), self.tail))


def load_template(path: str | Path | None = None) -> PromptTemplate:
    """Read a prompt file; None reads the package's own.

    Raises:
        PromptError: the file is missing or unreadable, or its text cannot serve as a prompt.
    """
    where = Path(path) if path is not None else DEFAULT_PROMPT
    try:
        data = yaml.safe_load(where.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PromptError(f"thinking_reward.prompt_path={str(where)!r} cannot be read: {error}") from error
    try:
        return make_template(data)
    except PromptError as error:
        raise PromptError(f"thinking_reward.prompt_path={str(where)!r}: {error}") from error


def make_template(data: Any) -> PromptTemplate:
    """Check the content of a prompt file: a mapping with ``user`` and, optionally, the other two keys."""
    if not isinstance(data, dict) or not isinstance(data.get("user"), str):
        raise PromptError("the file must be a mapping with a text `user`")
    unknown = set(data) - {"system", "user", "allow_response_first"}
    if unknown:
        raise PromptError(f"unknown keys {sorted(map(str, unknown))}; known: system, user, allow_response_first")
    system = data.get("system") or ""
    allow = data.get("allow_response_first", False)
    if not isinstance(system, str) or not isinstance(allow, bool):
        raise PromptError("`system` must be text and `allow_response_first` true or false")
    parts = _cut_at_slots(data["user"])
    slots = [text for is_slot, text in parts if is_slot]
    for slot in SLOTS:
        if slots.count(slot) != 1:
            raise PromptError(f"`user` must hold {{{slot}}} once, it holds it {slots.count(slot)} times")
    if not allow:
        _check_order(parts)
    return PromptTemplate(system=system, parts=parts, allow_response_first=allow)


def _cut_at_slots(user: str) -> tuple[tuple[bool, str], ...]:
    parts: list[tuple[bool, str]] = []
    try:
        for literal, slot, spec, conversion in string.Formatter().parse(user):
            if literal:
                parts.append((False, literal))
            if slot is not None:
                if slot not in SLOTS or spec or conversion:
                    raise PromptError(
                        f"unknown slot {{{slot}}} in `user`; known: {', '.join(SLOTS)}. Write {{{{ for a brace"
                    )
                parts.append((True, slot))
    except ValueError as error:
        if isinstance(error, PromptError):
            raise
        raise PromptError(f"`user` has a brace that opens or closes no slot ({error}); write {{{{ or }}}}") from error
    # The parser yields escaped braces as pieces of their own: join neighbours.
    joined: list[tuple[bool, str]] = []
    for is_slot, text in parts:
        if joined and not is_slot and not joined[-1][0]:
            joined[-1] = (False, joined[-1][1] + text)
        else:
            joined.append((is_slot, text))
    return tuple(joined)


def _check_order(parts: Sequence[tuple[bool, str]]) -> None:
    place = parts.index((True, "thinking"))
    later = [text for is_slot, text in parts[place + 1 :] if is_slot]
    tail = sum(len(text) for is_slot, text in parts[place + 1 :] if not is_slot)
    if later or tail > MAX_TAIL_CHARS:
        what = f"{{{later[0]}}}" if later else f"{tail} characters of text"
        raise PromptError(
            f"{what} after {{thinking}} in `user` would be computed anew for every response: move it before "
            "{thinking}, or set `allow_response_first: true` if the model was trained on this layout"
        )


def clean_question(question: str) -> str:
    """The question without control tokens and without the data set's ``<image>`` placeholders.

    A lone placeholder goes; several become "(image 1)", "(image 2)" …, because the text may refer to their places.
    """
    if len(_IMAGE_MARK.findall(question)) == 1:
        question = _IMAGE_MARK.sub("\n", question)
    else:
        number = iter(range(1, len(question)))
        question = _IMAGE_MARK.sub(lambda _match: f" (image {next(number)}) ", question)
    return neutralise(question)


def clean_thinking(template: PromptTemplate, thinking: str, max_chars: int | None) -> str:
    """The reasoning as it may stand in the prompt: neutralised, of bounded length, never empty."""
    return neutralise(thinking, max_chars=max_chars, delimiters=template.delimiters) or NO_THINKING


def build_messages(
    template: PromptTemplate, question: str, image_urls: Sequence[str], thinking: str
) -> list[dict[str, Any]]:
    """OpenAI chat messages. `question` and `thinking` must be clean already (`clean_question`, `clean_thinking`)."""
    text = {"question": question, "thinking": thinking}
    content: list[dict[str, Any]] = []
    pending = ""
    for is_slot, piece in template.parts:
        if is_slot and piece == "images":
            if pending.strip() and image_urls:
                content.append({"type": "text", "text": pending})
                pending = ""
            content.extend({"type": "image_url", "image_url": {"url": url}} for url in image_urls)
        else:
            pending += text[piece] if is_slot else piece
    if pending.strip():
        content.append({"type": "text", "text": pending})
    user = {"role": "user", "content": content}
    return [{"role": "system", "content": template.system}, user] if template.system.strip() else [user]


def prepare_prompt(template: PromptTemplate, question: str, image_urls: Sequence[str]) -> PreparedPrompt:
    """Serialise what all responses of a question share. `question` must be clean already (`clean_question`)."""
    whole = json.dumps(build_messages(template, question, image_urls, _HOLE))
    head, tail = whole.split(json.dumps(_HOLE)[1:-1])
    return PreparedPrompt(head=head.encode("ascii"), tail=tail.encode("ascii"))
