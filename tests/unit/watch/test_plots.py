"""Curves of characters."""

from __future__ import annotations

import math

import pytest

from recipe.sophiavl.watch.plots import binned, braille, extent, sparkline

NAN = math.nan


@pytest.mark.parametrize(
    ("values", "width", "shown"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, "▁▂▃▄▅▆▇█"),
        ([0, 0, 7, 7], 2, "▁█"),
        ([0, NAN, 7], 8, "▁ █"),
        ([3.0, 3.0], 8, "▄▄"),
        ([NAN, math.inf], 8, "  "),
        ([], 8, ""),
    ],
)
def test_sparkline(values: list[float], width: int, shown: str) -> None:
    assert sparkline(values, width) == shown


def test_bins_are_means_of_all_values_but_nan() -> None:
    assert binned([1, 3, 5, NAN], 2) == [2, 5]
    assert len(binned(range(1500), 97)) == 97
    assert extent([NAN, -math.inf, 2, 1]) == (1, 2)
    assert extent([NAN]) is None


def test_a_rising_line_goes_from_the_lower_left_to_the_upper_right() -> None:
    assert braille([0, 7], 4, 2) == ["⠀⠀⡠⠊", "⡠⠊⠀⠀"]
    assert braille([0, 7, 0], 4, 1) == ["⡠⠊⠑⢄"]


def test_a_line_keeps_its_size_whatever_it_is_drawn_of() -> None:
    for values in ([], [1.0], [NAN] * 5, [1.0, NAN, 2.0], list(range(1500)), [5.0] * 9):
        lines = braille(values, 30, 4)
        assert [len(line) for line in lines] == [30] * 4
    assert set("".join(braille([NAN] * 5, 30, 4))) == {"⠀"}
