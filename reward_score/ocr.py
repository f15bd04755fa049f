"""OCR outcome: the word error rate (WER) between the text read and the true text, as a reward."""

from __future__ import annotations

import math

from rapidfuzz.distance import Levenshtein

from reward_score.text import spaced_words, strip_dollars


def score_ocr(answer: str, truth: str, ocr_reward: str = "exp") -> float:
    """Reward of an OCR answer.

    Both texts are compared after Unicode NFKC (but for raised, lowered and circled characters) and with white space,
    line breaks too, collapsed. Case and punctuation count: reading them is the task. Characters of scripts without
    spaces between words count as one word each, so that WER is the character error rate there.

    A wrong word in the place of each true one is a WER of 1, so ``exp`` gives 0.368 for any junk of the right length
    (or of one word), and 0.5 for 31 % of the words right; ``linear`` gives 0 and 0.31.

    Args:
        answer: text of the answer.
        truth: true text, not empty.
        ocr_reward: ``exp`` = exp(-WER); ``linear`` = 1 - WER, clipped at 0.

    Returns:
        A float in [0, 1]. An empty answer scores 0, although its WER is 1: there is nothing to reward.

    Raises:
        ValueError: the truth is empty.
    """
    reference = spaced_words(truth)
    if not reference:
        raise ValueError(f"ground_truth={truth!r} is empty: the word error rate is undefined")
    hypothesis = spaced_words(strip_dollars(answer))
    if not hypothesis:
        return 0.0
    error_rate = Levenshtein.distance(reference, hypothesis) / len(reference)
    return math.exp(-error_rate) if ocr_reward == "exp" else max(0.0, 1.0 - error_rate)
