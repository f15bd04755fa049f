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
from pathlib import Path

import numpy as np
import torch
from tiny_qwen import model_config, save_processor, train_tokenizer
from traces import compared_words, judge, judged_trace, policy_trace, right_comparisons, verdict
from training import Encoder, Example, Pixels, generate, train_eyes, train_language
from transformers import AutoProcessor, AutoTokenizer, PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

from data_preprocess.easy_vqa import FIRST_RL_IMAGE, Question, ShapeImage, load_images, make_question
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
TYPES = ("numerical", "multiple choice", "free-form")
# Rates of wrong traces in the policy's cold start: what RL can unlearn.
WRONG_THINKING = 0.25
WRONG_ANSWER = 0.35
MAX_REPLY_TOKENS = 48
LEARNING_RATE = 2e-3
TEST_QUESTIONS = 600


class Maker:
    """Draws training and test examples for both models from a set of images."""

    def __init__(
        self, images: Sequence[ShapeImage], tokenizer: PreTrainedTokenizerFast, template: PromptTemplate, seed: int
    ) -> None:
        self.images, self.tokenizer, self.template = images, tokenizer, template
        self.rng = random.Random(seed)

    def question(self) -> tuple[int, Question]:
        """A random image's place and a question about it."""
        while True:
            place = self.rng.randrange(len(self.images))
            question = make_question(self.images[place], self.rng.choice(TYPES), self.rng)
            if question is not None:
                return place, question

    def policy(self) -> Example:
        """A prompt as the RL parquet has it, and a trace that is sometimes wrong."""
        place, question = self.question()
        trace = policy_trace(
            self.images[place], question, self.rng, wrong_thinking=WRONG_THINKING, wrong_answer=WRONG_ANSWER
        )
        return Example(self.policy_prompt(question), trace.response, place)

    def trm(self) -> Example:
        """A prompt as the TRM's client sends it, and its score."""
        place, question = self.question()
        image = self.images[place]
        thinking, score = judged_trace(image, question, self.rng)
        return Example(self.trm_prompt(question, thinking), verdict(image, thinking, score), place)

    def comparison(self) -> Example:
        """A text that compares words, after an image and a question that have nothing to do with it."""
        place, question = self.question()
        content = [{"type": "image"}, {"type": "text", "text": f"Compare words.\n{question.text}"}]
        return Example(self._render([{"role": "user", "content": content}]), compared_words(self.rng), place)

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


def evaluate_policy(
    model: Qwen2_5_VLForConditionalGeneration, encoder: Encoder, pixels: Pixels, maker: Maker, count: int
) -> dict[str, float]:
    """Format, outcome reward by type, and right or wrong thinking by answer, on held-out images."""
    asked = [maker.question() for _ in range(count)]
    examples = [Example(maker.policy_prompt(question), "", place) for place, question in asked]
    figures: dict[str, float] = {}
    for label, temperature in (("sampled at T=1", 1.0), ("greedy", 0.0)):
        replies = generate(model, encoder, pixels, examples, temperature=temperature, max_new_tokens=MAX_REPLY_TOKENS)
        outcomes, thinking = [], []
        for (place, question), reply in zip(asked, replies, strict=True):
            outcomes.append(score_outcome(question.problem_type, reply, question.answer, question.options))
            thinking.append(judge(maker.images[place], question, extract_thinking(reply) or ""))
        reward = np.array([outcome.reward for outcome in outcomes])
        sound = np.array(thinking) >= 0.8
        kinds = np.array([question.problem_type for _, question in asked])
        figures[f"{label}: format followed"] = float(np.mean([outcome.format_ok for outcome in outcomes]))
        figures[f"{label}: outcome reward"] = float(reward.mean())
        for kind in TYPES:
            figures[f"{label}: outcome reward, {kind}"] = float(reward[kinds == kind].mean())
        figures[f"{label}: thinking score by rule"] = float(np.mean(thinking))
        figures[f"{label}: right description, wrong answer"] = float(np.mean(sound & (reward < 0.5)))
        figures[f"{label}: wrong description, right answer"] = float(np.mean(~sound & (reward >= 0.5)))
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


def evaluate_trm(
    model: Qwen2_5_VLForConditionalGeneration, encoder: Encoder, pixels: Pixels, maker: Maker, count: int
) -> dict[str, float]:
    """How well the TRM's scores match the rule's on held-out images, and what they do when the image is swapped."""
    asked = [(*maker.question(),) for _ in range(count)]
    judged = [judged_trace(maker.images[place], question, maker.rng) for place, question in asked]
    examples = [
        Example(maker.trm_prompt(question, thinking), "", place)
        for (place, question), (thinking, _) in zip(asked, judged, strict=True)
    ]
    truth = np.array([score for _, score in judged])
    swapped = [Example(e.prompt, "", (e.image + 1 + i) % len(maker.images)) for i, e in enumerate(examples)]
    scores, other = (
        np.array(
            [
                np.nan if (value := parse_score(reply)) is None else value
                for reply in generate(model, encoder, pixels, batch, temperature=0.0, max_new_tokens=MAX_REPLY_TOKENS)
            ]
        )
        for batch in (examples, swapped)
    )
    parsed = np.isfinite(scores)
    ranks = [np.unique(values[parsed], return_inverse=True)[1] for values in (scores, truth)]
    good = truth >= 0.8
    return {
        "replies that are a score": float(parsed.mean()),
        "mean absolute error": float(np.abs(scores - truth)[parsed].mean()),
        "rank correlation (dense ranks)": float(np.corrcoef(*ranks)[0, 1]),
        "mean score of right descriptions": float(np.nanmean(scores[good])),
        "the same texts with another image": float(np.nanmean(other[good])),
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
        self.pixels, self.test_pixels = Pixels(images, processor), Pixels(held_out, processor)
        self.maker = Maker(images, self.tokenizer, template, seed)
        self.test = Maker(held_out, self.tokenizer, template, seed + 1)

    def make_policy(self, eye_steps: int, steps: int) -> str:
        """Train and save the policy; returns its part of the model card."""
        model = Qwen2_5_VLForConditionalGeneration(model_config(self.tokenizer))
        model.generation_config.eos_token_id = self.tokenizer.eos_token_id
        model.generation_config.pad_token_id = self.tokenizer.pad_token_id
        train_eyes(model, self.images, self.pixels, eye_steps, lr=2e-3)
        self._train(model, self.maker.policy, steps, "policy")
        return report("Policy", evaluate_policy(model, self.encoder, self.test_pixels, self.test, TEST_QUESTIONS))

    def make_from_policy(self, name: str, steps: int) -> str:
        """Train "trm_base" or "trm" from the policy's weights and save it; returns its part of the model card."""
        title, draw, evaluate = {
            "trm_base": ("Model to train a TRM from", self.maker.trm_base, evaluate_trm_base),
            "trm": ("Thinking reward model", self.maker.trm, evaluate_trm),
        }[name]
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(self.out / "policy", dtype=torch.float32)
        self._train(model, draw, steps, name)
        return report(title, evaluate(model, self.encoder, self.test_pixels, self.test, TEST_QUESTIONS))

    def _train(
        self, model: Qwen2_5_VLForConditionalGeneration, draw: Callable[[], Example], steps: int, name: str
    ) -> None:
        train_language(
            model.train(), self.encoder, self.pixels, draw, steps=steps, batch_size=64, lr=LEARNING_RATE, name=name
        )
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
    parser.add_argument("--policy-steps", type=int, default=1200, help="SFT steps of the policy")
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
            card = workshop.make_policy(options.eye_steps, options.policy_steps)
        else:
            steps = options.trm_base_steps if stage == "trm_base" else options.trm_steps
            card = workshop.make_from_policy(stage, steps)
        card += f"\nMade in {(time.monotonic() - started) / 60:.0f} minutes.\n"
        (options.out / stage / "CARD.md").write_text(card)
        print(card, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
