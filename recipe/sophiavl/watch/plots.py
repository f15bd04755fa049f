"""Curves of characters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

_BLOCKS = "▁▂▃▄▅▆▇█"
# The dots of a braille character, from top to bottom, left and right.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


def binned(values: Sequence[float], bins: int) -> list[float]:
    """Means over `bins` stretches of equal length, or the values themselves where there are fewer; NaN is left out, and
    a stretch of nothing else is NaN."""
    if len(values) <= bins:
        return list(values)
    edges = [round(i * len(values) / bins) for i in range(bins + 1)]
    stretches = ([v for v in values[a:b] if math.isfinite(v)] for a, b in pairwise(edges))
    return [sum(known) / len(known) if known else math.nan for known in stretches]


def extent(values: Sequence[float]) -> tuple[float, float] | None:
    """The least and the greatest finite value; None where there is none."""
    known = [value for value in values if math.isfinite(value)]
    return (min(known), max(known)) if known else None


def sparkline(values: Sequence[float], width: int) -> str:
    """A curve in one line of `width` characters at most, from its least to its greatest value."""
    shown = binned(values, width)
    ends = extent(shown)
    return "".join(" " if (level := _level(v, ends, len(_BLOCKS))) is None else _BLOCKS[level] for v in shown)


def braille(values: Sequence[float], width: int, height: int) -> list[str]:
    """A line as `height` lines of `width` characters, with two by four dots in each, from its least value (below) to
    its greatest one (above). NaN is a gap."""
    cells = [[0] * width for _ in range(height)]
    shown = _stretched(binned(values, 2 * width), 2 * width)
    ends = extent(shown)
    levels = [_level(value, ends, 4 * height) for value in shown]
    for x, (before, level) in enumerate(pairwise([None, *levels])):
        if level is None:
            continue
        # As far as to the column before, without the dot that is there.
        start = level if before is None or before == level else before + (1 if level > before else -1)
        for y in range(min(start, level), max(start, level) + 1):
            row, dot = divmod(4 * height - 1 - y, 4)
            cells[row][x // 2] |= _DOTS[dot][x % 2]
    return ["".join(chr(0x2800 + cell) for cell in row) for row in cells]


def _stretched(values: Sequence[float], length: int) -> list[float]:
    """Straight lines between the values, evaluated at `length` points."""
    if len(values) < 2:
        return list(values) * length
    return np.interp(np.linspace(0, len(values) - 1, length), np.arange(len(values)), values).tolist()


def _level(value: float, ends: tuple[float, float] | None, levels: int) -> int | None:
    if ends is None or not math.isfinite(value):
        return None
    low, high = ends
    return round((value - low) / (high - low) * (levels - 1)) if high > low else (levels - 1) // 2
