"""Checks of a row's text fields: pure functions from a field's value to a clean value, or a `RowError`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from string import ascii_uppercase
from typing import Any

from data_preprocess.core.errors import Fault, RowError
from reward_score import PROBLEM_TYPES
from reward_score.option_labels import option_texts, split_label

NUMERICAL, MULTIPLE_CHOICE, OCR, FREE_FORM = PROBLEM_TYPES[:4]
# "text" is what the published demo file calls a short free-form answer.
_TYPE_NAMES = {name.casefold().replace("-", " "): name for name in PROBLEM_TYPES} | {"text": FREE_FORM}

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_LETTERS = re.compile(r"\(?([A-Z])\)?[.:]?(?:\s*(?:,|;|and|\s)\s*\(?([A-Z])\)?[.:]?)*", re.IGNORECASE)
_LETTER = re.compile(r"(?<![A-Za-z])[A-Za-z](?![A-Za-z])")
# verl's datasets cut the prompt at these and look for the media that belong to them.
_OTHER_MEDIA = ("<video>", "<audio>")
_RESPONSE_TAG = re.compile(r"</?(answer|think)>", re.IGNORECASE)
RESULT_MARK = "####"
"""GSM8K writes the result behind it."""


def text_field(value: Any, field: str) -> str:
    """`value` as stripped text; a number is written out, None is empty.

    Raises:
        RowError: another type, or text that UTF-8 cannot hold.
    """
    if value is None or value != value:  # NaN is how tables write "nothing"
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RowError(Fault.BAD_FIELD, field, f"must be text, not {type(value).__name__}")
    text = str(value).strip()
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowError(Fault.BAD_FIELD, field, f"holds half a character: {error.reason}") from error
    return text


def required_text(value: Any, field: str) -> str:
    """`text_field`, and not empty."""
    text = text_field(value, field)
    if not text:
        raise RowError(Fault.BAD_FIELD, field, "is missing or empty")
    return text


def question_field(value: Any, field: str) -> str:
    """A question: not empty, and free of marks for media that a row cannot carry."""
    text = required_text(value, field)
    if not text.replace("<image>", "").strip():
        raise RowError(Fault.BAD_FIELD, field, "holds nothing but image marks")
    for mark in _OTHER_MEDIA:
        if mark in text:
            raise RowError(Fault.IMAGE_MARKS, field, f"holds {mark}, which verl would try to fill")
    return text


def problem_type_field(value: Any, field: str) -> str:
    """One of `PROBLEM_TYPES`; case and ``_``/``-`` for a space do not matter."""
    name = text_field(value, field)
    known = _TYPE_NAMES.get(re.sub(r"[\s_-]+", " ", name).casefold())
    if known is None:
        raise RowError(Fault.UNKNOWN_TYPE, field, f"{name[:80]!r} is none of {', '.join(PROBLEM_TYPES)}")
    return known


def truth_field(value: Any, field: str) -> str:
    """The truth, taken out of ``<answer>...</answer>`` where it has the tags.

    Raises:
        RowError: empty, several answers that differ, or a tag that no answer of a well-formed response can hold.
    """
    text = text_field(value, field)
    tagged = {answer.strip() for answer in _ANSWER.findall(text)}
    if len(tagged) > 1:
        raise RowError(Fault.BAD_FIELD, field, f"holds {len(tagged)} different <answer> blocks")
    truth = tagged.pop() if tagged else text
    if not truth.strip("$ "):
        raise RowError(Fault.EMPTY_TRUTH, field, "the truth is empty")
    if _RESPONSE_TAG.search(truth):
        raise RowError(Fault.BAD_FIELD, field, f"{truth[:80]!r} holds half of a pair of tags")
    return truth


def numerical_truth(truth: str, field: str) -> str:
    """The result alone, where GSM8K's mark ``####`` stands before it.

    Raises:
        RowError: no result, or one that equals nothing (``nan``).
    """
    result = truth.rpartition(RESULT_MARK)[2].strip()
    if result.casefold() in ("", "nan"):
        raise RowError(Fault.EMPTY_TRUTH, field, f"{truth[-80:]!r} is no number")
    return result


def options_field(value: Any, field: str) -> list[str]:
    """The choices as texts; None is no choices."""
    if value is None:
        return []
    if isinstance(value, str):
        texts = [text.strip() for text in re.split(r"[|;\n]", value)]
        written = json.dumps(texts if len(texts) > 1 else ["a car", "a bus"], ensure_ascii=False)
        raise RowError(Fault.BAD_FIELD, field, f"{value[:80]!r} is text: write the list as JSON, as {written[:160]}")
    if not isinstance(value, list | tuple):
        raise RowError(Fault.BAD_FIELD, field, f"must be a list, not {type(value).__name__}")
    if len(value) > len(ascii_uppercase):
        raise RowError(Fault.BAD_FIELD, field, f"has {len(value)} options; there are only letters for 26")
    return [required_text(option, field) for option in value]


def choice_truth(truth: str, options: Sequence[str], question: str, field: str) -> str:
    """The letters of a multiple-choice truth: ``B``, or ``A,C`` for several.

    `truth` may be letters in any common writing, the text of an option, or both ("B. 12"). Where the source lists
    no options, they must stand in the question with their letters.

    Raises:
        RowError: no option is the truth, or as a letter it names another option than as a text, or the options carry
            letters in another order than A, B, C ..., so that a letter may mean either.
    """
    labels = [label.letter if (label := split_label(option)) else "" for option in options]
    if labels != sorted(labels) and sorted(labels) == list(ascii_uppercase[: len(labels)]):
        raise RowError(Fault.TRUTH_NOT_IN_OPTIONS, field, f"the options' letters are out of order: {', '.join(labels)}")
    texts = list(option_texts(options).values())
    lettered = list(zip(ascii_uppercase, texts, strict=False))
    # As it is written first: options may differ in nothing but case (TT, Tt, tt).
    same = [letter for letter, text in lettered if text.split() == truth.split()]
    same = same or [letter for letter, text in lettered if _same(text, truth)]
    if _LETTERS.fullmatch(truth):
        letters = sorted({letter.upper() for letter in _LETTER.findall(truth)})
        if all(_offers(letter, texts, question) for letter in letters):
            if same and same != letters:
                what = f"{truth!r} is the letter of one option and the text of another: {[text[:40] for text in texts]}"
                raise RowError(Fault.TRUTH_NOT_IN_OPTIONS, field, what)
            return ",".join(letters)
    if len(same) == 1:
        return same[0]
    label = split_label(truth)
    if label:
        index = ascii_uppercase.index(label.letter)
        if index < len(texts) and _same(texts[index], label.text):
            return label.letter
    what = "more than one option" if same else "none of the options"
    raise RowError(Fault.TRUTH_NOT_IN_OPTIONS, field, f"{truth[:80]!r} is {what} {[text[:40] for text in texts]}")


def _same(one: str, other: str) -> bool:
    return " ".join(one.split()).casefold() == " ".join(other.split()).casefold()


def _offers(letter: str, texts: Sequence[str], question: str) -> bool:
    if texts:
        return ascii_uppercase.index(letter) < len(texts)
    return re.search(rf"(?<![A-Za-z]){letter}\s*[.):]", question) is not None


def check_image_marks(content: str, images: int, field: str) -> None:
    """Every ``<image>`` mark of a prompt has its image, else verl stops in the middle of training."""
    marks = content.count("<image>")
    if marks != images:
        raise RowError(Fault.IMAGE_MARKS, field, f"{marks} <image> marks for {images} images")


def check_length(chars: int, limit: int | None, field: str) -> None:
    """A prompt has at most `limit` characters; None for no limit."""
    if limit is not None and chars > limit:
        raise RowError(Fault.PROMPT_TOO_LONG, field, f"the prompt has {chars} characters, over {limit}")


def score_field(value: Any, field: str) -> float:
    """A thinking score in [0, 1], a number or its text."""
    text = text_field(value, field)
    try:
        score = float(text)
    except ValueError as error:
        raise RowError(Fault.BAD_SCORE, field, f"{text[:40]!r} is not a number") from error
    if not (math.isfinite(score) and 0.0 <= score <= 1.0):
        raise RowError(Fault.BAD_SCORE, field, f"{text} is not in [0, 1]")
    return score
