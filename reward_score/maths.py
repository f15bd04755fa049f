"""Which formulas go to the library of mathematics, and in what form.

Its worker is bounded in time and memory anyhow (:mod:`reward_score.math_pool`); this keeps the bounds from being
reached, and the library from reading what is no result: it takes ``2 3`` and ``2(3)`` for 5, ``5'`` for 5, ``X`` for
``x``, and the last number of a chain for the whole. So the form is a closed list: everything in it must be known.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache

from reward_score import math_pool

_MAX_CHARS = 200
_MAX_DEPTH = 8
_MAX_POWER = 1000  # product of all exponents: (9^{99})^{99} is one of 9801
_MAX_POWER_OF_SUMS = 20  # (x+y+z)^{20} has 231 terms
_MAX_EXPONENTIALS = 2

# Plain-text notation that the LaTeX parser would take for products of letters.
_TO_LATEX = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\*\*", "^"),
        (r"[*×·⋅]", r" \\cdot "),
        (r"÷", r" \\div "),
        (r"π|(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi "),
        (r"∞|(?<![\\A-Za-z])(?:infinity|inf)(?![A-Za-z])", r"\\infty "),
        (r"(?:√|(?<![\\A-Za-z])sqrt)\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"(?:√|(?<![\\A-Za-z])sqrt)\s*(\d+(?:\.\d+)?|[A-Za-z])", r"\\sqrt{\1}"),
        (r"(?<![\\A-Za-z])(sin|cos|tan|cot|log|ln|exp)(?![A-Za-z])", r"\\\1 "),
        (r"\^\s*(-?\d+)(?![\d.])", r"^{\1}"),
        (r"≤", r"\\le "),
        (r"≥", r"\\ge "),
        (r"≠", r"\\ne "),
        (r"°", r"^\\circ "),
    )
)
_COMMANDS = (
    "sqrt frac binom cdot times div pi infty pm circ le ge leq geq ne neq lt gt log ln exp sin cos tan cot sec csc"
)
_COMMANDS += " arcsin arccos arctan"
_GREEK = "alpha beta gamma delta theta lambda mu rho sigma tau phi varphi omega"
_COMMAND = re.compile(rf"\\(?:{'|'.join([*_COMMANDS.split(), *_GREEK.split()])})(?![A-Za-z])")
_KNOWN = re.compile(rf"(?:{_COMMAND.pattern}|[\dA-Za-z\s.+\-/^_{{}}()|!<>=]|(?<=\\sqrt)\[\d\])*", re.ASCII)
_NOT_SENT = re.compile(
    r"\d\.\d*\.\d|(?<!\d)\.(?!\d)|\d\.(?!\d)"  # 1.2.3, which the library takes for a product
    r"|\d{40}"  # endless digits
    r"|(?<![\d.])0\d|(?<!\d)(?:1[5-9]|20)\d\d-\d\d?-\d\d?(?!\d)|\d+/\d+/\d{4}"  # 007, dates
    r"|[\d)}]\s*_|\d\s+[\d.]|[)}]\s*[\d.]|[\d.]\s*\(\s*[-+]?[\d.]|[+-]\s*[+-]"  # 5_2, 2 3, (2)3, 2(3), --5
    r"|\d{4}!|[^\d]!|!\s*!"  # large and repeated factorials, or of what is no number
    r"|\\binom(?!\s*\{\d{1,3}\}\s*\{\d{1,3}\})"
)
_BASE = re.compile(r"log\s*_\s*(?:\{\s*\w+\s*\}|\w)\s*")
# One exponent: a short number or fraction, degrees, or something with a letter; no powers in it.
_EXPONENT = re.compile(
    r"\^\s*(?:\{?\(?\s*[+-]?(?P<whole>\d+)(?:\.\d{1,6}|/\d{1,3})?\s*\)?\}?(?!\d)"
    r"|\{?\s*[+-]?\\frac\s*\{?\d{1,2}\}?\s*\{?\d{1,2}\}?\s*\}?|\{?\\circ\}?"
    r"|[A-Za-z]|\\[a-z]+|\{(?=[^{}^]*[A-Za-z])[^{}^]*\})(?![\s}]*\^)"
)
_EXPONENTIAL = re.compile(r"\\exp|e\s*\^")
_RELATION = re.compile(r"[<>=]|\\(?:l[et]q?|g[et]q?|neq?)(?![A-Za-z])|\\pm")


def to_latex(text: str) -> str:
    """Plain-text notation (``2*sqrt(3)``, ``π/2``, ``x**2``) as LaTeX."""
    for pattern, replacement in _TO_LATEX:
        text = pattern.sub(replacement, text)
    return text


def same_formula(answer: str, truth: str, tolerance: float = 0.0) -> bool:
    """Whether two formulas are equal; False where one is not in the closed form, or the library can't read it.

    Args:
        answer: LaTeX or plain formula.
        truth: the same.
        tolerance: share of a true number by which an answer may be off.

    Raises:
        MathWorkerError: the worker process can't start.
    """
    answer, truth = to_latex(answer), to_latex(truth)
    return (
        _is_sent(answer) and _is_sent(truth) and _kind(answer) == _kind(truth) and _ask(answer, truth, float(tolerance))
    )


def _is_sent(text: str) -> bool:
    if not text or len(text) > _MAX_CHARS or not _KNOWN.fullmatch(text) or _NOT_SENT.search(_BASE.sub("log ", text)):
        return False
    if re.search(r"[A-Za-z]\s*\d", _COMMAND.sub("|", text)):  # x1, which the library takes for x
        return False
    depth = deepest = 0
    for character in text:
        depth += (character in "({[") - (character in ")}]")
        deepest = max(deepest, depth)
        if depth < 0:
            return False
    return depth == 0 and deepest <= _MAX_DEPTH and _powers_are_small(text)


def _powers_are_small(text: str) -> bool:
    exponents = list(_EXPONENT.finditer(text))
    power = math.prod(int(exponent["whole"]) for exponent in exponents if exponent["whole"])
    limit = _MAX_POWER_OF_SUMS if "(" in text and _letters(text) else _MAX_POWER
    return len(exponents) == text.count("^") and power <= limit and len(_EXPONENTIAL.findall(text)) <= _MAX_EXPONENTIALS


def _letters(text: str) -> frozenset[str]:
    """Variables, ``e`` apart; case counts."""
    return frozenset(re.findall("[A-Za-z]", _COMMAND.sub(" ", text))) - {"e"}


def _kind(text: str) -> tuple[frozenset[str], frozenset[str], bool]:
    """What equal formulas have in common: their variables (greek ones, too), and whether they are a relation."""
    greek = frozenset(command for command in _COMMAND.findall(text) if command[1:] in _GREEK.split())
    return _letters(text), greek, _RELATION.search(text) is not None


# Groups repeat answers, and epochs repeat questions.
@lru_cache(maxsize=8192)
def _ask(answer: str, truth: str, tolerance: float) -> bool:
    return math_pool.same_mathematics(answer, truth, tolerance)
