"""What the tiny models can do on held-out pictures: the figures of their cards, and of the tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from drawing import Maker
from scipy.stats import mannwhitneyu
from traces import FORMS, forced_steps, form_of, judge, judged_trace, right_comparisons
from training import Encoder, Example, Pixels, generate
from transformers import Qwen2_5_VLForConditionalGeneration

from data_preprocess.easy_vqa import TYPES
from recipe.sophiavl.trm.parse import parse_score
from reward_score import extract_thinking, score_outcome

MAX_REPLY_TOKENS = 64


def auc(scores: np.ndarray, right: np.ndarray) -> float:
    """How often a right answer's score is above a wrong one's, ties counting half: the area under the ROC curve."""
    return mannwhitneyu(scores[right], scores[~right]).statistic / (right.sum() * (~right).sum())


def evaluate_policy(
    model: Qwen2_5_VLForConditionalGeneration, encoder: Encoder, pixels: Pixels, maker: Maker, count: int
) -> dict[str, float]:
    """Format, outcome reward by type, forms of thinking and what the answer owes to them, on held-out pictures."""
    asked = [maker.question() for _ in range(count)]
    kinds = np.array([question.problem_type for _, question in asked])

    def answer(temperature: float, thoughts: Sequence[str] = ("",) * count) -> tuple[list[str], np.ndarray]:
        """The responses, begun with these texts, and whether they are right."""
        examples = [
            maker.example(scene, maker.policy_prompt(question) + thought)
            for (scene, question), thought in zip(asked, thoughts, strict=True)
        ]
        replies = generate(model, encoder, pixels, examples, temperature=temperature, max_new_tokens=MAX_REPLY_TOKENS)
        whole = [thought + reply for thought, reply in zip(thoughts, replies, strict=True)]
        scores = [
            score_outcome(question.problem_type, reply, question.answer, question.options)
            for (_, question), reply in zip(asked, whole, strict=True)
        ]
        return whole, np.array([(score.format_ok, score.reward >= 0.5) for score in scores]).T

    figures: dict[str, float] = {}
    for label, temperature in (("sampled at T=1", 1.0), ("greedy", 0.0)):
        replies, (formatted, right) = answer(temperature)
        texts = [extract_thinking(reply) or "" for reply in replies]
        thinking = np.array([judge(*both, text) for both, text in zip(asked, texts, strict=True)])
        forms = np.array([form_of(text) for text in texts])
        figures[f"{label}: format followed"] = formatted.mean()
        figures[f"{label}: right answers"] = right.mean()
        figures |= {f"{label}: right answers, {kind}": right[kinds == kind].mean() for kind in TYPES}
        figures[f"{label}: tokens in a response"] = np.mean([len(encoder.ids(reply)) + 1 for reply in replies])
        figures[f"{label}: thinking score by rule"] = thinking.mean()
        for form in (*FORMS, "other"):
            figures[f"{label}: share of {form} thinking"] = (forms == form).mean()
            if (forms == form).any():
                figures[f"{label}: right answers after {form} thinking"] = right[forms == form].mean()
        figures[f"{label}: right thinking (0.8 or more), wrong answer"] = ((thinking >= 0.8) & ~right).mean()
        figures[f"{label}: wrong thinking (below 0.8), right answer"] = ((thinking < 0.8) & right).mean()
        figures[f"{label}: the same with something seen"] = ((thinking > 0) & (thinking < 0.8) & right).mean()
        figures[f"{label}: AUC of the thinking score for a right answer"] = auc(thinking, right)
    for label, wrong in (("right", False), ("wrong", True)):
        begun = [f"<think>{' '.join(forced_steps(*both, maker.rng, wrong=wrong))}" for both in asked]
        figures[f"greedy: right answers after {label} steps that were forced"] = answer(0.0, begun)[1][1].mean()
    return figures


def evaluate_trm_base(
    model: Qwen2_5_VLForConditionalGeneration, encoder: Encoder, pixels: Pixels, maker: Maker, count: int
) -> dict[str, float]:
    """Share of the word comparisons that it writes that are right, then what is left of the policy."""
    examples = [maker.comparison() for _ in range(count)]
    replies = generate(model, encoder, pixels, examples, temperature=1.0, max_new_tokens=MAX_REPLY_TOKENS)
    right = [comparison for reply in replies for comparison in right_comparisons(reply)]
    return {
        "sampled at T=1: comparisons in a reply": len(right) / count,
        "sampled at T=1: of them right": float(np.mean(right)),
        **evaluate_policy(model, encoder, pixels, maker, count),
    }


def trm_scores(
    model: Qwen2_5_VLForConditionalGeneration, encoder: Encoder, pixels: Pixels, examples: Sequence[Example]
) -> np.ndarray:
    """What a TRM scores, NaN where its greedy reply is no score."""
    replies = generate(model, encoder, pixels, examples, temperature=0.0, max_new_tokens=MAX_REPLY_TOKENS)
    return np.array([np.nan if (score := parse_score(reply)) is None else score for reply in replies])


def evaluate_trm(
    model: Qwen2_5_VLForConditionalGeneration, encoder: Encoder, pixels: Pixels, maker: Maker, count: int
) -> dict[str, float]:
    """How well the TRM's scores match the rule's on held-out images, and what they do when the image is swapped."""
    asked = [maker.question() for _ in range(count)]
    judged = [judged_trace(*both, maker.rng) for both in asked]
    examples = [
        maker.example(scene, maker.trm_prompt(question, thinking))
        for (scene, question), thinking in zip(asked, judged, strict=True)
    ]
    truth = np.array([judge(*both, thinking) for both, thinking in zip(asked, judged, strict=True)])
    swapped = [replace(example, scene=examples[i - 1].scene) for i, example in enumerate(examples)]
    scores, other = (trm_scores(model, encoder, pixels, batch) for batch in (examples, swapped))
    parsed = np.isfinite(scores)
    ranks = [np.unique(values[parsed], return_inverse=True)[1] for values in (scores, truth)]
    good = truth >= 0.8
    return {
        "replies that are a score": float(parsed.mean()),
        "mean absolute error": float(np.abs(scores - truth)[parsed].mean()),
        "rank correlation (dense ranks)": float(np.corrcoef(*ranks)[0, 1]),
        "mean score of right thinking": float(np.nanmean(scores[good])),
        "the same texts with another image": float(np.nanmean(other[good])),
    }


def evaluate_trm_on_policy(
    model: Qwen2_5_VLForConditionalGeneration,
    policy: Qwen2_5_VLForConditionalGeneration,
    encoder: Encoder,
    pixels: Pixels,
    maker: Maker,
    count: int,
) -> dict[str, float]:
    """What the TRM's scores tell about the answers of the policy's own responses, beside what the rule's tell."""
    asked = [maker.question() for _ in range(count)]
    prompts = [maker.example(scene, maker.policy_prompt(question)) for scene, question in asked]
    replies = generate(policy, encoder, pixels, prompts, temperature=1.0, max_new_tokens=MAX_REPLY_TOKENS)
    right = np.array(
        [
            score_outcome(question.problem_type, reply, question.answer, question.options).reward >= 0.5
            for (_, question), reply in zip(asked, replies, strict=True)
        ]
    )
    texts = [extract_thinking(reply) or "" for reply in replies]
    rule = np.array([judge(*both, text) for both, text in zip(asked, texts, strict=True)])
    examples = [
        maker.example(scene, maker.trm_prompt(question, text))
        for (scene, question), text in zip(asked, texts, strict=True)
    ]
    scores = trm_scores(model, encoder, pixels, examples)
    parsed = np.isfinite(scores)
    return {
        "the policy's responses: replies that are a score": float(parsed.mean()),
        "the policy's responses: mean absolute error": float(np.abs(scores - rule)[parsed].mean()),
        "the policy's responses: AUC of the score for a right answer": auc(scores[parsed], right[parsed]),
        "the policy's responses: AUC of the rule's score": auc(rule, right),
    }


def report(title: str, figures: dict[str, float]) -> str:
    lines = [f"## {title}", "", "| figure | value |", "|-|-|"]
    return "\n".join([*lines, *(f"| {name} | {value:.3f} |" for name, value in figures.items()), ""])
