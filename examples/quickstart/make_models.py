"""Makes three tiny models: a cold-started policy, a thinking reward model (TRM), and one to train a TRM from.

``policy`` and ``trm`` are the quickstart's. ``trm_base`` stands in for the pretrained model that a TRM is trained from
(Qwen2.5-VL-3B in the paper): the policy, which has also learned to say whether two words are the same.

``python examples/quickstart/make_models.py`` takes about 25 minutes on two cores, so the weights are kept in the
repository under ``models/``, with the figures that this script printed when it made them (``CARD.md``): measured on
held-out images with the saved bfloat16 weights.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import mannwhitneyu
from tiny_qwen import model_config, save_processor, train_tokenizer
from traces import (
    FORMS,
    compared_words,
    critique,
    forced_steps,
    form_of,
    judge,
    judged_trace,
    policy_trace,
    right_comparisons,
)
from training import Encoder, Example, Pixels, generate, train_eyes, train_language
from transformers import AutoProcessor, AutoTokenizer, PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

from data_preprocess.easy_vqa import (
    FIRST_RL_IMAGE,
    PLACES,
    TYPES,
    Question,
    Scene,
    ShapeImage,
    deduce,
    load_images,
    make_question,
)
from data_preprocess.schema import SYSTEM_PROMPT
from recipe.sophiavl.trm.parse import parse_score
from recipe.sophiavl.trm.prompt import (
    PromptTemplate,
    build_messages,
    clean_question,
    clean_thinking,
    load_template,
)
from reward_score import extract_thinking, score_outcome

HERE = Path(__file__).parent
STAGES = ("policy", "trm_base", "trm")
# Rates of wrong traces in the policy's cold start, beside the form of thinking: what RL can unlearn.
WRONG_STEP = 0.12
SLIP = 0.07
MAX_REPLY_TOKENS = 64
LEARNING_RATE = 2e-3
TEST_QUESTIONS = 600


class Maker:
    """Draws training and test examples for both models from a set of images."""

    def __init__(
        self, images: Sequence[ShapeImage], tokenizer: PreTrainedTokenizerFast, template: PromptTemplate, seed: int
    ) -> None:
        self.images, self.tokenizer, self.template = images, tokenizer, template
        self.rows = {image.image_id: row for row, image in enumerate(images)}
        self.rng = random.Random(seed)

    def question(self) -> tuple[Scene, Question]:
        """A random scene and a question about it."""
        return make_question(self.images, self.rng.choice(TYPES), self.rng)

    def example(self, scene: Scene, prompt: str, reply: str = "") -> Example:
        return Example(prompt, reply, tuple(self.rows[picture.image_id] for picture in scene.pictures))

    def policy(self) -> Example:
        """A prompt as the RL parquet has it, and a trace that is sometimes wrong."""
        scene, question = self.question()
        trace = policy_trace(scene, question, self.rng, wrong_step=WRONG_STEP, slip=SLIP)
        return self.example(scene, self.policy_prompt(question), trace.response)

    def naming(self) -> Example:
        """A text that names the letters of options: the hardest part of the lessons, and the rarest in them."""
        scene, question = make_question(self.images, "multiple choice", self.rng)
        words = self.rng.sample(question.words, len(question.words))
        content = [{"type": "image"}, {"type": "text", "text": "\n".join(["Name the options.", *question.options])}]
        reply = " ".join(f"{word} {question.given(word)}." for word in words)
        return self.example(scene, self._render([{"role": "user", "content": content}]), reply)

    def lesson(self) -> Example:
        """A prompt as the RL parquet has it, and a right trace that looks; or, less often, letters to name."""
        if self.rng.random() < 0.25:
            return self.naming()
        scene, question = self.question()
        form = self.rng.choice(("full", "full", "short"))
        trace = policy_trace(scene, question, self.rng, wrong_step=0, slip=0, form=form)
        return self.example(scene, self.policy_prompt(question), trace.response)

    def trm(self) -> Example:
        """A prompt as the TRM's client sends it, and its reply; a third of the texts is about another image.

        Where nearly all that is said is true, a model learns to say its own words twice and not to read the text.
        """
        scene, question = self.question()
        described = scene
        if self.rng.random() < 1 / 3:
            described = Scene(tuple(self.rng.sample(self.images, len(PLACES))))
            while deduce(question.ask, described.looks)[1] not in question.words:
                described = Scene(tuple(self.rng.sample(self.images, len(PLACES))))
        thinking = judged_trace(described, question, self.rng)
        return self.example(scene, self.trm_prompt(question, thinking), critique(scene, question, thinking))

    def comparison(self) -> Example:
        """A text that compares words, after an image and a question that have nothing to do with it."""
        scene, question = self.question()
        content = [{"type": "image"}, {"type": "text", "text": f"Compare words.\n{question.text}"}]
        return self.example(scene, self._render([{"role": "user", "content": content}]), compared_words(self.rng))

    def trm_base(self) -> Example:
        """A word comparison or, as often, a policy's trace, which is not to be forgotten."""
        return self.comparison() if self.rng.random() < 0.5 else self.policy()

    def policy_prompt(self, question: Question) -> str:
        content = [{"type": "image"}, {"type": "text", "text": "\n".join([question.text, *question.options])}]
        return self._render([{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": content}])

    def trm_prompt(self, question: Question, thinking: str) -> str:
        text = clean_question("\n".join([question.text, *question.options]))
        return self._render(
            build_messages(self.template, text, ["image"], clean_thinking(self.template, thinking, None))
        )

    def _render(self, messages: list) -> str:
        return self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


def tokenizer_texts(images: Sequence[ShapeImage], template: PromptTemplate, seed: int) -> list[str]:
    """What the tokenizer learns its merges from: prompts and replies of both models."""
    maker = Maker(images, PreTrainedPlain(), template, seed)
    examples = [draw() for draw in (maker.policy, maker.trm) for _ in range(3000)]
    return [text for example in examples for text in (example.prompt, example.reply)]


class PreTrainedPlain:
    """Stands in for a tokenizer while there is none: renders messages as plain lines."""

    def apply_chat_template(self, messages: list, **_: object) -> str:
        parts = []
        for message in messages:
            content = message["content"]
            pieces = [content] if isinstance(content, str) else [part.get("text", "") for part in content]
            parts += [message["role"], *pieces]
        return "\n".join([*parts, "assistant\n"])


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


class Workshop:
    """Data, tokenizer and images that all stages share.

    Args:
        out: folder for ``policy/``, ``trm_base/`` and ``trm/``.
        seed: of the examples and of the weights.
        tokenizer: the policy's, or None to train one.
    """

    def __init__(self, out: Path, seed: int, tokenizer: PreTrainedTokenizerFast | None) -> None:
        template = load_template(str(HERE / "trm_prompt.yaml"))
        images, held_out = load_images("train"), load_images("test")
        images = [image for image in images if image.image_id < FIRST_RL_IMAGE]
        self.tokenizer = tokenizer or train_tokenizer(tokenizer_texts(images, template, seed))
        save_processor(self.tokenizer, out / "policy")
        processor = AutoProcessor.from_pretrained(out / "policy").image_processor
        self.out, self.images, self.encoder = out, images, Encoder(self.tokenizer)
        self.pixels, self.test_pixels = Pixels(images, processor, flip=True), Pixels(held_out, processor)
        self.maker = Maker(images, self.tokenizer, template, seed)
        self.test = Maker(held_out, self.tokenizer, template, seed + 1)

    def make_policy(self, eye_steps: int, lesson_steps: int, steps: int) -> str:
        """Train and save the policy; returns its part of the model card.

        It learns to see, then to think rightly, and last to think as carelessly as RL shall find it.
        """
        model = Qwen2_5_VLForConditionalGeneration(model_config(self.tokenizer))
        model.generation_config.eos_token_id = self.tokenizer.eos_token_id
        model.generation_config.pad_token_id = self.tokenizer.pad_token_id
        train_eyes(model, self.images, self.pixels, eye_steps, lr=LEARNING_RATE)
        self._train(model, self.maker.lesson, lesson_steps, "lessons")
        self._train(model, self.maker.policy, steps, "policy", lr=LEARNING_RATE / 2)
        self._save(model, "policy")
        return report("Policy", evaluate_policy(model, self.encoder, self.test_pixels, self.test, TEST_QUESTIONS))

    def make_from_policy(self, name: str, steps: int) -> str:
        """Train "trm_base" or "trm" from the policy's weights and save it; returns its part of the model card."""
        title, draw, evaluate = {
            "trm_base": ("Model to train a TRM from", self.maker.trm_base, evaluate_trm_base),
            "trm": ("Thinking reward model", self.maker.trm, evaluate_trm),
        }[name]
        policy, model = (
            Qwen2_5_VLForConditionalGeneration.from_pretrained(self.out / "policy", dtype=torch.float32).eval()
            for _ in range(2)
        )
        self._train(model, draw, steps, name)
        self._save(model, name)
        held_out = self.encoder, self.test_pixels, self.test, TEST_QUESTIONS
        figures = evaluate(model, *held_out)
        if name == "trm":
            figures |= evaluate_trm_on_policy(model, policy, *held_out)
        return report(title, figures)

    def _train(
        self,
        model: Qwen2_5_VLForConditionalGeneration,
        draw: Callable[[], Example],
        steps: int,
        name: str,
        lr: float = LEARNING_RATE,
    ) -> None:
        train_language(model.train(), self.encoder, self.pixels, draw, steps=steps, batch_size=32, lr=lr, name=name)

    def _save(self, model: Qwen2_5_VLForConditionalGeneration, name: str) -> None:
        """Write the weights; what is left in `model` are the written, rounded ones."""
        model.to(torch.bfloat16).save_pretrained(self.out / name)
        save_processor(self.tokenizer, self.out / name)
        model.float().eval()


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "models", help="folder for policy/, trm_base/ and trm/")
    parser.add_argument(
        "--stage", choices=("all", *STAGES), default="all", help="trm_base and trm start from out/policy"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--eye-steps", type=int, default=1200, help="steps of the vision tower's training")
    parser.add_argument("--lesson-steps", type=int, default=1800, help="SFT steps of the policy on right traces")
    parser.add_argument("--policy-steps", type=int, default=700, help="SFT steps of the policy on careless ones")
    parser.add_argument("--trm-base-steps", type=int, default=1200, help="SFT steps of the model to train a TRM from")
    parser.add_argument("--trm-steps", type=int, default=1200, help="SFT steps of the TRM")
    options = parser.parse_args(arguments)
    # Once the loss is near 0, gradients of denormal size would slow every step down.
    torch.set_flush_denormal(True)
    made = options.out / "policy"
    kept = AutoTokenizer.from_pretrained(made) if options.stage.startswith("trm") else None
    workshop = Workshop(options.out, options.seed, kept)
    for stage in STAGES if options.stage == "all" else (options.stage,):
        torch.manual_seed(options.seed)
        started = time.monotonic()
        if stage == "policy":
            card = workshop.make_policy(options.eye_steps, options.lesson_steps, options.policy_steps)
        else:
            steps = options.trm_base_steps if stage == "trm_base" else options.trm_steps
            card = workshop.make_from_policy(stage, steps)
        card += f"\nMade in {(time.monotonic() - started) / 60:.0f} minutes.\n"
        (options.out / stage / "CARD.md").write_text(card)
        print(card, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
