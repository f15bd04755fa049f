"""Rules that find noisy labels among annotated pairs. Each has a name, is counted, and can be switched.

The paper (arXiv 2505.17018, section 3.1) filters its labels by rule without saying how; these are ours. Most look for
praise that the text contradicts, because a judge's usual fault is to be kind.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from recipe.sophiavl.trm_training.self_scoring import own_score
from recipe.sophiavl.validation import FLAGS, SettingsError, settings_group

_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]")
# Words of three letters or more, not all capitals: no units (cm), triangles (ABC) or LaTeX commands (\\frac).
_LATIN_WORD = re.compile(r"(?<![A-Za-z\\])[A-Za-z][a-z]{2,}(?![A-Za-z])")
_ABOUT_SCORES = re.compile(
    r"\b(?:score|rating|grade|mark|point)s?\b|[分评評](?:数|數|值)|得分|满分|滿分|评分|評分|成绩|成績", re.IGNORECASE
)
# Shorter texts and lines repeat themselves by nature: a header of zlib's, "so", "= 2".
_COMPRESSED_BYTES = 200
_LINE_CHARS = 10


Characters = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


@settings_group(FLAGS)
class FilterLimits:
    """Thresholds of the rules.

    Attributes:
        min_chars: shortest reasoning, in characters.
        max_chars: longest reasoning, in characters.
        max_spread: largest difference between the judge's samples, in score.
        praised: from this score on, a text that is repetitive or sets its own score is a noisy label.
        max_compression: a text of at least 200 bytes that compresses to less than this fraction is repetitive.
        max_line_repeats: a text in which a line (of at least 10 characters) occurs more often is repetitive.
        mixed_praised: from this score on, a text that mixes languages is a noisy label.
        max_mixed_share: largest share of the rarer script, in [0, 0.5].
        perfect: from this score on, a wrong answer contradicts the score (rule ``perfect_but_wrong``).

    Raises:
        SettingsError: a threshold out of its range.
    """

    min_chars: Characters = 10
    max_chars: Characters = 16000
    max_spread: Fraction = 0.3
    praised: Fraction = 0.6
    max_compression: Fraction = 0.2
    max_line_repeats: Annotated[int, Field(ge=0)] = 4
    mixed_praised: Fraction = 0.8
    max_mixed_share: Fraction = 0.1
    perfect: Fraction = 0.95

    def __post_init__(self) -> None:
        if self.min_chars > self.max_chars:
            raise SettingsError(f"--min-chars {self.min_chars} is more than --max-chars {self.max_chars}")


Rule = Callable[[Mapping[str, Any], FilterLimits], str | None]
"""Takes a row of ``PAIR_SCHEMA``; returns what is wrong with it, or None."""


def no_score(row: Mapping[str, Any], _limits: FilterLimits) -> str | None:
    """The judge gave no readable score."""
    return "no score" if row["score"] is None else None


def too_short(row: Mapping[str, Any], limits: FilterLimits) -> str | None:
    """Next to nothing was written."""
    length = len(row["thinking"].strip())
    return f"{length} characters" if length < limits.min_chars else None


def too_long(row: Mapping[str, Any], limits: FilterLimits) -> str | None:
    """Longer than what is sent to the model: it would be trained on a text without its middle."""
    length = len(row["thinking"])
    return f"{length} characters" if length > limits.max_chars else None


def judge_disagrees(row: Mapping[str, Any], limits: FilterLimits) -> str | None:
    """The judge's samples of one pair lie far apart."""
    spread = row.get("spread") or 0.0
    return f"spread {spread:.2f}" if spread > limits.max_spread + 1e-9 else None


def repetitive_but_praised(row: Mapping[str, Any], limits: FilterLimits) -> str | None:
    """Redundancy is one of the five criteria; text that says the same over and over was scored high."""
    if row["score"] < limits.praised:
        return None
    lines = Counter(line.strip() for line in row["thinking"].splitlines() if len(line.strip()) >= _LINE_CHARS)
    line, times = max(lines.items(), key=lambda item: item[1], default=("", 0))
    if times > limits.max_line_repeats:
        return f"{times} times the line {line[:60]!r}"
    raw = row["thinking"].encode("utf-8", "replace")
    if len(raw) < _COMPRESSED_BYTES:
        return None
    fraction = len(zlib.compress(raw)) / len(raw)
    return f"compresses to {fraction:.2f}" if fraction < limits.max_compression else None


def mixed_language_but_praised(row: Mapping[str, Any], limits: FilterLimits) -> str | None:
    """Language consistency is one of the five criteria; text in two scripts was scored high.

    A question that is itself mixed says nothing about its answers.
    """
    if row["score"] < limits.mixed_praised or mixed_share(row["question"]) > limits.max_mixed_share:
        return None
    share = mixed_share(row["thinking"])
    return f"share {share:.2f} of the rarer script" if share > limits.max_mixed_share else None


def sets_its_own_score(row: Mapping[str, Any], limits: FilterLimits) -> str | None:
    """The reasoning names a score for itself, and the judge gave a high one.

    Where the question is about scores, so is the reasoning.
    """
    if row["score"] < limits.praised or _ABOUT_SCORES.search(row["question"]):
        return None
    found = own_score(row["thinking"])
    return None if found is None else repr(found)


def perfect_but_wrong(row: Mapping[str, Any], limits: FilterLimits) -> str | None:
    """Flawless reasoning that ends in a wrong answer. Off unless asked for: right thinking may be followed by a slip
    in the answer, and that a thinking reward tells the two apart is what it is for."""
    wrong = row.get("outcome") is not None and row["outcome"] < 0.5
    return (
        f"score {row['score']:.2f}, outcome {row['outcome']:.2f}" if wrong and row["score"] >= limits.perfect else None
    )


RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        no_score,
        too_short,
        too_long,
        judge_disagrees,
        repetitive_but_praised,
        mixed_language_but_praised,
        sets_its_own_score,
        perfect_but_wrong,
    )
}
"""In the order in which they are tried; the first that hits is counted."""
OFF_BY_DEFAULT = ("perfect_but_wrong",)


def chosen_rules(enable: Sequence[str] = (), disable: Sequence[str] = ()) -> dict[str, Rule]:
    """The rules that are on.

    Raises:
        ValueError: an unknown name, or ``no_score`` switched off (a row without a score has no interval).
    """
    for name in (*enable, *disable):
        if name not in RULES:
            raise ValueError(f"unknown rule {name!r}; known: {', '.join(RULES)}")
    if "no_score" in disable:
        raise ValueError("the rule no_score can't be switched off: a row without a score teaches nothing")
    off = {*OFF_BY_DEFAULT, *disable} - (set(enable) - set(disable))
    return {name: rule for name, rule in RULES.items() if name not in off}


def first_hit(row: Mapping[str, Any], rules: Mapping[str, Rule], limits: FilterLimits) -> tuple[str, str] | None:
    """The first rule that finds something wrong, and what."""
    for name, rule in rules.items():
        detail = rule(row, limits)
        if detail is not None:
            return name, detail
    return None


def mixed_share(text: str) -> float:
    """Share of the rarer of two scripts, CJK characters and Latin words, in [0, 0.5].

    Names of variables and points, units, option letters and LaTeX commands don't count.
    """
    counts = Counter(cjk=len(_CJK.findall(text)), latin=len(_LATIN_WORD.findall(text)))
    total = counts.total()
    return min(counts.values()) / total if total else 0.0
