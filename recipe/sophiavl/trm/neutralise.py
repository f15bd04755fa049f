"""Make untrusted text harmless inside a judge's prompt.

The text that is scored is written by the policy that the score trains: it will learn whatever raises the score. Servers
turn `<|im_end|>` inside a user's text into the real control token, so a response could end the judge's prompt and write
the verdict itself. What is done here, in this order:

1. invisible characters go (NUL and other controls, zero-width, bidirectional marks, tag characters), so that nothing
   can hide inside a token's name; lone surrogates become U+FFFD;
2. every tag-like opening is split with a space: ``<|im_end|>`` becomes ``< |im_end|>``, ``</s>`` becomes ``< /s>``,
   ``[INST]`` becomes ``[ INST]``. A tokenizer matches its control tokens as exact strings, so none is left, whichever
   model serves; a reader, and the judge, still see what was written, and ``a < b`` or ``x <= y`` stay as they are;
3. lines that look like the prompt's own delimiters are turned into plain mentions of them;
4. long runs of one character or one short phrase are cut to a few, with a note;
5. what is still too long loses its middle, with a note.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np

_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
# Full-width and small forms count too: some tokenizers normalise them to ASCII before they look for control tokens.
_ANGLE = re.compile(r"[<＜﹤](?![\s=])")
_SQUARE = re.compile(r"[\[［](?=[/／]?[A-Za-z_][A-Za-z_0-9]*[\]］])")
# What may stand around a delimiter's words in its line, and what makes it look like one in the middle of a line.
_DECORATION = re.compile(r"[^\w\n]*")
_MARKS = re.compile(r"[^\w\s]{2}")
_NO_WORDS = re.compile(r"\W*")
_ONE_CHARACTER = re.compile(r"(.)\1{63,}", re.DOTALL)
_KEPT_OF_CHARACTER = 8
_LONGEST_PHRASE = 48
_REPEATS_OF_PHRASE = 16
_KEPT_OF_PHRASE = 3
# Ordinary reasoning compresses to more than this fraction; only what does not is searched for repeated phrases.
_REPETITIVE = 0.3
# A longer text is cut to this many times its limit before anything slow is done with it.
_ROOM_FOR_REPETITION = 4
_SHORTEST_CAP = 200


def neutralise(text: str, *, max_chars: int | None = None, delimiters: Sequence[str] = ()) -> str:
    """Return `text` without control tokens, invisible characters, runaway repetition or any of `delimiters`.

    Leading and trailing white space goes as well: at the edge of its place it could merge with the template's own.

    Args:
        text: untrusted text.
        max_chars: longest result in characters (at least 200); None means no limit.
        delimiters: strings of the template that must not occur in the result, whatever their case.
    """
    text = "\n".join(text.splitlines())  # there are ten ways to end a line
    text = _SURROGATE.sub("\ufffd", _INVISIBLE.sub("", text))
    text = _ONE_CHARACTER.sub(lambda match: _cut_run(match[1], len(match[0]), _KEPT_OF_CHARACTER), text.strip())
    total = len(text)
    if max_chars is not None:
        text = _shorten(text, _ROOM_FOR_REPETITION * max(max_chars, _SHORTEST_CAP), total)
    text = _cut_phrases(text)
    text = _split_delimiters(break_control_tokens(text), delimiters)
    if max_chars is not None:
        text = _shorten(text, max(max_chars, _SHORTEST_CAP), max(total, len(text)))
    return text.strip()


def break_control_tokens(text: str) -> str:
    """Put a space after every ``<`` and ``[`` that could begin a control token of some tokenizer."""
    return _SQUARE.sub(r"\g<0> ", _ANGLE.sub(r"\g<0> ", text))


def _split_delimiters(text: str, delimiters: Sequence[str]) -> str:
    for delimiter in delimiters:
        words = re.findall(r"\w+", delimiter)
        text = _mention(text, words) if words else text.replace(delimiter, " ".join(delimiter))
    return text


def _mention(text: str, words: Sequence[str]) -> str:
    """Replace a line that reads like a delimiter of these words, or the words behind decoration, by a plain mention.

    Either would fool a judge. The words are looked for first and their decoration is measured from there: one pattern
    for all of it takes cubic time on a long run of punctuation.
    """
    mention = f"(marker: {' '.join(words)})"
    pieces: list[str] = []
    done = seen = 0
    for match in re.finditer(r"[\W_]+".join(map(re.escape, words)), text, re.IGNORECASE):
        around = _NO_WORDS.match(text[seen : match.start()][::-1])[0][::-1]
        before = around.rpartition("\n")[2]
        end = _DECORATION.match(text, match.end()).end()
        start = match.start() - len(before)
        seen = match.end()
        alone = (start == 0 or text[start - 1] == "\n") and (end == len(text) or text[end] == "\n")
        marked = _MARKS.search(before)
        if alone or marked or _MARKS.search(around):  # those at the end of the line before stay there
            start = max(done, start + marked.start() if marked and not alone else start)
            pieces += [text[done:start], mention]
            done = end
    return "".join([*pieces, text[done:]])


def _cut_phrases(text: str) -> str:
    raw = text.encode("utf-8")
    if len(raw) < 2 * _REPEATS_OF_PHRASE or len(zlib.compress(raw, 1)) > _REPETITIVE * len(raw):
        return text
    pieces: list[str] = []
    done = 0
    for start, end, length in _repetitions(text):
        pieces += [text[done:start], _cut_run(text[start : start + length], end - start, _KEPT_OF_PHRASE)]
        done = end
    return "".join([*pieces, text[done:]])


def _repetitions(text: str) -> list[tuple[int, int, int]]:
    """Stretches of a phrase repeated over and over, as (start, end, length of the phrase), apart and in order."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    found: list[tuple[int, int, int]] = []
    for length in range(2, min(_LONGEST_PHRASE, len(text) // _REPEATS_OF_PHRASE) + 1):
        # Where a text equals itself moved by `length`, a phrase of that length repeats.
        same = np.concatenate(([False], codes[length:] == codes[:-length], [False]))
        edges = np.flatnonzero(same[1:] != same[:-1])
        for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            times = (last - first) // length + 1
            start, end = first, first + times * length
            if times >= _REPEATS_OF_PHRASE and all(end <= low or start >= high for low, high, _ in found):
                found.append((start, end, length))
    return sorted(found)


def _cut_run(unit: str, length: int, kept: int) -> str:
    return f"{unit * kept} (repeated {length // len(unit)} times in all) "


def _shorten(text: str, max_chars: int, total: int) -> str:
    if len(text) <= max_chars:
        return text
    # No line of its own: the cut would put what follows, or precedes, it alone on a line, as delimiters stand.
    note = f" (… {total} characters in all, the middle is left out) "
    room = max_chars - len(note)
    head = room * 2 // 3
    return text[:head] + note + text[len(text) - (room - head) :]
