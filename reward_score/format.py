"""The response format: ``<think>...</think><answer>...</answer>``, once each, and nothing else around them."""

from __future__ import annotations

import re
from typing import NamedTuple

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_RESPONSE = re.compile(r"\s*<think>(?P<thinking>.*)</think>\s*<answer>(?P<answer>.*)</answer>\s*", re.DOTALL)


class ParsedResponse(NamedTuple):
    """The two parts of a well-formed response, without surrounding white space."""

    thinking: str
    answer: str


def parse_response(response: str, *, require_thinking: bool = False) -> ParsedResponse | None:
    """Split a response into its parts.

    Args:
        response: the model's whole output.
        require_thinking: nothing inside ``<think>`` is not the format.

    Returns:
        The parts (either may be empty), or None unless each tag occurs exactly once, in order, with nothing but white
        space before, between and after the two elements.
    """
    if any(response.count(tag) != 1 for tag in _TAGS):
        return None
    match = _RESPONSE.fullmatch(response)
    if match is None or (require_thinking and not match["thinking"].strip()):
        return None
    return ParsedResponse(match["thinking"].strip(), match["answer"].strip())


def extract_thinking(response: str) -> str | None:
    """The text inside ``<think>``, or None if the response does not have the format."""
    parsed = parse_response(response)
    return None if parsed is None else parsed.thinking
