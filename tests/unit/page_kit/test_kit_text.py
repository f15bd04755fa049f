"""Nothing in a text stays hidden, and numbers read as numbers."""

from __future__ import annotations

import pytest

from page_kit.text import all_shown, number, shown, with_error, with_interval


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain", "plain"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[31mred", "␛[31mred"),
        ("a\x00b\x7f", "a␀b␡"),
        ("over\rwritten", "over␍written"),
        ("\u202eright to left\u202c", "⟨U+202E⟩right to left⟨U+202C⟩"),
        ("zero\u200bwidth\ufeff", "zero⟨U+200B⟩width⟨U+FEFF⟩"),
        ("tag\U000e0041", "tag⟨U+E0041⟩"),
        ("half \ud800", "half ⟨U+D800⟩"),
        ("Größe 三角形 ∠ 🔺", "Größe 三角形 ∠ 🔺"),
    ],
)
def test_what_would_not_show_is_written_out(text: str, seen: str) -> None:
    assert shown(text) == seen
    assert shown(seen) == seen
    seen.encode("utf-8")


def test_texts_are_shown_wherever_they_are() -> None:
    value = {"a\x1b": ["\u202e", ("\x00", 1.5, None, True)]}
    assert all_shown(value) == {"a␛": ["⟨U+202E⟩", ["␀", 1.5, None, True]]}


def test_numbers_with_what_they_are_worth() -> None:
    assert number(1234.5678) == "1,234.568"
    assert number(0.5, sign="+") == "+0.500"
    assert number(None) == with_error(None, 0.1) == with_interval(None, 0, 1) == "–"
    assert with_error(0.5, 0.25, 2) == "0.50 ± 0.25"
    assert with_error(0.5, None) == "0.500"
    assert with_interval(-0.5, -1, 0, 1) == "-0.5 [-1.0, 0.0]"
    assert with_interval(0.5, None, None) == "0.500"
