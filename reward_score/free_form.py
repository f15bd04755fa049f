"""Free-form outcome: mean of the ROUGE-1, ROUGE-2 and ROUGE-L F1 scores."""

from __future__ import annotations

import re
from functools import lru_cache

from nltk.stem.porter import PorterStemmer
from rapidfuzz.distance import LCSseq
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.scoring import fmeasure
from rouge_score.tokenizers import Tokenizer

from reward_score.text import UNSPACED, normalise, strip_dollars, words

_STEMMER = PorterStemmer()
_UNSPACED = re.compile(f"[{UNSPACED}]")
_HAS_DIGIT = re.compile(r"\d")
_PUNCTUATION = ".,;:!?\"'()[]"


class UnicodeTokenizer(Tokenizer):
    """rouge-score's tokenizer with stemming, for every script: its own one drops whatever is not ASCII."""

    def tokenize(self, text: str) -> list[str]:
        """Lower-case words (see :func:`reward_score.text.words`), the ASCII ones of over 3 letters Porter-stemmed.

        What has a digit, or no two letters, is one token with its signs: ``-5``, ``3.5``, ``c++``, ``1/2``.
        """
        tokens: list[str] = []
        for chunk in normalise(text).lower().split():
            found = words(chunk)
            symbols = _HAS_DIGIT.search(chunk) or not any(map(_is_word, found))
            if found and symbols and not _UNSPACED.search(chunk):
                tokens.append(chunk.strip(_PUNCTUATION) or chunk)
            else:
                tokens += [_stem(word) if len(word) > 3 and word.isascii() else word for word in found]
        return tokens


_TOKENIZER = UnicodeTokenizer()
_ROUGE_N = RougeScorer(["rouge1", "rouge2"], tokenizer=_TOKENIZER)


def score_free_form(answer: str, truth: str) -> float:
    """Reward of a free-form answer.

    Case, punctuation and word endings (Porter stemmer, as in the published code) do not count; the signs of numbers and
    of single letters do. A truth of one word has no bigrams: ROUGE-2 is undefined and left out of the mean, so that the
    right word scores 1. A truth without a word of two letters (``-5``, ``C++``, ``x²``, ``1/2``, ``?!``) must be met
    exactly, but for a full stop: what ROUGE drops is what it says.

    Args:
        answer: text of the answer.
        truth: true text, not empty.

    Returns:
        A float in [0, 1]; 1 for equal words in equal order, 0 for an empty answer.
    """
    truth, answer = strip_dollars(truth), strip_dollars(answer)
    reference, hypothesis = _TOKENIZER.tokenize(truth), _TOKENIZER.tokenize(answer)
    if not any(map(_is_word, reference)):
        return float(_without_stop(answer) == _without_stop(truth))
    if not hypothesis:
        return 0.0
    rouge_n = _ROUGE_N.score(truth, answer)
    scores = [rouge_n["rouge1"].fmeasure, _rouge_l(reference, hypothesis)]
    if len(reference) > 1:
        scores.append(rouge_n["rouge2"].fmeasure)
    return sum(scores) / len(scores)


def _is_word(token: str) -> bool:
    return sum(map(str.isalpha, token)) > 1 or _UNSPACED.search(token) is not None


def _without_stop(text: str) -> str:
    text = normalise(text)
    return text.rstrip(" .。") or text


def _rouge_l(reference: list[str], hypothesis: list[str]) -> float:
    """ROUGE-L F1. rouge-score's own is quadratic in pure Python: seconds on a rambling answer."""
    common = LCSseq.similarity(reference, hypothesis)
    return fmeasure(common / len(hypothesis), common / len(reference))


@lru_cache(maxsize=65536)
def _stem(word: str) -> str:
    return _STEMMER.stem(word)
