"""Text clean-up that several answer types share."""

from __future__ import annotations

import re
import sys
import unicodedata

_ANSWER_TAGS = re.compile(r"\s*<answer>(.*)</answer>\s*", re.DOTALL)

# Scripts written without spaces between words: Thai, Lao, Myanmar, Khmer, kana, CJK ideographs.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# Raised, lowered and circled characters and fractions: what NFKC makes of them (x² to x2, 5½ to 51/2) is another thing.
_MEANT = "".join(
    re.escape(chr(c))
    for c in range(0xA0, 0x1F300)
    if unicodedata.decomposition(chr(c)).startswith(("<super", "<sub", "<fraction", "<circle"))
)
# Vowel signs and accents belong to the letter before them, but Python's \w leaves most of them out.
_MARKS = "".join(chr(c) for c in range(0x300, sys.maxunicode) if unicodedata.category(chr(c)).startswith("M"))

_MEANT_RUN = re.compile(f"([{_MEANT}]+)")
_UNSPACED_CHARACTER = re.compile(f"([{UNSPACED}][{_MARKS}]*)")
_WORD = re.compile(f"[{UNSPACED}][{_MARKS}]*|(?:(?![{UNSPACED}])[^\\W_][{_MARKS}]*)+")


def normalise(text: str) -> str:
    """Unicode NFKC but for raised, lowered, circled characters and fractions; runs of white space to one space."""
    parts = _MEANT_RUN.split(text)
    parts[::2] = [unicodedata.normalize("NFKC", part) for part in parts[::2]]
    return " ".join("".join(parts).split())


def strip_dollars(text: str) -> str:
    """Take off one pair of math delimiters around the whole text; ``$5`` (money) stays."""
    text = text.strip()
    for mark in ("$$", "$"):
        inner = text[len(mark) : -len(mark)]
        if text.startswith(mark) and text.endswith(mark) and len(text) > 2 * len(mark) and "$" not in inner:
            return inner.strip()
    return text


def clean_truth(ground_truth: str) -> str:
    """A ground truth without the ``<answer>`` tags or the ``$`` around it.

    Raises:
        TypeError: ``ground_truth`` is not a string.
        ValueError: nothing is left of it.
    """
    if not isinstance(ground_truth, str):
        raise TypeError(f"ground_truth must be a string, not {type(ground_truth).__name__}")
    tagged = _ANSWER_TAGS.fullmatch(ground_truth)
    truth = strip_dollars(tagged[1] if tagged else ground_truth)
    if not normalise(truth):
        raise ValueError(f"ground_truth={ground_truth!r} is empty")
    return truth


def words(text: str) -> list[str]:
    """Lower-case words without punctuation; scripts without spaces between words give one word per character.

    On ASCII text these are the tokens of rouge-score's own tokenizer.
    """
    return _WORD.findall(normalise(text).lower())


def spaced_words(text: str) -> list[str]:
    """White-space separated words with case and punctuation, split at each character of a script without spaces."""
    return _UNSPACED_CHARACTER.sub(r" \1 ", normalise(text)).split()
