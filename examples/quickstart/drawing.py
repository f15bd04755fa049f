"""Draws what the tiny models learn from and are tried on: prompts as verl and the TRM client send them, and replies."""

from __future__ import annotations

import random
from collections.abc import Sequence

from traces import compared_words, critique, judged_trace, policy_trace
from training import Example
from transformers import PreTrainedTokenizerFast

from data_preprocess.easy_vqa import PLACES, TYPES, Question, Scene, ShapeImage, deduce, make_question
from data_preprocess.schema import SYSTEM_PROMPT
from recipe.sophiavl.trm.prompt import PromptTemplate, build_messages, clean_question, clean_thinking

# Rates of wrong traces in the policy's cold start, beside the form of thinking: what RL can unlearn.
WRONG_STEP = 0.1
SLIP = 0.05


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
