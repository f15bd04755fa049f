"""Numerical outcome: whether the answer and the truth are the same number or the same mathematics."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

from reward_score.math_pool import same_mathematics
from reward_score.plain_number import PlainNumber, clean_number_text, read_plain_number

# A number with 6 right decimals (or digits, below 1) is right: 0.333333 for 1/3, 0.30000000000000004 for 0.3.
_TOLERANCE = Fraction(1, 10**6)

# Longer texts are compared as they are written. No result is as long, and patterns take time.
_MAX_CHARS = 1000
_DECIMAL_PLACES = 20
_IDLE_SPACE = re.compile(r"(?<!\d) | (?!\d)")  # not the one of "1 1/2"

# What goes to the library at all. Its worker is bounded in time and memory anyhow; this keeps the bounds from being
# reached by answers that are plainly no result: prose, endless digits, towers of powers.
_MAX_DEPTH = 12
_MAX_WORDS = 3
_WORD = re.compile(r"(?<![\\A-Za-z])(?!sqrt|sin|cos|tan|log|exp|inf|arc)[A-Za-z]{3,}")
_NOT_SENT = re.compile(
    r"\d\.\d*\.\d"  # 1.2.3, which the library takes for a product
    r"|\d{40}"  # endless digits
    r"|\^[\s{(]*[+-]?\d{4}"  # exponents of 1000 and more
    r"|\^[\s{(]*[\d.]+[\s})]*(?:\^|!)"  # towers
    r"|\d{4}[\s})]*!|![\s})]*!"  # large and repeated factorials
)


def score_numerical(answer: str, truth: str) -> float:
    """Reward of a numerical answer. Thread-safe.

    Plain numbers are equal to 6 decimals (6 digits below 1): ``1/2``, ``0.5``,
    ``\\frac{1}{2}``, ``50\\%``, ``1,000``, ``3.0``, ``1.5e3``, ``2 million``, with a name (``x =``) or a currency in
    front and a unit behind. Units do not count, except that two known ones must be the same (``5 cm`` is not ``5 m``).
    Where only one side has a percent sign, it may be a value (0.5) or a unit (50). Everything else goes to math-verify,
    in a worker process bounded in time and memory: see :mod:`reward_score.math_pool`. An expression that can't be read
    or compared within the bounds is not the truth, unless it is written the same.

    Args:
        answer: text of the answer.
        truth: true answer, not empty.

    Returns:
        1.0 if they are equal, else 0.0.

    Raises:
        MathWorkerError: the worker process can't start. This is never a score.
    """
    if max(len(answer), len(truth)) > _MAX_CHARS:
        return float(answer.strip() == truth.strip())
    answer, truth = clean_number_text(answer), clean_number_text(truth)
    if not answer:
        return 0.0
    if _IDLE_SPACE.sub("", answer) == _IDLE_SPACE.sub("", truth):
        return 1.0
    answer_number, true_number = read_plain_number(answer), read_plain_number(truth)
    if answer_number is not None and true_number is not None:
        return float(_same_number(answer_number, true_number))
    if not (_may_be_maths(answer) and _may_be_maths(truth)):
        return 0.0
    return float(_same_mathematics(_for_library(answer, answer_number), _for_library(truth, true_number)))


def _same_number(answer: PlainNumber, truth: PlainNumber) -> bool:
    if answer.unit is not None and truth.unit is not None and answer.unit != truth.unit:
        return False
    if answer.percent == truth.percent:
        return _close(answer.value, truth.value)
    if answer.percent:
        return _close(answer.value, truth.value) or _close(answer.value / 100, truth.value)
    return _close(answer.value, truth.value) or _close(answer.value, truth.value / 100)


def _close(answer: Fraction, truth: Fraction) -> bool:
    return abs(answer - truth) <= _TOLERANCE * min(1, max(abs(answer), abs(truth)))


def _may_be_maths(text: str) -> bool:
    """Whether a text is worth the library: shallow, no prose, nothing that explodes."""
    if _NOT_SENT.search(text.replace("**", "^")):
        return False
    depth = deepest = 0
    for character in text:
        depth += (character in "({[") - (character in ")}]")
        deepest = max(deepest, depth)
    return deepest <= _MAX_DEPTH and len(_WORD.findall(text)) <= _MAX_WORDS


def _for_library(text: str, number: PlainNumber | None) -> str:
    """LaTeX for the library; a plain number without its name and unit, which the library may not know."""
    if number is None:
        return text
    value = number.value / 100 if number.percent else number.value
    # The library rounds decimals and keeps fractions exact: 1.414214 is the square root of 2, 7/5 is not.
    if 10**_DECIMAL_PLACES % value.denominator == 0:
        return format(Decimal(value.numerator) / Decimal(value.denominator), "f")
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


# Groups repeat answers, and epochs repeat questions.
@lru_cache(maxsize=8192)
def _same_mathematics(answer: str, truth: str) -> bool:
    return same_mathematics(answer, truth)
