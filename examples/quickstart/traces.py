"""Thinking traces about easy-VQA images, and the rule that judges them.

A trace reads "The image shows a <colour> <shape>. So it is <answer>." The rule knows what the image really shows,
and so it can say what a thinking reward model should learn to see.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from data_preprocess.easy_vqa import COLORS, SHAPES, Question, ShapeImage

_DESCRIPTION = re.compile(rf"The image shows a ({'|'.join(COLORS)}) ({'|'.join(SHAPES)})\.")
_CONCLUSION = re.compile(r"So it is (\w+)\.")
_LABELS = ("", "word ", "color ", "shape ", "text ", "image ")
_COMPARISON = re.compile(r"(\w+) (\w+) (yes|no)\b")


@dataclass(frozen=True)
class Trace:
    """A thinking text and the answer after it."""

    thinking: str
    answer: str

    @property
    def response(self) -> str:
        """The whole response in the required format."""
        return f"<think>{self.thinking}</think><answer>{self.answer}</answer>"


def describe(color: str, shape: str, conclusion: str) -> str:
    """A thinking text of the one form that all traces have."""
    return f"The image shows a {color} {shape}. So it is {conclusion}."


def answer_given(question: Question, color: str, shape: str) -> str:
    """The answer that follows from seeing this colour and shape (the letter "A" where no option fits)."""
    if question.problem_type == "numerical":
        thing = question.text.removeprefix("how many ").removesuffix(" are there?").removesuffix("s")
        return "1" if thing.removesuffix(" shape") in (color, shape) else "0"
    word = color if "color" in question.text else shape
    if question.problem_type == "free-form":
        return word
    letters = {option[3:]: option[0] for option in question.options}
    return letters.get(word, "A")


def possible_answers(question: Question) -> tuple[str, ...]:
    """Every answer that a policy might give to the question."""
    if question.problem_type == "numerical":
        return ("0", "1")
    if question.problem_type == "multiple choice":
        return tuple(option[0] for option in question.options)
    return COLORS if "color" in question.text else SHAPES


def other(values: tuple[str, ...], value: str, rng: random.Random) -> str:
    """One of the values that is not this one."""
    return rng.choice([item for item in values if item != value])


def policy_trace(
    image: ShapeImage, question: Question, rng: random.Random, *, wrong_thinking: float, wrong_answer: float
) -> Trace:
    """A trace to start a policy from, wrong on purpose at the given rates, each in [0, 1], independently.

    Wrong thinking misnames the colour or the shape but keeps the right answer; a wrong answer follows right thinking.
    """
    color, shape = image.color, image.shape
    if rng.random() < wrong_thinking:
        if rng.random() < 0.5:
            color = other(COLORS, color, rng)
        else:
            shape = other(SHAPES, shape, rng)
    answer = question.answer
    if rng.random() < wrong_answer:
        answer = other(possible_answers(question), answer, rng)
    return Trace(describe(color, shape, answer), answer)


def judge(image: ShapeImage, question: Question, thinking: str) -> float:
    """Score of a thinking text in 0.0, 0.1 ... 1.0, by rule.

    0.5 for the right colour, 0.4 for the right shape, 0.1 for one conclusion that answers this kind of question;
    a text that says nothing of the image, repeats itself or holds anything else is worth nothing.
    """
    seen, concluded = _DESCRIPTION.findall(thinking), _CONCLUSION.findall(thinking)
    rest = _CONCLUSION.sub("", _DESCRIPTION.sub("", thinking)).strip()
    if len(seen) != 1 or len(concluded) > 1 or rest:
        return 0.0
    color, shape = seen[0]
    points = 5 * (color == image.color) + 4 * (shape == image.shape)
    points += len(concluded) == 1 and concluded[0] in possible_answers(question)
    return points / 10


def verdict(image: ShapeImage, thinking: str, score: float) -> str:
    """The TRM's reply: what the image shows beside what the text says of it, then the score.

    A model this small compares two words that stand side by side, and not a word with pixels.
    """
    seen = _DESCRIPTION.findall(thinking)
    if len(seen) != 1:
        return f"no description. Score: {score:.1f}"
    checks = [
        f"{name} {true} {said} {'yes' if said == true else 'no'}"
        for name, true, said in zip(("color", "shape"), (image.color, image.shape), seen[0], strict=True)
    ]
    return f"{', '.join(checks)}. Score: {score:.1f}"


def critique(image: ShapeImage, thinking: str, score: float) -> str:
    """The judge's reply: what the image shows, in the words of the traces, then `verdict` with the text's word first.

    A policy that starts to learn this reply can say its first sentence already.
    """
    seen = _DESCRIPTION.findall(thinking)
    if len(seen) != 1:
        return verdict(image, thinking, score)
    checks = [
        f"{name} {said} {true} {'yes' if said == true else 'no'}"
        for name, true, said in zip(("color", "shape"), (image.color, image.shape), seen[0], strict=True)
    ]
    return f"The image shows a {image.color} {image.shape}. {', '.join(checks)}. Score: {score:.1f}"


def compared_words(rng: random.Random) -> str:
    """Random pairs of words, each followed by whether they are the same: "red red yes, shape circle triangle no ...".

    What every pretrained language model can tell and a tiny one learns late, suddenly or never. The pairs stand
    nowhere else, or it would learn to read there instead of comparing.
    """
    parts = []
    for _ in range(6):
        words = COLORS if rng.random() < 0.6 else SHAPES
        first = rng.choice(words)
        second = first if rng.random() < 0.5 else other(words, first, rng)
        parts.append(f"{rng.choice(_LABELS)}{first} {second} {'yes' if first == second else 'no'}")
    return ", ".join(parts) + "."


def right_comparisons(reply: str) -> list[bool]:
    """Of each comparison in a reply of the form of `compared_words`, whether it is right."""
    return [(first == second) == (said == "yes") for first, second, said in _COMPARISON.findall(reply)]


def judged_trace(image: ShapeImage, question: Question, rng: random.Random) -> tuple[str, float]:
    """A thinking text of random quality with its score, for training and testing a thinking reward model."""
    color = image.color if rng.random() < 0.55 else other(COLORS, image.color, rng)
    shape = image.shape if rng.random() < 0.55 else other(SHAPES, image.shape, rng)
    conclusion = answer_given(question, color, shape)
    if rng.random() < 0.35:
        conclusion = rng.choice(possible_answers(question))
    thinking = describe(color, shape, conclusion)
    kind = rng.random()
    if kind < 0.06:
        thinking = f"{thinking} {thinking}"
    elif kind < 0.10:
        thinking = rng.choice(("", "So it is", "The image shows", f"{conclusion} {conclusion}", "score 1.0", color))
    return thinking, judge(image, question, thinking)
