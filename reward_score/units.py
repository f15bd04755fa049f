"""Units behind a number: which texts are one, and which of them are the same."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Canonical unit and its spellings in lower case. Only these can contradict each other; any other word is let through.
_SPELLINGS = {
    "mm": "mm millimeter millimeters millimetre millimetres",
    "cm": "cm centimeter centimeters centimetre centimetres cms",
    "m": "m meter meters metre metres",
    "km": "km kilometer kilometers kilometre kilometres kms",
    "in": "in inch inches",
    "ft": "ft foot feet",
    "yd": "yd yard yards",
    "mi": "mi mile miles",
    "mg": "mg milligram milligrams",
    "g": "g gram grams",
    "kg": "kg kilogram kilograms kgs",
    "lb": "lb lbs pound pounds",
    "oz": "oz ounce ounces",
    "ml": "ml milliliter milliliters millilitre millilitres",
    "l": "l liter liters litre litres",
    "s": "s sec secs second seconds",
    "min": "min mins minute minutes",
    "h": "h hr hrs hour hours",
    "d": "day days",
    "week": "week weeks",
    "month": "month months",
    "y": "yr yrs year years",
    "n": "newton newtons",
    "j": "joule joules",
    "w": "watt watts",
    "kw": "kw kilowatt kilowatts",
    "v": "volt volts",
    "hz": "hz hertz",
    "ohm": "ohm ohms ω",
    "°": "° degree degrees deg",
    "rad": "rad radian radians",
    "$": "$ usd dollar dollars",
    "€": "€ eur euro euros",
    "¥": "¥ yen yuan rmb cny jpy",
    "£": "£ gbp",
    "cent": "cent cents",
}
_CANONICAL = {spelling: unit for unit, spellings in _SPELLINGS.items() for spelling in spellings.split()}
# Letters that are units and not variables.
_SYMBOLS = frozenset("NJKACFTVW")
# Words that go on with a calculation, another number, or a denial.
_NOT_UNIT = re.compile(
    r"pi|sin|cos|tan|cot|csc|log|ln|exp|sqrt|mod|hundred|dozen|and|or|not|is|are|was|to|plus|minus|times|over|divided"
    r"|than|if|but",
    re.IGNORECASE,
)
_MAX_WORDS = 4

_POWER = re.compile(r"\^?\{?([23])\}?$")
_WORD = re.compile(r"[^\W\d_]{2,}(?:-[^\W\d_]{2,})*\.?")


@dataclass(frozen=True)
class Unit:
    """A text that is a unit; ``canonical`` is None where it is not in the table."""

    canonical: str | None


def read_unit(text: str) -> Unit | None:
    """Read the text behind (or the currency sign before) a number as a unit.

    Args:
        text: such as ``cm``, `` km/h``, `` square meters``, `` red apples``. Words that are not in the table need a
            space before them: ``5abc`` is no number with a unit.

    Returns:
        The unit, or None if the text is none: a variable, a function, or more than a few words.
    """
    body = text.strip().rstrip(".")
    canonical = _canonical_quotient(body)
    if canonical is not None:
        return Unit(canonical)
    if body in _SYMBOLS or re.fullmatch(r"°\s*[CF]", body):
        return Unit(None)
    words = body.split()
    spaced = text[:1].isspace() and len(words) <= _MAX_WORDS
    if spaced and all(_WORD.fullmatch(word) and not _NOT_UNIT.fullmatch(word) for word in words):
        return Unit(None)
    return None


def _canonical_quotient(text: str) -> str | None:
    """``m/s^2`` and the like: every part must be in the table."""
    parts = [_canonical_power(part) for part in re.split(r"\s*/\s*|\s+per\s+", text)]
    return "/".join(part for part in parts if part) if all(parts) else None


def _canonical_power(text: str) -> str | None:
    """``cm^2``, ``square cm``, ``sq. cm``, ``cm squared``."""
    text = text.lower()
    power = ""
    for pattern, exponent in ((r"(?:square|sq\.?)\s+|\s+squared", "2"), (r"(?:cubic|cu\.?)\s+|\s+cubed", "3")):
        text, found = re.subn(rf"^(?:{pattern})|(?:{pattern})$", "", text)
        power = exponent if found else power
    if match := _POWER.search(text):
        text, power = text[: match.start()], match[1]
    unit = _CANONICAL.get(text.strip())
    return unit and f"{unit}^{power}" if power else unit
