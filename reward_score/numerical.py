"""Numerical outcome: whether the answer and the truth are the same number or the same mathematics."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

from reward_score.maths import same_formula
from reward_score.plain_number import PlainNumber, clean_number_text, read_plain_number, split_sides
from reward_score.settings import DEFAULT_SETTINGS, OutcomeSettings
from reward_score.units import Unit, conversions, read_unit

# A number with 6 right decimals (or digits, below 1) is right: 0.333333 for 1/3, 0.30000000000000004 for 0.3.
_ROUNDING = Fraction(1, 10**6)

# Longer texts are compared as they are written. No result is as long, and patterns take time.
_MAX_CHARS = 1000
_MAX_PARTS = 20
_DECIMAL_PLACES = 20
_IDLE_SPACE = re.compile(r"(?<!\d) | (?!\d)")  # not the one of "1 1/2"
_NAN = re.compile(r"[+-]?nan", re.IGNORECASE)
_COMMA = re.compile(r",(?!(?:\d{2},)*\d{3}(?!\d))")  # not the one of 1,000, or 1,00,000
# A formula and its unit, of two letters at least: in \pi r^2 h, the height is no hour.
_WITH_UNIT = re.compile(r"(.*(?:[\d)}π]|\\pi))(\s*°|\s+[A-Za-z]{2}.*)", re.DOTALL)
_BRACKETS = re.compile(r"(\(|\[|\\\{)(.*)(\)|\]|\\\})", re.DOTALL)


def score_numerical(answer: str, truth: str, settings: OutcomeSettings = DEFAULT_SETTINGS) -> float:
    """Reward of a numerical answer. Thread-safe.

    Plain numbers are equal to 6 decimals (6 digits below 1): ``1/2``, ``0.5``, ``\\frac{1}{2}``, ``50\\%``, ``1,000``,
    ``3.0``, ``1.5e3``, ``2 million``, ``minus two``, with a name (``x =``) or a currency in front and a unit behind.
    Units convert (``1 hour`` is ``60 minutes``); different ones, known or not, are wrong; a unit on one side only does
    not count. A chain (``37*48 = 1776``) is right if every side of it is. Lists are compared part by part, with their
    brackets; their order counts in round and square ones. Formulas go to math-verify, see
    :mod:`reward_score.maths`. What can't be read or compared is not the truth, unless it is written the same.

    Args:
        answer: text of the answer.
        truth: true answer, not empty.
        settings: what else counts as right.

    Returns:
        1.0 if they are equal, else 0.0. No answer is right for the truth ``nan``.

    Raises:
        MathWorkerError: the worker process can't start. This is never a score.
    """
    if max(len(answer), len(truth)) > _MAX_CHARS:
        return float(answer.strip() == truth.strip())
    answer, truth = clean_number_text(answer), clean_number_text(truth)
    if not answer or _NAN.fullmatch(truth):
        return 0.0
    return float(_as_written(answer) == _as_written(truth) or _same(answer, truth, settings))


def _as_written(text: str) -> str:
    return _IDLE_SPACE.sub("", text)


def _same(answer: str, truth: str, settings: OutcomeSettings) -> bool:
    """Two values, or two lists of values without brackets, in any order."""
    parts, true_parts = _split(answer) or [answer], _split(truth) or [truth]
    if len(true_parts) == len(parts) == 1:
        return _same_chain(answer, truth, settings)
    return _same_parts(parts, true_parts, settings, ordered=False)


def _same_parts(parts: list[str], true_parts: list[str], settings: OutcomeSettings, *, ordered: bool) -> bool:
    if len(parts) != len(true_parts) or len(parts) > _MAX_PARTS:
        return False
    if ordered:
        return all(_same(part, true, settings) for part, true in zip(parts, true_parts, strict=True))
    left = list(true_parts)
    for part in parts:
        found = next((true for true in left if _same_chain(part, true, settings)), None)
        if found is None:
            return False
        left.remove(found)
    return True


def _same_chain(answer: str, truth: str, settings: OutcomeSettings) -> bool:
    """Every side of the answer's chain is the truth; where the truth is an equation, the answer is one, too."""
    name, sides = split_sides(answer)
    true_name, true_sides = split_sides(truth)
    if name and true_name and name != true_name and _is_symbol(name) and _is_symbol(true_name):
        return False
    if len(true_sides) > 1:
        return len(sides) == len(true_sides) == 2 and same_formula("=".join(sides), "=".join(true_sides))
    true_side = true_sides[0]
    if not settings.unevaluated_work and read_plain_number(true_side) and not any(map(read_plain_number, sides)):
        return False
    return len(sides) <= _MAX_PARTS and all(_same_side(side, true_side, settings) for side in sides)


def _is_symbol(name: str) -> bool:
    """``x``, ``AB``, ``\\angle A``; in words, one thing has many names."""
    return len(name) <= 2 or name.isupper() or not name.replace(" ", "").isalpha()


def _same_side(answer: str, truth: str, settings: OutcomeSettings) -> bool:
    number, true_number = read_plain_number(answer), read_plain_number(truth)
    if number is not None and true_number is not None:
        return _same_number(number, true_number, settings)
    opening, parts, closing = _read_brackets(answer)
    true_opening, true_parts, true_closing = _read_brackets(truth)
    if parts and true_parts:
        ordered = opening in ("(", "[")
        return (opening, closing) == (true_opening, true_closing) and _same_parts(
            parts, true_parts, settings, ordered=ordered
        )
    (formula, unit), (true_formula, true_unit) = _formula(answer, number), _formula(truth, true_number)
    return Fraction(1) in conversions(unit, true_unit, required=settings.require_unit) and same_formula(
        formula, true_formula, settings.tolerance
    )


def _same_number(answer: PlainNumber, truth: PlainNumber, settings: OutcomeSettings) -> bool:
    if (answer.percent and not answer.unit and truth.unit) or (truth.percent and not truth.unit and answer.unit):
        return False
    values, truths = {answer.value}, {truth.value}
    if settings.strict_percent or answer.percent != truth.percent:
        values = _percent_values(answer, settings)
        truths = _percent_values(truth, settings)
    factors = conversions(answer.unit, truth.unit, required=settings.require_unit)
    return any(
        _close(value * factor, true, settings.tolerance) for value in values for true in truths for factor in factors
    )


def _percent_values(number: PlainNumber, settings: OutcomeSettings) -> set[Fraction]:
    """A percent sign is a factor or, unless that is excluded, a unit."""
    if not number.percent:
        return {number.value}
    return {number.value / 100} if settings.strict_percent else {number.value / 100, number.value}


def _close(answer: Fraction, truth: Fraction, tolerance: float) -> bool:
    rounding = _ROUNDING * min(1, max(abs(answer), abs(truth)))
    return abs(answer - truth) <= max(rounding, Fraction(tolerance) * abs(truth))


def _split(text: str) -> list[str] | None:
    """Parts between commas outside of brackets; None where brackets close that were not opened."""
    parts, depth, start = [], 0, 0
    for place, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            return None
        if depth == 0 and _COMMA.match(text, place):
            parts.append(text[start:place].strip())
            start = place + 1
    return [*parts, text[start:].strip()]


def _read_brackets(text: str) -> tuple[str, list[str] | None, str]:
    """Opening bracket, the two or more parts inside (None: the text is no such list), closing bracket."""
    match = _BRACKETS.fullmatch(text)
    parts = _split(match[2]) if match else None
    return (match[1], parts, match[3]) if match and parts and len(parts) > 1 else ("", None, "")


def _formula(text: str, number: PlainNumber | None) -> tuple[str, Unit | None]:
    """The text for the library, and its unit, which the library may not know."""
    if number is None:
        match = _WITH_UNIT.fullmatch(text)
        unit = read_unit(match[2]) if match else None
        return (match[1], unit) if match and unit else (text, None)
    value = number.value / 100 if number.percent else number.value
    # The library rounds decimals and keeps fractions exact: 1.414214 is the square root of 2, 7/5 is not.
    if 10**_DECIMAL_PLACES % value.denominator == 0:
        return format(Decimal(value.numerator) / Decimal(value.denominator), "f"), number.unit
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}", number.unit
