"""Plain numbers, with a unit or a name around them, read without any library of mathematics."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

from reward_score.text import strip_dollars
from reward_score.units import read_unit

_NESTED_WRAPPERS = 3

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_SUPERSCRIPT_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+")
_VULGAR_FRACTION = re.compile("(?<=[0-9])(?=[¼½¾⅐-⅞])")
_PARENTHESISED = re.compile(r"\\\((.*)\\\)|\\\[(.*)\\\]", re.DOTALL)
_BOXED = re.compile(r"\\f?boxed\s*\{(.*)\}", re.DOTALL)
_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_REPLACEMENTS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"[−–]", "-"),
        (r"⁄|∕", "/"),
        (r"\\[dt]frac", r"\\frac"),
        (r"\\(?:left|right)(?![A-Za-z])", ""),
        (r"\^?\{?\s*(?:\\circ|\\degree|∘)(?![A-Za-z])\s*\}?", "°"),
        (r"(?<=\d)\\,(?=\d{3}(?!\d))", ","),
        (r"\{,\}", ","),
        (r"\\[,;:! ]|~(?=\S)|\\q?quad(?![A-Za-z])", " "),
        (r"\\([%$#&])", r"\1"),
        (r"\\times(?![A-Za-z])", "×"),
        (r"\\cdot(?![A-Za-z])", "·"),
        (r"\\approx(?![A-Za-z])", "≈"),
    )
)

_LEAD_IN = r"(?:(?:the\s+)?(?:final\s+|correct\s+)?answer\s*(?:is|:|=)\s*:?)?\s*"
_NAME = r"(?:[A-Za-zα-ωΑ-Ω\\∠△][\w\s\\{}()'∠△]{0,40})"
_ABOUT = r"(?:≈|about\b|around\b|roughly\b|approximately\b|approx\.?)?\s*"
_CURRENCY = r"(?P<currency>US\$|[$€£¥₹₩])?\s*"
_DECIMAL = r"(?:(?:\d{1,3}(?:[, ]\d{3})+|\d+)(?:\.\d*)?|\.\d+)"
_NUMBER = re.compile(
    rf"{_LEAD_IN}(?:{_NAME}?\s*=)?\s*{_ABOUT}(?P<sign>[+-]?)\s*{_CURRENCY}(?P<inner_sign>[+-]?)"
    rf"(?:(?:(?P<whole>\d+)(?:\s+|\s*(?=\\)))?"
    rf"(?:(?P<top>{_DECIMAL})\s*/\s*(?P<bottom>{_DECIMAL})"
    rf"|\\frac\s*\{{\s*(?P<ftop>-?{_DECIMAL})\s*\}}\s*\{{\s*(?P<fbottom>-?{_DECIMAL})\s*\}}"
    rf"|\\frac\s*(?P<dtop>\d)\s*(?P<dbottom>\d))"
    rf"|(?P<decimal>{_DECIMAL})(?:[eE](?P<e>[+-]?\d{{1,2}})"
    rf"|\s*[×·*x]\s*10\s*\^\s*(?:\{{\s*(?P<p>[+-]?\d{{1,2}})\s*\}}|(?P<q>[+-]?\d{{1,2}})))?)"
    r"(?P<tail>.*)",
    re.DOTALL | re.IGNORECASE,
)
_TRAILING_NAME = re.compile(rf"\s*=\s*{_NAME}")
_PERCENT = re.compile(r"\s*(?:%|per\s?cent(?:age)?(?:\s+points?)?\b|pct\b)(?P<rest>.*)", re.DOTALL | re.IGNORECASE)
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SCALE = re.compile(rf"\s*(?P<scale>{'|'.join(_SCALES)})\b(?P<rest>.*)", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class PlainNumber:
    """A number as written.

    Attributes:
        value: exact; before a percent sign is applied.
        percent: whether a percent sign stands behind it.
        unit: canonical unit where it is a known one, else None (no unit, or an unknown one).
    """

    value: Fraction
    percent: bool
    unit: str | None


def clean_number_text(text: str) -> str:
    """The text of a number or formula in one notation: no math delimiters, NFKC, LaTeX spacing and text flattened."""
    text = _SUPERSCRIPT_RUN.sub(lambda run: f"^{{{run[0].translate(_SUPERSCRIPTS)}}}", text)
    text = unicodedata.normalize("NFKC", _VULGAR_FRACTION.sub(" ", text)).strip()
    for _ in range(_NESTED_WRAPPERS):
        text = strip_dollars(text.replace("**", "") if text.startswith("**") and text.endswith("**") else text)
        for wrapper in (_PARENTHESISED, _BOXED):
            match = wrapper.fullmatch(text)
            if match:
                text = next(group for group in match.groups() if group is not None).strip()
        text = _TEXT_COMMAND.sub(r" \1 ", text)
    for pattern, replacement in _REPLACEMENTS:
        text = pattern.sub(replacement, text)
    return " ".join(text.split()).rstrip(" .,;。")


def read_plain_number(text: str) -> PlainNumber | None:
    """Read a number that stands alone, but for a name or currency in front and a unit behind.

    Args:
        text: from :func:`clean_number_text`.

    Returns:
        The number, or None if the text is anything else (a formula, several numbers, prose).
    """
    match = _NUMBER.fullmatch(text)
    if match is None or (match["sign"] and match["inner_sign"]):
        return None
    value = _value(match)
    tail = _read_tail(match["tail"])
    if value is None or tail is None:
        return None
    scale, percent, unit = tail
    sign = -1 if "-" in (match["sign"], match["inner_sign"]) else 1
    if match["currency"]:
        unit = read_unit(match["currency"][-1]).canonical
    return PlainNumber(value=sign * scale * value, percent=percent, unit=unit)


def _value(match: re.Match[str]) -> Fraction | None:
    """The unsigned value; None for a zero denominator."""
    if match["decimal"]:
        exponent = int(match["e"] or match["p"] or match["q"] or 0)
        return _fraction(match["decimal"]) * Fraction(10) ** exponent
    top = match["top"] or match["ftop"] or match["dtop"]
    bottom = _fraction(match["bottom"] or match["fbottom"] or match["dbottom"])
    return None if bottom == 0 else int(match["whole"] or 0) + _fraction(top) / bottom


def _fraction(decimal: str) -> Fraction:
    return Fraction(decimal.replace(",", "").replace(" ", ""))


def _read_tail(tail: str) -> tuple[int, bool, str | None] | None:
    """Scale, percent sign and known unit of what follows a number; None if it is more than that."""
    scale, percent = 1, False
    if match := _SCALE.fullmatch(tail):
        scale, tail = _SCALES[match["scale"].lower()], match["rest"]
    if match := _PERCENT.fullmatch(tail):
        percent, tail = True, match["rest"]
    if not tail.strip() or _TRAILING_NAME.fullmatch(tail):
        return scale, percent, None
    unit = read_unit(tail)
    return None if unit is None else (scale, percent, unit.canonical)
