"""What a source holds, as a terminal may be given it: one line, cut, with control characters written out."""

from __future__ import annotations

import reprlib
from typing import Any

_MOST_CHARS = 80
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 60


def one_line(text: str, most: int = 300) -> str:
    """`text` on one line, at most `most` characters of it; what is not printable is written out, as in ``\\x1b``."""
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in cut)


def example(value: Any) -> str:
    """A cell as Python writes it, cut: text in quotes, and nothing that is not printable."""
    return one_line(_REPR.repr(value), _MOST_CHARS)
