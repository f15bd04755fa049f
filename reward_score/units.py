"""Units behind a number: which texts are one, what they measure, and how they convert.

A closed list. A library such as pint reads far more than is a unit here: ``cats`` are centi-technical-atmospheres to
it, ``mats`` milliares, ``pins`` picoinches, ``e`` a charge; it has no money, and neither ``KG`` nor ``Hours``.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from itertools import product

# Dimension, factor to the dimension's first unit, symbols (case counts), prefixes that they take, words (singular).
_UNITS = (
    ("length", "1", "m", "nμmcdk", "meter metre"),
    ("length", "1000", "kms", "", ""),
    ("length", "0.0254", "in", "", "inch"),
    ("length", "0.3048", "ft", "", "foot"),
    ("length", "0.9144", "yd", "", "yard"),
    ("length", "1609.344", "mi", "", "mile"),
    ("length*3", "0.001", "L l", "μmcd", "liter litre"),
    ("length*3", "0.003785411784", "gal", "", "gallon"),
    ("length*2", "10000", "ha", "", "hectare"),
    ("length*2", "4046.8564224", "", "", "acre"),
    ("length/time", "0.44704", "mph", "", ""),
    ("mass", "1", "g", "μmk", "gram gramme"),
    ("mass", "1000", "kgs", "", ""),
    ("mass", "1000000", "t", "", "tonne"),
    ("mass", "453.59237", "lb lbs", "", "pound"),
    ("mass", "28.349523125", "oz", "", "ounce"),
    ("time", "1", "s", "nμm", "second sec"),
    ("time", "60", "", "", "minute min"),
    ("time", "3600", "h", "", "hour hr"),
    ("time", "86400", "d", "", "day"),
    ("time", "604800", "wk", "", "week"),
    ("months", "1", "", "", "month"),
    ("months", "12", "", "", "year yr"),
    ("current", "1", "A", "μmk", "ampere amp"),
    ("voltage", "1", "V", "μmk", "volt"),
    ("resistance", "1", "Ω", "kM", "ohm"),
    ("charge", "1", "C", "nμm", "coulomb"),
    ("capacitance", "1", "F", "nμm", "farad"),
    ("power", "1", "W", "μmkMG", "watt"),
    ("energy", "1", "J", "mkM", "joule"),
    ("energy", "3600", "Wh", "kM", ""),
    ("energy", "4.184", "cal", "k", "calorie"),
    ("electronvolts", "1", "eV", "kMG", "electronvolt"),
    ("force", "1", "N", "mk", "newton"),
    ("pressure", "1", "Pa", "kM", "pascal"),
    ("frequency", "1", "Hz", "kMGT", "hertz"),
    ("amount", "1", "mol", "m", "mole"),
    ("level", "1", "dB", "", "decibel"),
    ("data", "1", "", "kMG", "bit"),
    ("data", "8", "B", "kMGT", "byte"),
    ("kelvin", "1", "K", "", "kelvin"),
    ("celsius", "1", "°C ° deg", "", "celsius degree"),
    ("fahrenheit", "1", "°F ° deg", "", "fahrenheit degree"),
    ("angle", "1", "° deg", "", "degree"),
    ("radian", "1", "rad", "", "radian"),
    ("dollar", "1", "$ US$", "", "dollar usd"),
    ("dollar", "0.01", "¢", "", "cent"),
    ("euro", "1", "€", "", "euro eur"),
    ("sterling", "1", "£", "", "pound gbp"),
    ("yen", "1", "¥", "", "yen jpy"),
    ("yuan", "1", "¥", "", "yuan rmb cny"),
    ("rupee", "1", "₹", "", "rupee inr"),
    ("won", "1", "₩", "", "won krw"),
)
_PREFIXES = {
    "n": ("nano", -9),
    "μ": ("micro", -6),
    "m": ("milli", -3),
    "c": ("centi", -2),
    "d": ("deci", -1),
    "k": ("kilo", 3),
    "M": ("mega", 6),
    "G": ("giga", 9),
    "T": ("tera", 12),
}
_PLURALS = {"inch": "inches", "foot": "feet", "hertz": "hertz"}

# A known unit: exponents of its dimensions, sorted, and its factor.
Measure = tuple[tuple[tuple[str, int], ...], Fraction]
# What a text may mean: known units (°, pounds and ¥ have several), or the words of an unknown one.
Unit = frozenset[Measure] | frozenset[str]

# No word of an unknown unit: it makes the number another one, denies it, or goes on.
_NOT_NOUNS_TEXT = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion trillion
quadrillion dozen gross score lakh crore mil mille tausend millionen milliarden mio mrd mln bn tn thou grand half
halves quarter third fifth ninth twelfth eighth twentieth first second once twice thrice double triple quadruple
single couple pair few several many some any all both square cube squared cubed sq cubic cu power powers exponent
exponential factorial root roots inverse inverted reciprocal negated negative positive opposite complement doubled
tripled quadrupled halved fold times plus minus over divided multiplied added subtracted increased decreased reduced
raised rounded modulo mod base binary octal hex hexadecimal decimal decimals repeating recurring bar overline point
dot comma percent percentage permille permil ppm pip bp bps basis remainder absolute pi tau euler infinity sin cos tan
cot sec csc log ln exp sqrt sinh cosh tanh arcsin arccos arctan max min lim sum below above under less fewer more
least most than exactly except excluding without with short shy beyond before after from to through until between
among by and or nor not no non never none neither either else instead rather versus vs but if unless though although
however is are was were be been being am isn wasn aren has have had do does did will would could should may might must
can cannot wrong incorrect false untrue invalid null nil nothing right correct true maybe perhaps possibly probably
likely alternatively otherwise equals equal greater larger smaller higher lower different unlike of off out up down
into it this that these those which what who they he she we you the an answer option choice ish approx approximately
about roughly nearly almost
"""
_NOT_NOUNS = frozenset(_NOT_NOUNS_TEXT.split())
_NOT_NOUN = re.compile(r".*(?:ths?|thirds|fifths|illions?|illionths?|fold|teen|ty|ties|n't)")
_NOUN = re.compile(r"[A-Za-z]{2,}(?:-[A-Za-z]{2,})*")
NAME_WORDS = frozenset(("of", "the", "an"))
_MAX_WORDS = 4
_POWER = re.compile(r"(.+?)(?:\s*\^\s*\{?\s*([+-]?[1-3])\s*\}?|([23]))")
_WORD_POWERS = tuple(
    (re.compile(pattern, re.IGNORECASE), exponent)
    for pattern, exponent in (
        (r"(?:square|sq\.?)\s+(.+)|(.+)\s+squared", 2),
        (r"(?:cubic|cu\.?)\s+(.+)|(.+)\s+cubed", 3),
    )
)


def _scales(prefixes: str) -> list[tuple[str, str, Fraction]]:
    return [("", "", Fraction(1))] + [(p, _PREFIXES[p][0], Fraction(10) ** _PREFIXES[p][1]) for p in prefixes]


def _read_table() -> tuple[dict[str, set[Measure]], dict[str, set[Measure]]]:
    """What each symbol (case counts) and each word (lower case, singular or plural) may mean."""
    symbols: dict[str, set[Measure]] = {}
    words: dict[str, set[Measure]] = {}
    for dimension, factor, own_symbols, prefixes, own_words in _UNITS:
        for (prefix, _, scale), symbol in product(_scales(prefixes), own_symbols.split()):
            symbols.setdefault(prefix + symbol, set()).add((_exponents(dimension), Fraction(factor) * scale))
        for (_, word_prefix, scale), word in product(_scales(prefixes), own_words.split()):
            for spelling in (word, _PLURALS.get(word, word + "s")):
                words.setdefault(word_prefix + spelling, set()).add((_exponents(dimension), Fraction(factor) * scale))
    return symbols, words


def _exponents(dimension: str) -> tuple[tuple[str, int], ...]:
    """``length*3``, ``length/time`` as pairs."""
    if "/" in dimension:
        top, bottom = dimension.split("/")
        return ((top, 1), (bottom, -1))
    name, _, power = dimension.partition("*")
    return ((name, int(power or 1)),)


_SYMBOLS, _WORDS = _read_table()


def nouns(text: str, allowed: frozenset[str] = frozenset()) -> frozenset[str] | None:
    """The words of a text that may name a thing (lower case, plural s off); None if a word says more than that."""
    words = [word.rstrip(".").lower() for word in text.split()]
    if not 1 <= len(words) <= _MAX_WORDS or "per" in (words[0], words[-1]):
        return None
    for word in words:
        banned = not _NOT_NOUNS.isdisjoint({word, word.removesuffix("s"), word.removesuffix("es")} - allowed)
        banned = banned or (_NOT_NOUN.fullmatch(word) and word not in _WORDS)
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
    results: list[tuple[dict[str, int], Fraction]] = [({}, Fraction(1))]
    for place, part in enumerate(re.split(r"\s*/\s*|\s+per\s+", text)):
        for factor in re.split(r"\s*[·*⋅×]\s*", part):
            read = _read_power(factor)
            if read is None:
                return None
            power = -1 if place else 1
            results = [
                (_multiplied(dimensions, more, power), factor * scale**power)
                for (dimensions, factor), (more, scale) in product(results, read)
            ]
    return frozenset((tuple(sorted((d, p) for d, p in dims.items() if p)), factor) for dims, factor in results)


def _multiplied(dimensions: dict[str, int], more: tuple[tuple[str, int], ...], power: int) -> dict[str, int]:
    total = dict(dimensions)
    for name, exponent in more:
        total[name] = total.get(name, 0) + power * exponent
    return total


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
