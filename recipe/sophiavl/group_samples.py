"""A few groups of a training step, as a logger's table, text or image may hold them: small, with nothing hidden."""

from __future__ import annotations

import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from page_kit.text import number, shown
from recipe.sophiavl.trm.images import load_image

# What a sample holds at most, whatever a run's groups, texts and images are.
MOST_RESPONSES = 16
MOST_CHARS = 4000
MOST_IMAGES = 4
SIDE = 256

_OF_A_RESPONSE = ("outcome_reward", "thinking_reward", "format_ok", "thinking_error")
_OF_A_GROUP = ("gamma", "mu_correct", "mu_wrong")


@dataclass(frozen=True)
class GroupSample:
    """A group.

    Attributes:
        question: with its options; of this and all other text at most `MOST_CHARS` characters, the invisible ones
            (escapes, bidirectional marks) written out.
        truth: the expected answer.
        image: the question's images beside each other, RGB, each at most `SIDE` pixels wide and high; None without any.
        figures: ``gamma``, ``mu_correct``, ``mu_wrong``; None where there is none.
        responses: ``response``, ``outcome_reward``, ``thinking_reward`` (None: missing or not asked), ``format_ok`` and
            ``thinking_error`` of `MOST_RESPONSES` of its responses at most.
    """

    question: str
    truth: str
    image: Image.Image | None
    figures: dict[str, float | None]
    responses: list[dict[str, Any]]

    def rows(self, step: int, place: int) -> list[dict[str, Any]]:
        """A table of the responses, each with what belongs to its group.

        Args:
            place: of the group among those of its step, from 1.
        """
        shared = {"step": step, "group": place, "question": self.question, "truth": self.truth}
        return [{**shared, **row, **self.figures} for row in self.responses]


def choose(groups: Sequence[str], count: int, step: int) -> list[str]:
    """`count` of the groups at random, the same ones each time that a step is computed."""
    distinct = list(dict.fromkeys(groups))
    return random.Random(step).sample(distinct, min(count, len(distinct)))


def group_sample(
    question: str, truth: str, images: Sequence[Any], responses: Sequence[tuple[str, Mapping[str, Any]]]
) -> GroupSample:
    """A sample of a group.

    Args:
        images: as ``reward_manager.prompt_images`` gives them.
        responses: the text of each with its row of the dump; at least one.

    Raises:
        BadImageError: an image can't be read.
    """
    return GroupSample(
        question=_cut(question),
        truth=_cut(truth),
        image=_side_by_side([_thumbnail(image) for image in images[:MOST_IMAGES]]),
        figures={name: responses[0][1].get(name) for name in _OF_A_GROUP},
        responses=[
            {"response": _cut(text), **{name: row.get(name) for name in _OF_A_RESPONSE}}
            for text, row in responses[:MOST_RESPONSES]
        ],
    )


def markdown(sample: GroupSample) -> str:
    """The group as Markdown. All that was not written here stands in indented blocks of code, which nothing ends but a
    line that is not indented: no text in them is a link, an image or HTML."""
    parts = [", ".join(f"{name} {number(value)}" for name, value in sample.figures.items())]
    parts += ["question:", as_code(sample.question), "truth:", as_code(sample.truth)]
    for place, row in enumerate(sample.responses, 1):
        rewards = f"outcome {number(row['outcome_reward'])}, thinking {number(row['thinking_reward'])}"
        parts += [f"response {place}: {rewards}", as_code(row["response"])]
    return "\n\n".join(parts)


def as_code(text: str) -> str:
    """Text as an indented block of Markdown."""
    return "\n".join(f"    {line}" for line in text.split("\n"))


def _cut(text: str) -> str:
    return shown(text if len(text) <= MOST_CHARS else f"{text[:MOST_CHARS]}…")


def _thumbnail(image: Any) -> Image.Image:
    loaded = load_image(image)
    picture = loaded if isinstance(loaded, Image.Image) else Image.open(io.BytesIO(loaded))
    small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    return small


def _side_by_side(images: Sequence[Image.Image]) -> Image.Image | None:
    if not images:
        return None
    sheet = Image.new("RGB", (sum(image.width for image in images), max(image.height for image in images)), "white")
    left = 0
    for image in images:
        sheet.paste(image, (left, 0))
        left += image.width
    return sheet
