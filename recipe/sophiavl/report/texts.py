"""Texts that came from a model or a file, so that they can be written and are no longer than a page takes."""

from __future__ import annotations


def readable(text: str) -> str:
    """Text that can be written as UTF-8: halves of surrogate pairs, which JSON may hold, become U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def shorten(text: str, most: int) -> tuple[str, int]:
    """The text, and how many characters of its middle were left out so that it keeps `most` and a word on that."""
    if len(text) <= most:
        return text, 0
    head, tail = most - most // 2, most // 2
    cut = len(text) - most
    return f"{text[:head]}\n[… {cut} characters left out …]\n{text[len(text) - tail :]}", cut
