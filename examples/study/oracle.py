"""The rule's score and the form of thinking that is already here, without a server: for the dumps of a study's runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "quickstart"))  # its modules import each other by their bare names

from judge_server import Judge, read_question
from traces import form_of, judge

from data_preprocess.easy_vqa import Scene
from recipe.sophiavl.trm.prompt import clean_question, clean_thinking


@dataclass(frozen=True)
class Assessment:
    """What the rule says of a thinking text.

    Attributes:
        score: the oracle's score, in 0.0, 0.1 … 1.0.
        form: "hasty", "short", "full", "twice" or "other".
    """

    score: float
    form: str


def assess(question: str, images: Sequence[bytes], thinking: str) -> Assessment:
    """Score thinking about an easy-VQA row.

    Args:
        question: its text, with its options, each on a line of its own.
        images: its one image file.
        thinking: what stands inside ``<think>`` (`reward_score.extract_thinking`).

    Raises:
        ValueError: this is no question about easy-VQA, or no one row of its pictures.
        OSError, SyntaxError, struct.error, Image.DecompressionBombError: the image can't be read.
    """
    if len(images) != 1:
        raise ValueError(f"{len(images)} images; questions of easy-VQA have one")
    asked = read_question(clean_question(question))
    sent = clean_thinking(_judge().template, thinking, None)  # the text that a server is asked about
    return Assessment(judge(_scene(bytes(images[0])), asked, sent), form_of(thinking))


@lru_cache(1)
def _judge() -> Judge:
    return Judge()


@lru_cache(1024)
def _scene(image_file: bytes) -> Scene:
    return _judge().scene(image_file)
