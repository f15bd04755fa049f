"""From a model's reply to a score, or to the reason why there is none.

``score_mode=expected``: the probability-weighted score, from the log-probabilities of a reply's tokens.

A value such as ``0.7`` may be one token or several (``0``, ``.``, ``7``). The tokens of the reply are followed from
the first character of its number. At each position the server returns the likeliest tokens; each of them, appended to
what was generated so far, is a prefix of some of the allowed values:

- of exactly one: its probability, times that of the path to here, goes to that value;
- of several, and it is the generated token: the next position decides;
- of several, and it is another token (``0`` where the reply is ``1.0``): how its probability divides among them was not
  returned. This mass is left out;
- of none: the mass is left out.

The score is the mean over the mass that went to values. Where that is less than `min_mass`, there is no score: the mean
of an unlikely remainder says little. So ``0.x`` replies weigh all eleven values, and a reply ``1.0``, which is
generated only if ``1`` is likelier than ``0``, is taken at its word.

A second decimal is not looked at: ``0.85``, from a reply that nothing restricts, counts as ``0.8``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from recipe.sophiavl.trm.client_settings import ClientSettings
from recipe.sophiavl.trm.parse import find_score
from recipe.sophiavl.trm.scale import VALUES
from recipe.sophiavl.trm.transport import Reply, TokenChoice

_NUMBER_START = re.compile(r"[0-9]*\.?[0-9]*")


def read_score(reply: Reply, config: ClientSettings) -> tuple[float | None, str | None]:
    """The score in [0, 1], or None and one of "unparsable", "no_logprobs", "no_mass".

    Args:
        reply: a well-formed reply.
        config: `score_mode`, `expected_min_mass` and `structured_output` are used.
    """
    found = find_score(reply.text)
    if found is None:
        return None, "unparsable"
    # A server held to the allowed values writes one whole, however short its limit.
    whole = config.structured_output != "off" and reply.text.strip() in VALUES
    if reply.cut and not whole and not reply.text[found.end :].strip():
        return None, "unparsable"  # cut at max_tokens right after the number: more digits may have followed
    if config.score_mode == "discrete":
        return found.value, None
    if reply.tokens is None or not "".join(token.text for token in reply.tokens).startswith(reply.text):
        return None, "no_logprobs"
    value = expected_score(reply.tokens, found.start, config.expected_min_mass)
    return (value, None) if value is not None else (None, "no_mass")


def expected_score(tokens: Sequence[TokenChoice], start: int, min_mass: float) -> float | None:
    """The mean of the allowed values under the returned probabilities.

    Args:
        tokens: the tokens of the reply; their texts, joined, are the reply.
        start: position of the number's first character in the reply.
        min_mass: least probability, in (0, 1], that must go to allowed values.

    Returns:
        A score in [0, 1], or None where less than `min_mass` went to allowed values.
    """
    mass_of = value_masses(tokens, start)
    total = sum(mass_of.values())
    if total < min_mass or total <= 0.0:
        return None
    return min(1.0, sum(float(value) * mass for value, mass in mass_of.items()) / total)


def value_masses(tokens: Sequence[TokenChoice], start: int) -> dict[str, float]:
    """The probability of each allowed value, as far as the returned alternatives tell."""
    mass_of: dict[str, float] = {}
    written, path_mass, position = "", 1.0, 0
    for token in tokens:
        position += len(token.text)
        if position <= start:
            continue
        # A token may begin before the number, such as ` 0` or `":0`: alternatives must share that beginning.
        lead = "" if written else token.text[: max(0, start - (position - len(token.text)))]
        for text, logprob in token.alternatives:
            if text != token.text and text.startswith(lead):
                values = _values(written + text[len(lead) :])
                if len(values) == 1:
                    mass_of[values[0]] = mass_of.get(values[0], 0.0) + path_mass * math.exp(logprob)
        written += token.text[len(lead) :]
        path_mass *= math.exp(token.logprob)
        values = _values(written)
        if len(values) <= 1:
            break
    else:
        values = _values(written + "\n")  # the reply ended: what was written is the whole number
    if len(values) == 1:
        mass_of[values[0]] = mass_of.get(values[0], 0.0) + path_mass
    return mass_of


def _values(written: str) -> list[str]:
    """The allowed values that a number beginning with `written` can be."""
    written = written.lstrip()
    match = _NUMBER_START.match(written)
    number = match[0] if match else ""
    if not any(character.isdigit() for character in number) and number != ".":
        return []
    if len(number) < len(written):
        return [value for value in VALUES if number[-1] != "." and float(value) == float(number)]
    if number.startswith("."):
        number = "0" + number
    return [value for value in VALUES if value.startswith(number) or number.rstrip("0") == value]
