"""Units behind a number: which texts are one, what they measure, and how they convert.

A closed list, units.yaml. A library such as pint reads far more than is a unit here: to it, ``cats`` are
centi-technical-atmospheres, ``mats`` milliares, ``pins`` picoinches, ``e`` a charge; it has no money, and neither
``KG`` nor ``Hours``.
"""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction
from functools import lru_cache
from itertools import product
from pathlib import Path

import yaml

# Exponents, sorted by name.
Dimensions = tuple[tuple[str, int], ...]
# A known unit: its dimensions, and its factor to their first units.
Measure = tuple[Dimensions, Fraction]
# What a text may mean: known units (°, pounds and ¥ have several), or the words of an unknown one.
Unit = frozenset[Measure] | frozenset[str]

# BaseLoader: all values are text.
_TABLE = yaml.load(Path(__file__).with_name("units.yaml").read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
_NUMBERS, _NOT_NOUNS, _NOT_LAST = (frozenset(_TABLE[key].split()) for key in ("numbers", "not_nouns", "not_last"))
_TENS = "(?:twen|thir|for|four|fif|six|seven|eigh|nine)t"
_NOT_NOUN = re.compile(
    rf"(?:.*-)?(?:{_TENS}(?:y|ies|een|eens)|.*illions?|.*fold|.*n't"
    rf"|(?:four|fif|six|seven|eigh|nin|ten|eleven|twelf|{_TENS}een|{_TENS}ie|hundred|thousand|.*illion)ths?|thirds)"
)
_NOUN = re.compile(r"[A-Za-z]{2,}(?:-[A-Za-z]{2,})*")
NAME_WORDS = frozenset(("of", "the", "an", "base", "cube", "square", "sum", "remainder"))
_MAX_WORDS = 4
_POWER = re.compile(r"(.+?)(?:\s*\^\s*\{?\s*([+-]?[1-3])\s*\}?|([23]))")
_WORD_POWERS = tuple(
    (re.compile(pattern, re.IGNORECASE), exponent)
    for pattern, exponent in (
        (r"(?:square|sq\.?)\s+(.+)|(.+)\s+squared", 2),
        (r"(?:cubic|cu\.?)\s+(.+)|(.+)\s+cubed", 3),
    )
)


def _read_table() -> tuple[dict[str, set[Measure]], dict[str, set[Measure]]]:
    """What each symbol (case counts) and each word (lower case, singular or plural) may mean."""
    symbols: dict[str, set[Measure]] = {}
    words: dict[str, set[Measure]] = {}
    prefixed = {symbol: (word, Fraction(10) ** int(power)) for symbol, (word, power) in _TABLE["prefixes"].items()}
    for dimension, factor, own_symbols, prefixes, own_words in _TABLE["units"]:
        exponents = dimension.items() if isinstance(dimension, dict) else [(dimension, 1)]
        for prefix in ("", *prefixes):
            word_prefix, scale = prefixed[prefix] if prefix else ("", Fraction(1))
            measure = tuple((name, int(exponent)) for name, exponent in exponents), Fraction(factor) * scale
            for symbol in own_symbols.split():
                symbols.setdefault(prefix + symbol, set()).add(measure)
            for word in own_words.split():
                for spelling in (word, _TABLE["plurals"].get(word, word + "s")):
                    words.setdefault(word_prefix + spelling, set()).add(measure)
    return symbols, words


_SYMBOLS, _WORDS = _read_table()


def nouns(text: str, allowed: frozenset[str] = frozenset()) -> frozenset[str] | None:
    """The words of a text that may name a thing (lower case, plural s off); None if a word says more than that."""
    words = [word.rstrip(".").lower() for word in text.split()]
    if not 1 <= len(words) <= _MAX_WORDS or "per" in (words[0], words[-1]) or words[-1] in _NOT_LAST - allowed:
        return None
    for word in words:
        banned = not _NUMBERS.isdisjoint({word, word.removesuffix("s"), word.removesuffix("es")})
        banned = banned or word in _NOT_NOUNS - allowed or (_NOT_NOUN.fullmatch(word) and word not in _WORDS)
        if banned or not _NOUN.fullmatch(word):
            return None
    return frozenset(word.removesuffix("s") for word in words)


@lru_cache(maxsize=8192)
def read_unit(text: str) -> Unit | None:
    """Read what stands behind (or the currency sign before) a number as a unit.

    Args:
        text: such as ``cm``, `` km/h``, `` square meters``, `` N·m``, `` red apples``. A single letter needs a space
            before it (``3s``, ``5m`` are algebra), and so does every word that is not in the list.

    Returns:
        The unit; None if the text is none: a variable, a function, a number word, a denial, more than a few words.
    """
    body = text.strip().rstrip(".")
    if re.fullmatch(r"[A-Za-z]\s*", body) and not text[:1].isspace():
        return None
    known = _read_quotient(body)
    if known:
        return known
    return nouns(body) if text[:1].isspace() else None


def _read_quotient(text: str) -> frozenset[Measure] | None:
    """``m/s^2``, ``kg·m/s²``, ``miles per hour``: every part must be in the list."""
    parts = [re.split(r"\s*[·*⋅×]\s*", part) for part in re.split(r"\s*/\s*|\s+per\s+", text)]
    if sum(map(len, parts)) > _MAX_WORDS:
        return None
    results: set[Measure] = {((), Fraction(1))}
    for place, part in enumerate(parts):
        for read in map(_read_power, part):
            if read is None:
                return None
            power = -1 if place else 1
            results = {
                (_multiplied(dimensions, more, power), factor * scale**power)
                for (dimensions, factor), (more, scale) in product(results, read)
            }
    return frozenset(results)


def _multiplied(dimensions: Dimensions, more: Dimensions, power: int) -> Dimensions:
    total = Counter(dict(dimensions))
    total.update({name: power * exponent for name, exponent in more})
    return tuple(sorted((name, exponent) for name, exponent in total.items() if exponent))


def _read_power(text: str) -> set[Measure] | None:
    """``cm``, ``cm^2``, ``square cm``, ``sq. cm``, ``cm squared``, ``s^{-1}``."""
    power = 1
    for pattern, exponent in _WORD_POWERS:
        if match := pattern.fullmatch(text):
            text, power = match[1] or match[2], exponent
    if power == 1 and (match := _POWER.fullmatch(text)):
        text, power = match[1], int(match[2] or match[3])
    found = _read_name(text.strip())
    return found and {(tuple((name, e * power) for name, e in dims), factor**power) for dims, factor in found}


def _read_name(text: str) -> set[Measure] | None:
    """A symbol as it is written; a word or, where it is as clear, a symbol in another case (KG, but not MW)."""
    text = re.sub(r"(?i)^(?:°|degrees?|deg)\s*(c(?:elsius)?|f(?:ahrenheit)?)$", lambda m: "°" + m[1][0].upper(), text)
    found = _SYMBOLS.get(text) or _WORDS.get(text.lower())
    if found is None and len(text) > 1 and text[0] not in "mM":
        same = [symbol for symbol in _SYMBOLS if symbol.lower() == text.lower()]
        found = _SYMBOLS[same[0]] if len(same) == 1 else None
    return found


def conversions(unit: Unit | None, true_unit: Unit | None, *, required: bool) -> set[Fraction]:
    """Factors that may turn a number with one unit into one with the other; none where the units contradict each other.

    Args:
        unit: of the answer; None: it has none.
        true_unit: of the truth.
        required: a unit on one side only is a contradiction, and so is a meaning too many (``¥`` for ``yen``).
    """
    if unit is None or true_unit is None:
        return {Fraction(1)} if unit is true_unit or not required else set()
    names = [name for name in (unit, true_unit) if isinstance(next(iter(name)), str)]
    if names:
        same = unit == true_unit if required else len(names) == 2 and (unit <= true_unit or true_unit <= unit)
        return {Fraction(1)} if same else set()
    if required and {dimension for dimension, _ in unit} != {dimension for dimension, _ in true_unit}:
        return set()
    return {factor / other for dimension, factor in unit for same, other in true_unit if dimension == same}
