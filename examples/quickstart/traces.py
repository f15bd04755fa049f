"""Thinking traces about rows of three easy-VQA pictures, and the rule that judges them.

A trace names what is at the places, marks by yes or no what the question's colour or shape is met by, looks where the
answer is, and concludes: "left red circle no. middle teal triangle yes. right red circle no. look left. So it is red."
The rule knows what the image really shows, and so it can say what a thinking reward model should learn to see.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from data_preprocess.easy_vqa import COLORS, PLACES, SHAPES, Ask, Look, Question, Scene, deduce

# How often the cold-started policy thinks in each form. The careless one is the most frequent.
FORMS = {"hasty": 0.46, "short": 0.18, "full": 0.24, "twice": 0.12}

_PLACE = "|".join(PLACES)
_SENTENCE = re.compile(
    rf"(?P<place>{_PLACE})(?: (?P<color>{'|'.join(COLORS)}))?(?: (?P<shape>{'|'.join(SHAPES)}))?(?: (?P<flag>yes|no))?"
    rf"\.|look (?P<look>{_PLACE})\.|So it is (?P<concluded>\w+)(?: (?P<letter>[A-D]))?\."
)
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


def other(values: tuple[str, ...], value: str, rng: random.Random) -> str:
    """One of the values that is not this one."""
    return rng.choice([item for item in values if item != value])


def misseen(question: Question, looks: dict[str, Look], wrong: float, rng: random.Random) -> dict[str, Look]:
    """The looks, each with its colour or its shape misnamed at the rate `wrong`, so that some answer still follows."""
    while True:
        said = {}
        for place, (color, shape) in looks.items():
            if rng.random() < wrong:
                color, shape = rng.choice(((other(COLORS, color, rng), shape), (color, other(SHAPES, shape, rng))))
            said[place] = color, shape
        if deduce(question.ask, said)[1] in question.words:
            return said


def steps(ask: Ask, said: dict[str, Look], form: str) -> list[str]:
    """The sentences of a trace before its conclusion. ``short`` says only what the question needs."""
    focus, _ = deduce(ask, said)
    if form != "short":
        seen = [_statement(ask, place, said[place]) for place in PLACES]
        return [*seen, *(seen if form == "twice" else ()), *([f"look {focus}."] if focus else ())]
    if ask.wanted == "number":
        kind = ask.thing in SHAPES
        return [_statement(ask, place, _only(said[place], kind)) for place in reversed(PLACES)]
    answers = [f"look {focus}.", f"{focus} {said[focus][ask.wanted == 'shape']}."]
    if not ask.thing:
        return answers
    start = PLACES[PLACES.index(focus) + (1 if ask.place == "left" else -1)]
    return [_statement(ask, start, _only(said[start], ask.thing in SHAPES)), *answers]


def _only(look: Look, kind: bool) -> Look:
    return (None, look[1]) if kind else (look[0], None)


def _statement(ask: Ask, place: str, look: Look) -> str:
    flag = (" yes" if ask.thing in look else " no") if ask.thing else ""
    return f"{' '.join((place, *filter(None, look)))}{flag}."


def guess(scene: Scene, question: Question, rng: random.Random) -> str:
    """What comes to mind without looking: as if only the middle picture were there or, as often, anything."""
    look = scene.looks["middle"]
    word = str(int(question.ask.thing in look)) if question.problem_type == "numerical" else None
    word = word or look[question.ask.wanted == "shape"]
    return word if word in question.words and rng.random() < 1 / 2 else rng.choice(question.words)


def policy_trace(
    scene: Scene, question: Question, rng: random.Random, *, wrong_step: float, slip: float, form: str | None = None
) -> Trace:
    """A trace to start a policy from, wrong on purpose at the given rates, each in [0, 1].

    Args:
        wrong_step: rate at which what a picture shows is misnamed; what comes after follows from it.
        slip: rate at which the conclusion does not follow from the steps, and again the answer from the conclusion.
        form: one of `FORMS`, or None to draw one.
    """
    form = form or rng.choices(list(FORMS), list(FORMS.values()))[0]
    if form == "hasty":
        word = guess(scene, question, rng)
        sentences, conclusion = [], "It looks like"
    else:
        said = misseen(question, scene.looks, wrong_step, rng)
        word = deduce(question.ask, said)[1]
        if rng.random() < slip:
            word = other(question.words, word, rng)
        sentences, conclusion = steps(question.ask, said, form), "So it is"
    letter = f" {question.given(word)}" if question.options else ""
    thinking = " ".join((*sentences, f"{conclusion} {word}{letter}."))
    if form != "hasty" and rng.random() < slip:
        word = other(question.words, word, rng)
    return Trace(thinking, question.given(word))


@dataclass(frozen=True)
class Reading:
    """What a thinking text says.

    Attributes:
        said: what it says is at the places; where it names a place again, the last word counts.
        repeats: it names a place again.
        due: the answer that follows from what is said; None where none does.
        concluded: its conclusion; None where it has none or several.
        follows: every mark, every look and the conclusion follow from what is said.
    """

    said: dict[str, Look]
    repeats: bool
    due: str | None
    concluded: str | None
    follows: bool


def read(question: Question, thinking: str) -> Reading | None:
    """The text as reasoning about this question; None for one that names no picture or holds anything else."""
    found = [_SENTENCE.fullmatch(text) for text in re.split(r"(?<=\.)\s+", thinking.strip())]
    if None in found:
        return None
    named = [(match["place"], (match["color"], match["shape"]), match["flag"]) for match in found if match["place"]]
    said = {place: look for place, look, _ in named}
    if not any(map(any, said.values())):
        return None
    thing = question.ask.thing
    focus, due = deduce(question.ask, said)
    conclusions = [(match["concluded"], match["letter"]) for match in found if match["concluded"]]
    letter = question.given(due) if question.options and due in question.words else None
    follows = (
        all(flag in (None, ("yes" if thing in look else "no") if thing else None) for _, look, flag in named)
        and {match["look"] for match in found if match["look"]} <= {focus}
        and conclusions == [(due, letter)]
    )
    return Reading(said, len(named) > len(said), due, conclusions[0][0] if len(conclusions) == 1 else None, follows)


def _needed(ask: Ask, looks: dict[str, Look], said: dict[str, Look]) -> set[tuple[str, int]]:
    """What the question needs, as (place, 0 for the colour or 1 for the shape)."""
    kind = int(ask.thing in SHAPES)
    if ask.wanted == "number":
        return {(place, kind) for place in PLACES}
    needed = {(deduce(ask, looks)[0], int(ask.wanted == "shape"))}
    if ask.thing:  # where it is, and where it is said to be
        needed |= {(place, kind) for seen in (looks, said) for place, look in seen.items() if ask.thing in look}
    return needed


def judge(scene: Scene, question: Question, thinking: str) -> float:
    """Score of a thinking text in 0.0, 0.1 ... 1.0, by rule.

    The share of what the question needs that the text says, and says right; 0.1 less for each other wrong word (0.2 at
    most), 0.2 less for looking twice, 0.3 less where a step or the conclusion does not follow from what it says it
    sees. A text that says nothing of the image, or holds anything else, is worth nothing.
    """
    reading = read(question, thinking)
    if reading is None:
        return 0.0
    needed = _needed(question.ask, scene.looks, reading.said)
    right, wrong = set(), set()
    for place, look in reading.said.items():
        for kind, word in enumerate(look):
            if word is not None:
                (right if word == scene.looks[place][kind] else wrong).add((place, kind))
    points = round(10 * len(right & needed) / len(needed)) - min(2, len(wrong - needed))
    return max(0, points - 2 * reading.repeats - 3 * (not reading.follows)) / 10


def critique(scene: Scene, question: Question, thinking: str) -> str:
    """The judge's and the TRM's reply: what the image shows beside what the text says, place by place, what follows
    beside what is concluded, then the score.

    A model this small compares two words that stand side by side, and not a word with pixels.
    """
    reading = read(question, thinking)
    if reading is None:
        return "nothing seen. Score: 0.0"
    checks = []
    for place in filter(reading.said.get, PLACES):
        pairs = zip(scene.looks[place], reading.said[place], strict=True)
        words = [f"{true} {said} {'yes' if said == true else 'no'}" for true, said in pairs if said]
        checks.append(" ".join((place, *words)))
    checks += ["twice"] * reading.repeats
    due, concluded = (word or "nothing" for word in (reading.due, reading.concluded))
    checks.append(f"follows {due} {concluded} {'yes' if reading.follows else 'no'}")
    return f"{', '.join(checks)}. Score: {judge(scene, question, thinking):.1f}"


def form_of(thinking: str) -> str:
    """Which of `FORMS` a thinking text has, or "other"."""
    named = [match for text in re.split(r"(?<=\.)\s+", thinking) if (match := _SENTENCE.fullmatch(text))]
    whole = [match for match in named if match["color"] and match["shape"]]
    if thinking.startswith("It looks like "):
        return "hasty"
    if whole:
        return {3: "full", 6: "twice"}.get(len(whole), "other")
    return "short" if any(match["place"] for match in named) else "other"


def forced_steps(scene: Scene, question: Question, rng: random.Random, *, wrong: bool) -> list[str]:
    """The steps of full thinking without its conclusion: right, or so wrong that another answer follows."""
    said = scene.looks
    while wrong and deduce(question.ask, said)[1] == deduce(question.ask, scene.looks)[1]:
        said = misseen(question, scene.looks, 0.5, rng)
    return steps(question.ask, said, "full")


def compared_words(rng: random.Random) -> str:
    """Random pairs of words, each followed by whether they are the same: "red red yes, left circle triangle no ...".

    What every pretrained language model can tell and a tiny one learns late, suddenly or never. The pairs stand
    nowhere else, or it would learn to read there instead of comparing.
    """
    parts = []
    for _ in range(6):
        words = COLORS if rng.random() < 0.6 else SHAPES
        first = rng.choice(words)
        second = first if rng.random() < 0.5 else other(words, first, rng)
        label = rng.choice(("", *(f"{place} " for place in PLACES)))
        parts.append(f"{label}{first} {second} {'yes' if first == second else 'no'}")
    return ", ".join(parts) + "."


def right_comparisons(reply: str) -> list[bool]:
    """Of each comparison in a reply of the form of `compared_words`, whether it is right."""
    return [(first == second) == (said == "yes") for first, second, said in _COMPARISON.findall(reply)]


def judged_trace(scene: Scene, question: Question, rng: random.Random) -> str:
    """A thinking text of random quality, for training and testing a thinking reward model."""
    kind = rng.random()
    if kind < 0.04:
        return rng.choice(
            ("", "So it is", "left", "look left.", "red red", "Score: 1.0", f"So it is {question.answer}.")
        )
    form = rng.choices(list(FORMS), (0.08, 0.37, 0.37, 0.18))[0]
    wrong_step = rng.choice((0.0, 0.2, 0.5, 0.9))
    thinking = policy_trace(scene, question, rng, wrong_step=wrong_step, slip=0.2, form=form).thinking
    if kind < 0.1:  # a sentence is missing
        sentences = thinking.split(". ")
        del sentences[rng.randrange(len(sentences))]
        return ". ".join(sentences)
    return thinking
