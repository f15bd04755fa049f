"""What the responses of a question share, made once: image digests, encoded images, the prompt's beginning."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recipe.sophiavl.trm.cache import SharedComputations
from recipe.sophiavl.trm.images import ImageInput, SourceImage, data_url, digest_image, load_image
from recipe.sophiavl.trm.prompt import PreparedPrompt, PromptTemplate, clean_question, prepare_prompt

# Serialised questions kept for the responses of their groups, in bytes per process. A miss costs one encoding.
PREPARED_BYTES = 64 * 2**20
# Images up to this size are hashed on the event loop: handing them to a thread would cost more.
INLINE_HASH_BYTES = 128 * 2**10


@dataclass(frozen=True)
class Question:
    """A question with its images. `key` is a digest of text and images: equal questions have equal keys."""

    key: bytes
    text: str
    images: tuple[SourceImage, ...]


class Questions:
    """Identifies questions, and prepares the prompt of each once."""

    def __init__(self, template: PromptTemplate) -> None:
        self._template = template
        self._prepared: SharedComputations[PreparedPrompt] = SharedComputations(
            PREPARED_BYTES, weigh=lambda prompt: len(prompt.head)
        )

    async def identify(self, text: str, images: Sequence[ImageInput]) -> Question:
        """Read and digest the images; files, PIL images and large ones off the event loop.

        Raises:
            BadImageError: an image cannot be read.
            TypeError: an image is not of an accepted kind.
        """
        quick = all(isinstance(image, bytes) and len(image) <= INLINE_HASH_BYTES for image in images)
        sources = _read(images) if quick else await asyncio.to_thread(_read, images)
        key = digest_of(text.encode("utf-8", "surrogatepass"), *(source.digest for source in sources))
        return Question(key, text, tuple(sources))

    async def prepare(self, question: Question) -> PreparedPrompt:
        """The prompt of this question, with the place of the response left open.

        Raises:
            BadImageError: an image cannot be encoded.
        """
        prompt, _ = await self._prepared.get(question.key, lambda: asyncio.to_thread(self._prepare, question))
        return prompt

    async def close(self) -> None:
        """Cancel preparations under way."""
        await self._prepared.cancel()

    def _prepare(self, question: Question) -> PreparedPrompt:
        urls = [data_url(image) for image in question.images]
        return prepare_prompt(self._template, clean_question(question.text), urls)


def _read(images: Sequence[ImageInput]) -> list[SourceImage]:
    return [digest_image(load_image(image)) for image in images]


def question_text(extra_info: Mapping[str, Any]) -> str:
    """The question as the TRM sees it: its text, then the options of a multiple choice question, one a line."""
    options = extra_info.get("options")
    return "\n".join([extra_info["question"], *(() if options is None else options)])


def digest_of(*parts: bytes) -> bytes:
    """A digest of the parts that also tells where each ends."""
    hasher = hashlib.blake2b(digest_size=16)
    for part in parts:
        hasher.update(len(part).to_bytes(8, "little"))
        hasher.update(part)
    return hasher.digest()
