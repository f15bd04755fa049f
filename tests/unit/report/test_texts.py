"""Texts can be written and are bounded."""

from __future__ import annotations

from recipe.sophiavl.report.texts import readable, shorten


def test_shorten_keeps_what_fits() -> None:
    assert shorten("abc", 3) == ("abc", 0)
    assert shorten("abcd", 3) == ("ab\n[… 1 characters left out …]\nd", 1)


def test_readable_mends_halves_of_pairs_alone() -> None:
    assert readable("a\ud83db \U0001f600") == "a\ufffdb \U0001f600"
