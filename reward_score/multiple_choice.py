"""Multiple choice outcome: the answer and the truth are each read as a set of letters, and compared as sets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

from reward_score.text import normalise, strip_dollars

_PREFIXED_OPTION = re.compile(r"\(?([A-Z])\s*[).:、]\s*(.*)", re.DOTALL)
_NOUN = r"(?:the\s+)?(?:(?:final|correct|right)\s+)?(?:answer|option|choice)s?"
_LEAD_IN = re.compile(rf"{_NOUN}(?:\s+(?:is|are))?(?:\s*:\s*|\s+)", re.IGNORECASE)
_WRAPPER = re.compile(r"\\(?:boxed|text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}")
_NESTED_WRAPPERS = 3
_LETTER = re.compile(r"\(([A-Za-z])\)[.:]?|([A-Za-z])[).:]?")
_LETTER_AND_TEXT = re.compile(r"(?:\(([A-Za-z])\)\s*[.:、]?|([A-Za-z])\s*[).:、])\s*(\S.*)", re.DOTALL)
_GLUED = re.compile(r"(?=[A-H]{2,})A?B?C?D?E?F?G?H?")  # rising, each at most once
# Without the options, glued letters that are words are taken for words.
_GLUED_WORDS = ("ACE", "AD", "AH", "BE", "BEG", "EH")
_SPACED = re.compile(r"[A-Za-z](?: [A-Za-z])+")
_SEPARATOR = re.compile(r"\s*[,;&、]\s*(?:and\s+)?|\s+and\s+", re.IGNORECASE)


def score_multiple_choice(answer: str, truth: str, options: Sequence[str] | None = None) -> float:
    """Reward of a multiple choice answer.

    A letter may stand alone (``A``, ``a``, ``(A)``, ``A.``), before its text (``A. text``) or after a lead-in
    (``Option A``, ``The answer is A``). An option's own text counts as its letter (case, white space and a full stop
    aside). Several letters may be listed in any order (``A,B``, ``B and A``), or glued in capitals and in rising order
    (``AB``), unless that is an option's text or, where the options are not known, a word. Everything must be read:
    what is left over makes the answer wrong, and so does ``A or B``. Two options with one text are one option.

    Args:
        answer: text of the answer.
        truth: a letter, several, or an option's text; not empty.
        options: the options in order, with or without their letter in front; None or empty where they are not known.

    Returns:
        1.0 if the answer names exactly the true options, else 0.0.

    Raises:
        ValueError: options are given and the truth is none of them: no answer could be right.
    """
    texts = _option_texts([] if options is None else options)
    true_set = _read_set(truth, texts)
    if true_set is None:
        if texts:
            raise ValueError(f"ground_truth={truth!r} is none of the options {texts}")
        return float(_plain(answer) == _plain(truth) != "")
    return float(_read_set(answer, texts) == true_set)


def _option_texts(options: Sequence[str]) -> dict[str, str]:
    """Each option's letter and its text in comparable form; the letters in front are taken off where all have one."""
    if len(options) > len(ascii_uppercase):
        raise ValueError(f"options has {len(options)} entries; letters name at most {len(ascii_uppercase)}")
    letters = ascii_uppercase[: len(options)]
    matches = [_PREFIXED_OPTION.fullmatch(option.strip()) for option in options]
    # "A. Einstein", "M. Curie" are names: only the letters due, each once, are option letters.
    if sorted(match[1] for match in matches if match) == list(letters):
        return {match[1]: _plain(match[2]) for match in matches if match}
    return {letter: _plain(option) for letter, option in zip(letters, options, strict=True)}


def _unwrap(text: str) -> str:
    """Text without LaTeX or Markdown wrappers, quotes, and full stop; NFKC, single spaces."""
    text = strip_dollars(normalise(text).replace("**", ""))
    for _ in range(_NESTED_WRAPPERS):
        text = _WRAPPER.sub(r"\1", text)
    return strip_dollars(text.strip(" \"'`")).rstrip(" .。,;")


def _plain(text: str) -> str:
    """Comparable form of an option's text."""
    return _unwrap(text).casefold()


def _read_set(text: str, texts: dict[str, str]) -> frozenset[str] | None:
    """The letters that a whole text names, or None if it can't be read as any."""
    text = _unwrap(text)
    body = _LEAD_IN.sub("", text, count=1) if _LEAD_IN.match(text) else text
    # From the certain to the lenient: "A. red, B" may be option A's own text, or two letters.
    single = _read_exact(text, texts) or _read_exact(body, texts) or _read_lettered(body, texts, exact=True)
    if single is None:
        several = _read_list(body, texts)
        if several is not None:
            return several
        single = _read_lettered(body, texts, exact=False)
    return None if single is None else frozenset({single})


def _known(letter: str, texts: dict[str, str]) -> str | None:
    """The capital letter, or the first letter of an option with the same text; None for a letter without an option."""
    letter = letter.upper()
    if not texts:
        return letter
    text = texts.get(letter)
    if not text:
        return letter if text == "" else None
    return next(first for first, same in texts.items() if same == text)


def _read_exact(text: str, texts: dict[str, str]) -> str | None:
    """A lone letter or an option's text. The letter goes first, for options that are letters themselves."""
    match = _LETTER.fullmatch(text)
    letter = _known(match[1] or match[2], texts) if match else None
    if letter is not None:
        return letter
    plain = _plain(text)
    return next((letter for letter, option in texts.items() if option and option == plain), None)


def _read_lettered(text: str, texts: dict[str, str], *, exact: bool) -> str | None:
    """The letter of ``A. text``. Exact: the text must be that option's; else it must only not name another option."""
    match = _LETTER_AND_TEXT.fullmatch(text)
    if match is None:
        return None
    letter = _known(match[1] or match[2], texts)
    if exact:
        return letter if letter and texts and texts[letter] == _plain(match[3]) else None
    return letter if _read_exact(match[3], texts) in (None, letter) else None


def _read_list(text: str, texts: dict[str, str]) -> frozenset[str] | None:
    """Two or more letters or option texts, separated or (letters only) glued; None if any part is neither."""
    if (_GLUED.fullmatch(text) and (texts or text not in _GLUED_WORDS)) or _SPACED.fullmatch(text):
        parts = list(text.replace(" ", ""))
    else:
        parts = [part for part in _SEPARATOR.split(text) if part]
    letters = [_read_exact(part, texts) or _read_lettered(part, texts, exact=False) for part in parts]
    if len(letters) < 2 or None in letters:
        return None
    return frozenset(letter for letter in letters if letter)
