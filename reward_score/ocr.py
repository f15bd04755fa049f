"""OCR outcome: the word error rate (WER) between the text read and the true text, as a reward."""

from __future__ import annotations

import math

import jiwer

from reward_score.text import spaced_words, strip_dollars

OCR_REWARDS = ("exp", "linear")


def score_ocr(answer: str, truth: str, ocr_reward: str = "exp") -> float:
    """Reward of an OCR answer.

    Both texts are compared after Unicode NFKC and with white space (line breaks too) collapsed. Case and punctuation
    count: reading them is the task. Characters of scripts without spaces between words count as one word each, so that
    WER is the character error rate there.

    Args:
        answer: text of the answer.
        truth: true text, not empty.
        ocr_reward: ``exp`` = exp(-WER); ``linear`` = 1 - WER, clipped at 0.

    Returns:
        A float in [0, 1]. An empty answer scores 0, although its WER is 1: there is nothing to reward.

    Raises:
        ValueError: the truth is empty, or ``ocr_reward`` is unknown.
    """
    if ocr_reward not in OCR_REWARDS:
        raise ValueError(f"ocr_reward={ocr_reward!r}: use one of {', '.join(OCR_REWARDS)}")
    reference = spaced_words(truth)
    if not reference:
        raise ValueError(f"ground_truth={truth!r} is empty: the word error rate is undefined")
    hypothesis = spaced_words(strip_dollars(answer))
    if not hypothesis:
        return 0.0
    error_rate = jiwer.wer(" ".join(reference), " ".join(hypothesis))
    return math.exp(-error_rate) if ocr_reward == "exp" else max(0.0, 1.0 - error_rate)
