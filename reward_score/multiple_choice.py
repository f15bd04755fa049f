"""Multiple choice outcome: the answer and the truth are each read as a set of letters, and compared as sets."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from reward_score.option_labels import option_texts, split_label
from reward_score.text import normalise, strip_dollars

_NOUN = r"(?:(?:the|my)\s+)?(?:(?:final|correct|right|best)\s+)?(?:answer|option|choice)s?"
_LEAD_IN = re.compile(
    rf"(?:{_NOUN}(?:\s+(?:is|are))?(?:\s*:\s*|\s+)|it(?:\s+is|'s)\s+)(?:(?:option|choice)\s+)?"
    r"|(?:正确)?(?:答案|选项)(?:是|为)?\s*:?\s*|选\s*",
    re.IGNORECASE,
)
_TRAILER = re.compile(r"\s+is\s+(?:the\s+)?(?:correct|right)?(?:\s*(?:answer|option|choice))?", re.IGNORECASE)
_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}")
_BOLD = re.compile(r"(?<!\S)\*\*(?=\S)([^*]*)(?<=\S)\*\*(?=[\s.,:;)]|$)")
_WRAPPERS = tuple(re.compile(p, re.DOTALL) for p in (r"\\boxed\s*\{(.*)\}", r"'([^']*)'", r'"([^"]*)"', r"`([^`]*)`"))
_NESTED_WRAPPERS = 3
_LETTER = re.compile(r"\(([A-Za-z])\)[.:]?|\[([A-Za-z])\]|([A-Za-z])[).:]?")
_SPACED_LETTER = re.compile(r"([A-Za-z])[\s,-]+(\S{2}.*|[^\sA-Za-z])", re.DOTALL)
_GLUED = re.compile(r"(?=[A-H]{2,})A?B?C?D?E?F?G?H?")  # rising, each at most once
# Without the options, glued letters that are words are taken for words.
_GLUED_WORDS = ("ACE", "AD", "AH", "BE", "BEG", "EH")
_SPACED = re.compile(r"[A-Za-z](?: [A-Za-z])+")
_SEPARATOR = re.compile(r"\s*[,;&、]\s*(?:and\s+)?|\s+and\s+", re.IGNORECASE)
# What an unknown option's text does not say: another label, an alternative, a denial.
_NO_TEXT = re.compile(r"\b[B-Z]\b|\b(?:or|not|no|wrong|false|incorrect|neither|but|rather|instead)\b|n't\b|[或不非错]")
_MAX_CHARS = 2000  # beyond the options' own
_MAX_PARTS = 52

# The options' texts by letter; empty where they are not known.
Texts = dict[str, str]


def score_multiple_choice(answer: str, truth: str, options: Sequence[str] | None = None) -> float:
    """Reward of a multiple choice answer.

    A letter may stand alone (``A``, ``a``, ``(A)``, ``[A]``, ``A.``, ``A?``), before its text (``A. text``, ``A text``)
    or after a lead-in (``Option A``, ``It is A``, ``答案是A``). An option's own text counts as its letter: as it is
    written or, if that is no option's, without wrappers and a full stop, and then without case where it holds no digit;
    texts that differ only so name none. Several letters may be listed in any order (``A,B``, ``B and A``), or glued in
    capitals and in rising order (``AB``), unless that is an option's text or, where the options are not known, a word.
    Everything must be read: what is left over makes the answer wrong (``A. not red``), and so does ``A or B``. Two
    options with identical texts are one option.

    Args:
        answer: text of the answer.
        truth: a letter, several, or an option's text; not empty.
        options: the options in order, with or without their letter in front; None or empty where they are not known.

    Returns:
        1.0 if the answer names exactly the true options, else 0.0.

    Raises:
        ValueError: options are given and the truth is none of them: no answer could be right.
    """
    texts = option_texts([] if options is None else options)
    true_set = _read_set(truth, texts)
    if true_set is None and texts:
        raise ValueError(f"ground_truth={truth!r} is none of the options {texts}")
    if len(answer) > _MAX_CHARS + len(truth) + sum(map(len, texts.values())):
        return 0.0
    if true_set is None:
        return float(bool(_plain(answer)) and _caseless(answer) == _caseless(truth))
    return float(_read_set(answer, texts) == true_set)


def _as_written(text: str) -> str:
    return " ".join(text.split())


def _plain(text: str) -> str:
    """Text without LaTeX or Markdown wrappers, quotes, and full stop; NFKC, single spaces."""
    text = _BOLD.sub(r"\1", strip_dollars(normalise(text)))
    for _ in range(_NESTED_WRAPPERS):
        text = strip_dollars(_TEXT_COMMAND.sub(r"\1", text))
        for wrapper in _WRAPPERS:
            if match := wrapper.fullmatch(text):
                text = match[1].strip()
    return text.rstrip(" .。,;") or text


def _caseless(text: str) -> str:
    """Case does not count, but where it makes other units or formulas (5 mW, 5 MW)."""
    text = _plain(text)
    return text if any(character.isdigit() for character in text) else text.casefold()


_FORMS: tuple[Callable[[str], str], ...] = (_as_written, _plain, _caseless)


def _read_set(text: str, texts: Texts) -> frozenset[str] | None:
    """The letters that a whole text names, or None if it can't be read as any."""
    plain = _plain(text)
    body = plain[match.end() :] if (match := _LEAD_IN.match(plain)) else plain
    body = body[: match.start()] if (match := re.search(rf"{_TRAILER.pattern}$", body, re.IGNORECASE)) else body
    # From the certain to the lenient: "A. red, B" may be option A's own text, or two letters.
    for form in dict.fromkeys((text.strip(), plain, body, body.rstrip(" ?!"))):
        single = _read_one(form, texts)
        if single is not None:
            return frozenset({single}) if single else None
    several = _read_list(body, texts)
    if several is None and not texts:
        single = _read_unknown(body)
        return None if single is None else frozenset({single})
    return several


def _read_one(text: str, texts: Texts) -> str | None:
    """A lone letter, an option's text, or both. The letter goes first, for options that are letters themselves.

    Returns:
        The letter; "" for a text of several options, or a letter with another option's text; None for anything else.
    """
    match = _LETTER.fullmatch(text)
    letter = _known(match[1] or match[2] or match[3], texts) if match else None
    if letter is None:
        letter = _option_with(text, texts)
    if letter is None and texts:
        label = split_label(text) or ((match := _SPACED_LETTER.fullmatch(text)) and match.groups())
        letter = _known(label[0], texts) if label else None
        named = _option_with(label[1], texts) if label and letter else None
        return letter if named == letter else named and ""
    return letter


def _known(letter: str, texts: Texts) -> str | None:
    """The capital letter, or the first letter of an option with an identical text; None for one without an option."""
    letter = letter.upper()
    if not texts or texts.get(letter) == "":
        return letter
    return next(
        (first for first, same in texts.items() if _as_written(same) == _as_written(texts.get(letter, ""))), None
    )


def _option_with(text: str, texts: Texts) -> str | None:
    """The letter of the option with this text: compared exactly first, then in ever plainer forms; "" for several."""
    for form in _FORMS:
        wanted = form(text)
        same = [letter for letter, option in texts.items() if option and form(option) == wanted]
        if same:
            return same[0] if len({_as_written(texts[letter]) for letter in same}) == 1 else ""
    return None


def _read_unknown(text: str) -> str | None:
    """The letter of ``A. text`` where the options are not known."""
    label = split_label(text)
    return label.letter if label and label.text and not _NO_TEXT.search(label.text) else None


def _read_list(text: str, texts: Texts) -> frozenset[str] | None:
    """Two or more letters or option texts, separated or (letters only) glued; None if any part is neither."""
    if (_GLUED.fullmatch(text) and (texts or text not in _GLUED_WORDS)) or _SPACED.fullmatch(text):
        parts = list(text.replace(" ", ""))
    else:
        parts = [part for part in _SEPARATOR.split(text) if part]
    if not 1 < len(parts) <= _MAX_PARTS:
        return None
    letters = set()
    for part in parts:
        letter = _read_one(part, texts) or (None if texts else _read_unknown(part))
        if not letter:
            return None
        letters.add(letter)
    return frozenset(letters)
