"""Edits that make a good reasoning worse in one known way: a TRM that reads it must lower its score.

No edit paraphrases, and none touches more than it says: outside the changed words the text stays as it was. The same
text, question and seed give the same edit. An edit that cannot be made says why.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

REPEATS = 4
LONGEST_BLOCK = 3
SHORTEST_SENTENCE = 4  # "2." is the number of a step
MOST_MIXED = 24
LEAST_MIXED = 3

# Whole numbers and decimals that are words of their own: no part of a name (x1, 3D), no exponent of a longer number.
_NUMBER = re.compile(r"(?<![\w.,\\])(?:[0-9]{1,3}(?:,[0-9]{3}){1,3}|[0-9]{1,12})(?:\.[0-9]{1,6})?(?!\w|[.,]\d)")
# What a number follows where it only counts steps, images or choices.
_LABEL = re.compile(
    r"\b(?:step|images?|option|choice|case|figure|fig\.|point|part|question|equation|method)\s*$", re.IGNORECASE
)
# Numbers of a list: "1." and "1)" at the start of a line, "(1)" anywhere.
_LIST_START = re.compile(r"(?:^|\n)\s*$")
_LIST_END = re.compile(r"\s*[.):]\s")
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")
_OPTION = re.compile(r"^\s*\(?[A-Z][.):]\s*(\S.*?)\s*$", re.MULTILINE)
_SENTENCE = re.compile(r"\S.*?(?:[.!?](?=\s|$)|[。！？]|(?=\n)|$)", re.DOTALL)
_CHINESE = re.compile("[\u4e00-\u9fff]")

NUMBER_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

NEGATIONS = (
    # A negated claim becomes the plain one, a plain one is negated. Templates are those of `re.Match.expand`.
    (r"\b(is|are|was|were|do|does|did|has|have|can|could|must|should|will|would) not\b", r"\1"),
    (r"\b(is|are|was|were|must|should|will|would|could)\b(?! not|n't)", r"\1 not"),
    (r"\bcan\b(?! not|'t)", "cannot"),
    (r"\bcannot\b", "can"),
    (r"\bequals\b", "does not equal"),
    (r"\bmeans\b", "does not mean"),
    (r"\bhas\b(?! not|n't)", "lacks"),
    (r"\bshows\b", "does not show"),
    (r"\bcontains\b", "does not contain"),
    ("不是", "是"),
    ("(?<!不)是(?![否不])", "不是"),
    ("(?<!不)等于", "不等于"),
)

_STOP_WORDS = """
a about all also an and any are as at be because been but by can could did do does each first for from had has
have here how if in into is it its just let like look looks more most must next no not now of on only or other our
out over same second see seems should since so some such than that the their them then there therefore these they
this those thus to too very was we were what when where whether which while who why will with would you your
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""Words that say too little for their exchange to make a step wrong."""

_COUNTERPARTS = """
therefore 因此, thus 从而, hence 于是, so 所以, because 因为, since 由于, first 首先, then 然后, next 接下来,
finally 最后, but 但是, however 然而, and 和, or 或者, if 如果, with 与, we 我们, this 这, that 那, there 那里,
here 这里, all 所有, each 每个, only 只有, also 也, is 是, are 都是, has 有, equals 等于, shows 显示, see 看到,
look 看, find 求, know 知道, means 意味着, answer 答案, question 问题, image 图片, picture 图像, figure 图形,
shape 形状, colour 颜色, color 色彩, number 数字, angle 角, triangle 三角形, circle 圆, square 正方形,
rectangle 长方形, line 线, length 长度, area 面积, sum 总和, left 左边, right 右边, option 选项, correct 正确,
wrong 错误, step 步骤
"""
ENGLISH_TO_CHINESE = dict(pair.split() for pair in _COUNTERPARTS.split(","))
"""English words and their Chinese counterparts, each once, so that the table reads both ways."""
_CHINESE_TO_ENGLISH = {chinese: english for english, chinese in reversed(ENGLISH_TO_CHINESE.items())}


@dataclass(frozen=True)
class Edit:
    """An edited text, or the reason why there is none.

    Attributes:
        text: the edited text; None where the edit does not apply.
        kind: how it was made, such as "number"; where it does not apply, why.
        detail: what was changed, for people.
    """

    text: str | None
    kind: str
    detail: str = ""


def plant_errors(text: str, question: str, other: str | None, chooser: random.Random) -> list[Edit]:
    """Make one step of `text` wrong, in each way that applies, as many texts with one error each.

    A number, a number word, a claim, a word of the options, a word of `other`, a reasoning about another question.
    Where none applies, the one edit says so.
    """
    makers: tuple[Callable[[], Edit | None], ...] = (
        lambda: _change_number(text, chooser),
        lambda: _change_number_word(text, chooser),
        lambda: _negate(text, chooser),
        lambda: _swap_option(text, question, chooser),
        lambda: _swap_word(text, question, other, chooser),
    )
    made = [edit for make in makers if (edit := make()) is not None]
    return made or [Edit(None, "no number, claim, option or word to change")]


def mix_languages(text: str, chooser: random.Random) -> Edit:
    """Replace words of `text` by words of another language: English by Chinese, or Chinese by English."""
    if len(_CHINESE.findall(text)) > len(_WORD.findall(text)):
        pattern = "|".join(sorted(map(re.escape, _CHINESE_TO_ENGLISH), key=len, reverse=True))
        table = _CHINESE_TO_ENGLISH
    else:
        pattern = r"\b(?:" + "|".join(sorted(map(re.escape, ENGLISH_TO_CHINESE), key=len, reverse=True)) + r")\b"
        table = ENGLISH_TO_CHINESE
    found = list(re.finditer(pattern, text, re.IGNORECASE))
    if len(found) < LEAST_MIXED:
        return Edit(None, "too few words of the table of words")
    chosen = sorted(chooser.sample(found, min(len(found), MOST_MIXED)), key=lambda match: match.start())
    pieces, done = [], 0
    for match in chosen:
        pieces += [text[done : match.start()], table[match[0].lower()]]
        done = match.end()
    return Edit("".join([*pieces, text[done:]]), "words", f"{len(chosen)} words in another language")


def repeat_steps(text: str, chooser: random.Random) -> Edit:
    """Repeat a block of up to three sentences four more times, in its place."""
    sentences = [match for match in _SENTENCE.finditer(text) if len(match[0]) >= SHORTEST_SENTENCE]
    if not sentences:
        return Edit(None, "no sentence to repeat")
    size = min(LONGEST_BLOCK, len(sentences))
    first = chooser.randrange(len(sentences) - size + 1)
    start, end = sentences[first].start(), sentences[first + size - 1].end()
    separator = "\n" if "\n" in text[start:end] or text[end : end + 1] == "\n" else " "
    again = (separator + text[start:end]) * REPEATS
    return Edit(text[:end] + again + text[end:], "block", f"{size} sentence(s) {REPEATS + 1} times")


def _replace(text: str, start: int, end: int, new: str, kind: str) -> Edit:
    return Edit(text[:start] + new + text[end:], kind, f"{text[start:end]} -> {new}")


def _change_number(text: str, chooser: random.Random) -> Edit | None:
    found = [match for match in _NUMBER.finditer(text) if not _is_label(text, match)]
    if not found:
        return None
    match = chooser.choice(found)
    return _replace(text, match.start(), match.end(), wrong_number(match[0], chooser), "number")


def _is_label(text: str, match: re.Match[str]) -> bool:
    before = text[max(0, match.start() - 20) : match.start()]
    if before.endswith("("):
        return text[match.end() :].startswith(")")
    listed = _LIST_START.search(before) and _LIST_END.match(text, match.end())
    return bool(_LABEL.search(before) or listed)


def wrong_number(written: str, chooser: random.Random) -> str:
    """Another number in the same notation, a third or more away, never negative."""
    decimals = len(written.partition(".")[2])
    value = float(written.replace(",", ""))
    unit = 10.0**-decimals
    step = max(unit, value * chooser.choice((0.35, 0.5, 0.75)))
    changed = value - step if value > step and chooser.random() < 0.5 else value + step
    return f"{changed:{',' if ',' in written else ''}.{decimals}f}"


def _change_number_word(text: str, chooser: random.Random) -> Edit | None:
    found = [match for match in _WORD.finditer(text) if match[0].lower() in NUMBER_WORDS]
    if not found:
        return None
    match = chooser.choice(found)
    new = chooser.choice([word for word in NUMBER_WORDS if word != match[0].lower()])
    return _replace(text, match.start(), match.end(), _cased(new, match[0]), "number word")


def _negate(text: str, chooser: random.Random) -> Edit | None:
    found = [
        (match, new)
        for pattern, new in NEGATIONS
        for match in re.finditer(pattern, text)
        if match.expand(new) != match[0]
    ]
    # A question claims nothing, and words such as "Is it …" begin one.
    claims = [(match, new) for match, new in found if not _asks(text, match.end())]
    if not claims:
        return None
    match, new = chooser.choice(claims)
    return _replace(text, match.start(), match.end(), match.expand(new), "negation")


def _asks(text: str, position: int) -> bool:
    end = re.compile(r"[.!?。！？\n]").search(text, position)
    return end is not None and end[0] in "?？"


def _swap_option(text: str, question: str, chooser: random.Random) -> Edit | None:
    options = list(dict.fromkeys(_OPTION.findall(question)))
    found = [
        (match, option)
        for option in options
        for match in re.finditer(rf"(?<!\w){re.escape(option)}(?!\w)", text, re.IGNORECASE)
    ]
    if len(options) < 2 or not found:
        return None
    match, option = chooser.choice(found)
    new = chooser.choice([other for other in options if other.lower() != option.lower()] or [""])
    return _replace(text, match.start(), match.end(), _cased(new, match[0]), "option") if new else None


def _swap_word(text: str, question: str, other: str | None, chooser: random.Random) -> Edit | None:
    """A word of `other` in the place of one that follows the same word: "a blue …" for "a red …"."""
    known = {word.lower() for word in (*_WORD.findall(text), *_WORD.findall(question))}
    after: dict[str, list[str]] = {}
    for before, word in _pairs(list(_WORD.finditer(other or ""))):
        if word[0].lower() not in known and _says_something(word[0]):
            after.setdefault(before[0].lower(), []).append(word[0])
    found = [
        (word, after[before[0].lower()])
        for before, word in _pairs(list(_WORD.finditer(text)))
        if _says_something(word[0]) and before[0].lower() in after
    ]
    if not found:
        return None
    word, choices = chooser.choice(found)
    return _replace(text, word.start(), word.end(), _cased(chooser.choice(choices).lower(), word[0]), "word")


def _pairs(words: Sequence[re.Match[str]]) -> list[tuple[re.Match[str], re.Match[str]]]:
    return list(pairwise(words))


def _says_something(word: str) -> bool:
    return len(word) >= 3 and word.lower() not in STOP_WORDS


def _cased(new: str, old: str) -> str:
    return new[:1].upper() + new[1:] if old[:1].isupper() else new
