"""Plain numbers, with a unit or a name around them, read without any library of mathematics."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

from reward_score.text import normalise, strip_dollars
from reward_score.units import NAME_WORDS, Unit, nouns, read_unit

_NESTED_WRAPPERS = 3

_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_RAISED_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+")
_LOWERED_RUN = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_VULGAR_FRACTION = re.compile("[¼½¾⅐-⅞]")
_BRACED = r"\{[^{}]*\}"
for _ in range(2):
    _BRACED = rf"\{{(?:[^{{}}]|{_BRACED})*\}}"
_BOXED = re.compile(rf"\\(?:boxed|fbox)\s*({_BRACED})")
_WRAPPERS = (re.compile(r"\\\((.*)\\\)", re.DOTALL), re.compile(r"\\\[(.*)\\\]", re.DOTALL))
_WRAPPERS += (re.compile(r"\*\*([^*]*)\*\*"), re.compile(r"\(([^(),]*)\)"))
_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_REPLACEMENTS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"[−–]", "-"),
        (r"⁄|∕", "/"),
        (r"\\[dtc]frac", r"\\frac"),
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
_LEAD_IN = re.compile(
    r"(?:(?:the|my)\s+)?(?:final\s+|correct\s+)?(?:answer|result)\s*(?:is|:|=)\s*:?\s*|it(?:\s+is|'s)\s+"
    r"|答案(?:是|为)?\s*:?\s*",
    re.IGNORECASE,
)
# Names of one thing: x, x_{1}, f(2), \\angle ABC, \\tan \\theta. Longer ones are words: area of the triangle.
_LETTERS = r"(?:[A-Za-zα-ωΑ-Ω]{1,3}|\\(?:alpha|beta|gamma|delta|theta|lambda|mu|rho|sigma|tau|phi|varphi|omega)\b)"
_NAME = re.compile(
    rf"(?:m?\s*(?:\\angle|∠|\\triangle|△)\s*|\\?(?:sin|cos|tan)\s+)?{_LETTERS}'?(?:_\{{?\w+\}}?)?(?:\(\w+\))?"
    r"|\([a-z](?:, ?[a-z])+\)"
)
_CONSTANTS = frozenset(("e", "i", "π", "nan", "inf"))
_UNSPLIT = re.compile(r"[<>≤≥≠:~≡]|!=|\\(?:not|equiv|sim|cong)(?![A-Za-z])")

_TO_19 = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
)
_ONES = f"{_TO_19} eighteen nineteen".split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_TO_99 = _ONES + [f"{ten} {one}".strip() for ten in _TENS.split() for one in ("", *_ONES[1:10])]
_SPELLED = {text: number for number, text in enumerate(_TO_99)} | {
    f"{_ONES[hundreds]} hundred{link}{rest}": 100 * hundreds + number
    for hundreds in range(1, 10)
    for link in (" ", " and ")
    for number, rest in enumerate(_TO_99)
}
_SPELLED |= {f"{one} hundred": 100 * number for number, one in enumerate(_ONES[1:10], 1)}
_SIGN_WORD = re.compile(r"(?:minus|negative)\s+(?=[\d.$€£¥₹₩\\a-z])", re.IGNORECASE)
_SPELLED_RUN = re.compile(rf"(?:(?:{'|'.join((*_ONES, *_TENS.split()))}|hundred|and)\b[ -]?)+", re.IGNORECASE)

_ABOUT = r"(?:≈|about\b|around\b|roughly\b|approximately\b|approx\.?)?\s*"
_DECIMAL = r"(?:(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d{1,2}(?:,\d{2})+,\d{3}|\d+)(?:\.\d*)?|\.\d+)"
_NUMBER = re.compile(
    rf"{_ABOUT}(?P<sign>[+-]?)\s*(?P<currency>(?:US)?\$|[€£¥₹₩])?\s*(?P<inner_sign>[+-]?)"
    rf"(?:(?:(?P<whole>\d+)(?:\s+|\s*(?=\\)))?"
    rf"(?:(?P<top>{_DECIMAL})\s*/\s*(?P<bottom>{_DECIMAL})"
    rf"|\\frac\s*\{{\s*(?P<ftop>-?{_DECIMAL})\s*\}}\s*\{{\s*(?P<fbottom>-?{_DECIMAL})\s*\}}"
    rf"|\\frac\s*(?P<dtop>\d)\s*(?P<dbottom>\d))"
    rf"|(?P<start>\d+\.\d*)\\(?:overline|bar|dot)\s*\{{?\s*(?P<repeated>\d+)\s*\}}?"
    rf"|(?P<decimal>{_DECIMAL})(?:[eE](?P<e>[+-]?\d{{1,2}})"
    rf"|\s*[×·*x]\s*10\s*\^\s*(?:\{{\s*(?P<p>[+-]?\d{{1,2}})\s*\}}|(?P<q>[+-]?\d{{1,2}})))?)"
    r"(?P<tail>.*)",
    re.DOTALL | re.IGNORECASE,
)
_PERCENT = re.compile(r"\s*(?:%|per\s?cent(?:age)?(?:\s+points?)?\b|pct\b)(?P<rest>.*)", re.DOTALL | re.IGNORECASE)
_SCALES = {"dozen": 12, "hundred": 10**2, "thousand": 10**3, "lakh": 10**5, "million": 10**6, "crore": 10**7}
_SCALES |= {"billion": 10**9, "trillion": 10**12}
_SCALE = re.compile(rf"\s*(?P<scale>{'|'.join(_SCALES)})\b(?P<rest>.*)", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class PlainNumber:
    """A number as written.

    Attributes:
        value: exact; before a percent sign is applied.
        percent: whether a percent sign stands behind it.
        unit: what stands behind it or, as a currency, in front; None: nothing.
    """

    value: Fraction
    percent: bool
    unit: Unit | None


def clean_number_text(text: str) -> str:
    """The text of a number or formula in one notation: no lead-in, no math delimiters, NFKC, LaTeX text flattened."""
    text = _RAISED_RUN.sub(lambda run: f"^{{{run[0].translate(_RAISED)}}}", text)
    text = _LOWERED_RUN.sub(lambda run: f"_{{{run[0].translate(_LOWERED)}}}", text)
    text = normalise(_VULGAR_FRACTION.sub(lambda sign: f" {unicodedata.normalize('NFKC', sign[0])}", text))
    text = unwrap(text)
    for pattern, replacement in _REPLACEMENTS:
        text = pattern.sub(replacement, text)
    return " ".join(text.split())


def unwrap(text: str) -> str:
    """Text without a lead-in, math delimiters, box, bold face or parentheses around the whole; LaTeX text flattened."""
    for _ in range(_NESTED_WRAPPERS):
        text = _TEXT_COMMAND.sub(r" \1 ", strip_dollars(text)).strip().rstrip(" .,;。")
        if match := _LEAD_IN.match(text):
            text = text[match.end() :]
        if match := _BOXED.fullmatch(text):
            text = match[1][1:-1].strip()
        for wrapper in _WRAPPERS:
            if match := wrapper.fullmatch(text):
                text = match[1].strip()
    return text


def split_sides(text: str) -> tuple[str | None, list[str]]:
    """The sides of a chain of equations, unwrapped, without the name that it may begin (``x = 5``) or end with.

    Returns:
        The name, or None, and the sides; a text with another relation (``x > 5``, ``1:2``) is one side.
    """
    sides = [text] if _UNSPLIT.search(text) else text.split("=")
    name = None
    for end in (0, -1):
        if name is None and len(sides) > 1 and _is_name(sides[end].strip()):
            name = sides.pop(end).strip()
    return name, [_BOXED.sub(lambda box: f"({box[1][1:-1]})", unwrap(side.strip())) for side in sides]


def _is_name(text: str) -> bool:
    if text in _CONSTANTS:
        return False
    words = nouns(text, NAME_WORDS) is not None
    return words if len(text) > 1 and text.isalpha() else words or _NAME.fullmatch(text) is not None


def read_plain_number(text: str) -> PlainNumber | None:
    """Read a number that stands alone, but for a currency in front and a unit behind.

    Args:
        text: one side from :func:`split_sides`.

    Returns:
        The number, or None if the text is anything else (a formula, several numbers, prose).
    """
    text = _digits_for_words(text)
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
        if unit is not None:
            return None
        unit = read_unit(match["currency"])
    return PlainNumber(value=sign * scale * value, percent=percent, unit=unit)


def _digits_for_words(text: str) -> str:
    """``minus twenty-one apples`` as ``-21 apples``."""
    sign = _SIGN_WORD.match(text)
    text = text[sign.end() :] if sign else text
    if run := _SPELLED_RUN.match(text):
        number = _SPELLED.get(" ".join(re.findall("[a-z]+", run[0].lower())))
        text = text if number is None else f"{number} {text[run.end() :]}"
    return f"-{text}" if sign else text


def _value(match: re.Match[str]) -> Fraction | None:
    """The unsigned value; None for a zero denominator."""
    if match["decimal"]:
        exponent = int(match["e"] or match["p"] or match["q"] or 0)
        return _fraction(match["decimal"]) * Fraction(10) ** exponent
    if match["repeated"]:
        start, digits = match["start"], match["repeated"]
        places = len(start.partition(".")[2])
        return _fraction(start) + Fraction(int(digits), (10 ** len(digits) - 1) * 10**places)
    top = match["top"] or match["ftop"] or match["dtop"]
    bottom = _fraction(match["bottom"] or match["fbottom"] or match["dbottom"])
    return None if bottom == 0 else int(match["whole"] or 0) + _fraction(top) / bottom


def _fraction(decimal: str) -> Fraction:
    return Fraction(decimal.replace(",", "").replace(" ", ""))


def _read_tail(tail: str) -> tuple[int, bool, Unit | None] | None:
    """Scale, percent sign and unit of what follows a number; None if it is more than that."""
    scale, percent = 1, False
    if match := _SCALE.fullmatch(tail):
        scale, tail = _SCALES[match["scale"].lower()], match["rest"]
    if match := _PERCENT.fullmatch(tail):
        percent, tail = True, match["rest"]
    if not tail.strip():
        return scale, percent, None
    unit = read_unit(tail)
    return None if unit is None else (scale, percent, unit)
