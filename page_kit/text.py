"""Untrusted text as a page may show it: nothing in it is hidden, and nothing in it moves what stands beside it."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

# Controls, format characters (bidirectional marks, zero width, tags), lone surrogates, private use, separators.
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
_KEPT = "\t\n"
_DELETE, _PICTURES = 0x7F, 0x2400


class _Marks(dict[int, str]):
    """A translation table that works out each character once."""

    def __missing__(self, code: int) -> str:
        self[code] = mark = self._mark(code)
        return mark

    @staticmethod
    def _mark(code: int) -> str:
        char = chr(code)
        if char in _KEPT or unicodedata.category(char) not in _HIDDEN:
            return char
        if code < 0x20:
            return chr(_PICTURES + code)
        return "␡" if code == _DELETE else f"⟨U+{code:04X}⟩"


_MARKS = _Marks()


def shown(text: str) -> str:
    """`text` with every character that would not show written out: ``␛`` for an escape, ``⟨U+202E⟩`` for others.

    Tabs and line ends stay. Bidirectional and zero-width marks are among those written out.
    """
    return text if text.isascii() and text.isprintable() else text.translate(_MARKS)


def all_shown(value: Any) -> Any:
    """`shown` of every text in nested mappings and sequences, keys included, as lists and dicts."""
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, Mapping):
        return {shown(key): all_shown(inner) for key, inner in value.items()}
    if isinstance(value, Sequence):
        return [all_shown(inner) for inner in value]
    return value


def number(value: float | None, digits: int = 3, sign: str = "") -> str:
    """A number for people; a dash where there is none.

    Args:
        sign: ``+`` shows the sign of a difference also where it is positive.
    """
    return "–" if value is None else f"{value:{sign},.{digits}f}"


def with_interval(value: float | None, low: float | None, high: float | None, digits: int = 3, sign: str = "") -> str:
    """A number with its interval in brackets, where it has one."""
    text = number(value, digits, sign)
    return text if value is None or low is None else f"{text} [{number(low, digits)}, {number(high, digits)}]"


def with_error(value: float | None, error: float | None, digits: int = 3, sign: str = "") -> str:
    """A number with its standard error, where it has one."""
    text = number(value, digits, sign)
    return text if value is None or error is None else f"{text} ± {number(error, digits)}"
