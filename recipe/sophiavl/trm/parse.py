"""Read the score out of a thinking reward model's reply, or say that there is none.

The reader never guesses. A number counts only where the reply *marks* it as the score:

- the reply is nothing but the number, decoration such as ``**0.6**``, ``$0.6$``, ``(0.6)`` or a final full stop aside;
- ``<answer>0.85</answer>`` or ``<score>0.85</score>``;
- ``\\boxed{0.3}``;
- a JSON object with a ``score`` key, fenced or not;
- a label: ``Score: 0.8``, ``**Final score** = 0.8``, ``The score is 0.8``.

A number somewhere in prose ("Step 1 is wrong") is not a score. Several marked numbers must agree. A fraction counts
only over 1 (``0.8/1``, ``0.8 out of 1``): ``1/10`` is neither 1 nor 0.1, because a reply on another scale shows that
the model did not follow the rubric. Percentages, signs, ranges, decimal commas and cut decimals (``0.``) are not read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

NUMBER = r"(?:(?:0|[1-9][0-9]*)(?:\.[0-9]+)?|\.[0-9]+)"
OVER_ONE = r"(?:\s*/\s*1(?:\.0+)?|\s+out\s+of\s+1(?:\.0+)?)?"
# What may not touch a number: more of a number, a sign, a percent sign, a fraction bar.
NOT_BEFORE = r"(?<![0-9.,/+\-−–%])"
NOT_AFTER = r"(?![^\W_]|\s*(?:[%％‰/／⁄∕]|percent\b|(?:out\s+)?of\b)|[.,][0-9]|\s*[-−–~]\s*[0-9.])"

_DECORATION = r"[\s*_`$\"'“”(\[]*"
_DECORATION_END = r"[\s*_`$\"'“”)\]]*"
_PLAIN = re.compile(rf"{_DECORATION}(?P<number>{NUMBER}){OVER_ONE}{_DECORATION_END}(?:(?P<stop>\.){_DECORATION_END})?")
_LABEL = re.compile(
    rf"\b(?:score|rating)\b[\"'*_`\s]*(?:\([^()\n]*\)[\"'*_`\s]*)?(?::|=|\bis\b|\bof\b)[\"'*_`\s$:]*"
    rf"{NOT_BEFORE}(?P<number>{NUMBER}){OVER_ONE}{NOT_AFTER}",
    re.IGNORECASE,
)
_LABEL_WITHOUT_SCORE = re.compile(r"\b(?:score|rating)\b[\"'*_`\s]*[:=]", re.IGNORECASE)
_TAGGED = re.compile(r"<(?P<tag>answer|score)>(?P<content>[^<]*)</(?P=tag)>", re.IGNORECASE)
_LOOSE_TAG = re.compile(r"</?(?:answer|score|think)>", re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\s*\{(?P<content>[^{}]*)\}")
_FENCE = re.compile(r"\s*```(?:json)?(?P<content>.*)```\s*", re.IGNORECASE | re.DOTALL)
_THINK_BLOCK = re.compile(r"\s*<think>.*?</think>", re.IGNORECASE | re.DOTALL)
_JSON_SCORE = re.compile(rf"\"score\"\s*:\s*\"?\s*(?P<number>{NUMBER}(?:[eE][+-]?[0-9]+)?)", re.IGNORECASE)
_ANY_NUMBER = re.compile(r"[0-9]")
_NUMBER_IN_SENTENCE = re.compile(r"(?:[^.\n0-9]|\.(?!\s|$))*[0-9]")
_CUT_DECIMAL = re.compile(r"\s*\.\s*")


@dataclass(frozen=True)
class FoundScore:
    """A score and where its first character stands in the reply."""

    value: float
    start: int
    end: int


def parse_score(text: str) -> float | None:
    """Return the score in [0, 1] that `text` marks, or None where it marks none, several, or one out of range."""
    found = find_score(text)
    return None if found is None else found.value


def find_score(text: str) -> FoundScore | None:
    """Like `parse_score`, with the position of the number (of the first one, where equal ones are repeated)."""
    think = _THINK_BLOCK.match(text)
    start = think.end() if think else 0
    candidates = list(_candidates(text, start))
    if not candidates or any(candidate is None for candidate in candidates):
        return None
    found = [candidate for candidate in candidates if candidate is not None]
    if any(candidate.value != found[0].value for candidate in found):
        return None
    return found[0]


def _candidates(text: str, start: int) -> Iterator[FoundScore | None]:
    """Every marked number from `start` on; None stands for a mark that holds no valid score."""
    plain = _plain(text, start, len(text))
    if plain is not None:
        yield plain
        return
    json_start, json_end = start, len(text)
    fence = _FENCE.fullmatch(text, start)
    if fence:
        json_start, json_end = fence.span("content")
    if text[json_start:json_end].lstrip().startswith("{"):
        yield _json(text, json_start, json_end)
        return
    yield from _marked(text, start)


def _marked(text: str, start: int) -> Iterator[FoundScore | None]:
    outside = " " * start + text[start:]
    for pattern in (_TAGGED, _BOXED):
        for match in pattern.finditer(text, start):
            low, high = match.span("content")
            yield _plain(text, low, high) or _single_label(text, low, high)
        outside = pattern.sub(lambda match: " " * len(match[0]), outside)
    if _LOOSE_TAG.search(outside, start):
        yield None  # an unclosed tag: the number may have been cut
    yield from _labels(outside, start, len(outside))


def _labels(text: str, start: int, end: int) -> Iterator[FoundScore | None]:
    for match in _LABEL.finditer(text, start, end):
        # "Score: 0.8 or 0.9": a second number beside the first makes it ambiguous.
        ambiguous = _NUMBER_IN_SENTENCE.match(text, match.end(), end)
        cut = "." not in match["number"] and _CUT_DECIMAL.fullmatch(text, match.end("number"), end)
        yield None if cut or ambiguous else _checked(match)
    labelled = {match.start() for match in _LABEL.finditer(text, start, end)}
    for match in _LABEL_WITHOUT_SCORE.finditer(text, start, end):
        if match.start() not in labelled and _ANY_NUMBER.search(text[match.end() : match.end() + 8]):
            yield None  # "Score: 8/10", "Score: 80%", "Score: -1"


def _single_label(text: str, start: int, end: int) -> FoundScore | None:
    found = list(_labels(text, start, end))
    return found[0] if len(found) == 1 else None


def _plain(text: str, start: int, end: int) -> FoundScore | None:
    match = _PLAIN.fullmatch(text, start, end)
    if match is None:
        return None
    if match["stop"] and "." not in match["number"]:
        return None  # "0." may be a cut decimal
    return _checked(match)


def _json(text: str, start: int, end: int) -> FoundScore | None:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        keys = [key.lower() for key, _ in pairs]
        if keys.count("score") > 1:
            raise ValueError("two scores")
        return {key.lower(): value for key, value in pairs}

    try:
        data = json.loads(text[start:end], object_pairs_hook=unique)
    except (ValueError, RecursionError):
        return None
    value = data.get("score") if isinstance(data, dict) else None
    where = [match for match in _JSON_SCORE.finditer(text, start, end) if float(match["number"]) == _as_number(value)]
    if not where:
        return None
    return _checked(where[-1])


def _as_number(value: object) -> float:
    """The number in [0, 1] that a JSON value holds; NaN, which equals nothing, where it holds none."""
    if isinstance(value, str) and re.fullmatch(NUMBER, value.strip()):
        return float(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    return math.nan


def _checked(match: re.Match[str]) -> FoundScore | None:
    value = float(match["number"])
    if not 0.0 <= value <= 1.0:
        return None
    return FoundScore(value, *match.span("number"))
