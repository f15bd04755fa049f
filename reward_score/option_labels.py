"""Option labels (``A.``, ``(b)``, ``C、``, ``[D]``): one reading of them, for preprocessing and reward."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase
from typing import NamedTuple

_LABEL = re.compile(r"(?:\(([A-Za-z])\)|\[([A-Za-z])\]|([A-Za-z])\s*(?=[).:、．：]))\s*[).:、．：]?\s*(.*)", re.DOTALL)


class Labelled(NamedTuple):
    """A text with a label in front: the letter as a capital, and what follows it."""

    letter: str
    text: str


def split_label(text: str) -> Labelled | None:
    """The label and the rest of a text; None if no label stands in front. ``A. Einstein`` seems to have one."""
    match = _LABEL.fullmatch(text.strip())
    return None if match is None else Labelled((match[1] or match[2] or match[3]).upper(), match[4])


def option_texts(options: Sequence[str]) -> dict[str, str]:
    """The options' texts by letter.

    Labels are taken off where the options carry the letters due, each once: ``A. Einstein``, ``M. Curie`` are names.

    Raises:
        ValueError: more options than letters.
    """
    if len(options) > len(ascii_uppercase):
        raise ValueError(f"options has {len(options)} entries; letters name at most {len(ascii_uppercase)}")
    letters = ascii_uppercase[: len(options)]
    labelled = [split_label(option) for option in options]
    if sorted(option.letter for option in labelled if option) == list(letters):
        return {option.letter: option.text.strip() for option in labelled if option}
    return {letter: option.strip() for letter, option in zip(letters, options, strict=True)}


def labelled_options(options: Sequence[str]) -> list[str]:
    """Options with a label each: as they are where they all carry theirs, else as ``A. text``."""
    texts = option_texts(options)
    if list(texts.values()) != [option.strip() for option in options]:
        return [option.strip() for option in options]
    return [f"{letter}. {text}".strip() for letter, text in texts.items()]
