"""easy-VQA (the PyPI package, MIT) as RL parquet: rows of three of its real pictures, with questions about all three.

Each picture shows one shape in one colour, as the package's own questions and answers say. Counting the pictures, or
finding the one beside another, takes steps: the answer follows from what the reasoning sees. Mechanism evidence for
the quickstart and the tests, not a benchmark.
"""

from __future__ import annotations

import argparse
import io
import random
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import easy_vqa
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw
from tqdm import tqdm

from data_preprocess.schema import RL_SCHEMA, rl_row
from reward_score.option_labels import labelled_options, option_texts

DATA_SOURCE = "easy_vqa"
COLORS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
SHAPES = ("circle", "rectangle", "triangle")
PLACES = ("left", "middle", "right")
TYPES = ("numerical", "multiple choice", "free-form")
CHOICES = 4
# Qwen2.5-VL sees 28 x 28 pixels as one token: 2 x 2 tokens a picture, and no picture shares one with its neighbour.
PICTURE_SIDE = 56
# Pixels of the black frame around a row. Its vision tower knows no absolute places: the frame tells the ends apart.
FRAME = 3

# Pictures of the package's training split from this id on are left for RL: the quickstart's models saw the ones before.
FIRST_RL_IMAGE = 3000

_IS_THERE = re.compile(r"^(?:is there a|does the image contain a|is a) (\w+)(?: shape)?(?: in the image| present)?\?$")
_TRIES = 10_000

# Colour and shape of one picture, as far as they are known.
Look = tuple[str | None, str | None]


class Ask(NamedTuple):
    """What a question asks for.

    Attributes:
        wanted: "number" of the pictures that show the thing, or "color" or "shape" of one picture.
        thing: the colour or shape to count, or to start from; empty: the place says which picture.
        place: the picture itself, or on which side of the only picture that shows the thing it is.
    """

    wanted: str
    thing: str = ""
    place: str = ""


def _asks() -> Iterator[tuple[str, Ask]]:
    for thing in COLORS + SHAPES:
        yield f"how many {thing}{' shape' if thing in COLORS else ''}s are there?", Ask("number", thing)
    for place in PLACES:
        yield f"what color is the {place} shape?", Ask("color", "", place)
        yield f"what shape is the {place} one?", Ask("shape", "", place)
    for side in ("left", "right"):
        for shape in SHAPES:
            yield f"what color is the shape {side} of the {shape}?", Ask("color", shape, side)
        for color in COLORS:
            yield f"what shape is {side} of the {color} one?", Ask("shape", color, side)


ASKS = dict(_asks())
"""Every question that there is, and what it asks for."""


@dataclass(frozen=True)
class Question:
    """One question in our form. ``answer`` is the truth: a letter, a number, or a word."""

    text: str
    problem_type: str
    answer: str
    options: tuple[str, ...] = ()

    @property
    def ask(self) -> Ask:
        return ASKS[self.text]

    @property
    def words(self) -> tuple[str, ...]:
        """Every answer that there might be, as words or numbers: for multiple choice the options' texts."""
        if self.options:
            return tuple(option_texts(self.options).values())
        return {"number": tuple("0123"), "color": COLORS, "shape": SHAPES}[self.ask.wanted]

    def given(self, word: str) -> str:
        """A word of `words` as the answer's text: for multiple choice its letter."""
        return "ABCD"[self.words.index(word)] if self.options else word


@dataclass(frozen=True)
class ShapeImage:
    """One picture of the package with what its own annotations say about it."""

    image_id: int
    path: Path
    color: str
    shape: str

    @property
    def look(self) -> Look:
        return self.color, self.shape

    def picture(self) -> Image.Image:
        """The picture as scenes show it inside their frame: RGB, `PICTURE_SIDE` pixels wide and high."""
        with Image.open(self.path) as image:
            return image.convert("RGB").resize((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.BICUBIC)


@dataclass(frozen=True)
class Scene:
    """Three pictures in a framed row."""

    pictures: tuple[ShapeImage, ShapeImage, ShapeImage]

    @property
    def looks(self) -> dict[str, Look]:
        """What is to be seen at each place."""
        return {place: picture.look for place, picture in zip(PLACES, self.pictures, strict=True)}

    def image(self) -> Image.Image:
        """What is shown: 168 x 56 pixels, RGB."""
        row = Image.new("RGB", (len(PLACES) * PICTURE_SIDE, PICTURE_SIDE))
        for i, picture in enumerate(self.pictures):
            row.paste(picture.picture(), (i * PICTURE_SIDE, 0))
        ImageDraw.Draw(row).rectangle((0, 0, row.width - 1, row.height - 1), outline="black", width=FRAME)
        return row

    def png(self) -> bytes:
        """The image file."""
        file = io.BytesIO()
        self.image().save(file, "PNG")
        return file.getvalue()


def load_images(split: str) -> list[ShapeImage]:
    """The pictures of the package's split (``train`` or ``test``) whose colour and shape its annotations both name."""
    questions, paths = {
        "train": (easy_vqa.get_train_questions, easy_vqa.get_train_image_paths),
        "test": (easy_vqa.get_test_questions, easy_vqa.get_test_image_paths),
    }[split]
    files = paths()
    named: dict[int, dict[str, str]] = {image_id: {} for image_id in files}
    for text, answer, image_id in zip(*questions(), strict=True):
        there = _IS_THERE.match(text)  # negated questions are left out
        thing = answer if text.startswith("what") else there and answer == "yes" and there.group(1)
        for kind, values in (("color", COLORS), ("shape", SHAPES)):
            if thing in values:
                named[image_id][kind] = thing
    return [ShapeImage(i, Path(files[i]), **named[i]) for i in sorted(named) if len(named[i]) == 2]


def deduce(ask: Ask, looks: Mapping[str, Look]) -> tuple[str | None, str | None]:
    """The place whose look answers the question (None when counting), and the answer; None, None where none follows.

    Args:
        looks: what was seen, at some or all places.
    """
    shown = [place for place in PLACES if place in looks and ask.thing in looks[place]]
    if ask.wanted == "number":
        return None, str(len(shown))
    for place in shown if ask.thing else [ask.place]:
        at = PLACES.index(place) + {"left": -1, "right": 1}[ask.place] if ask.thing else PLACES.index(place)
        if 0 <= at < len(PLACES) and PLACES[at] in looks:
            return PLACES[at], looks[PLACES[at]][ask.wanted == "shape"]
    return None, None


def make_question(images: Sequence[ShapeImage], problem_type: str, rng: random.Random) -> tuple[Scene, Question]:
    """A question of this type and a scene for it, in which it has exactly one answer; numbers are equally frequent.

    Raises:
        ValueError: the images lack what the question needs, as a red shape.
    """
    kinds = [
        [text for text, ask in ASKS.items() if (ask.wanted, bool(ask.thing)) == kind]
        for kind in ([("number", True)] if problem_type == "numerical" else _WHAT_KINDS)
    ]
    text = rng.choice(rng.choice(kinds))
    ask = ASKS[text]
    shows: list[bool | None] = [None] * len(PLACES)  # must it show the thing?
    if ask.wanted == "number":
        count = rng.randrange(len(PLACES) + 1)
        shows = [i < count for i in range(len(PLACES))]
        rng.shuffle(shows)
    elif ask.thing:
        start = rng.choice((1, 2) if ask.place == "left" else (0, 1))
        shows = [i == start for i in range(len(PLACES))]
    scene = Scene(tuple(_draw(images, ask.thing, shown, rng) for shown in shows))
    answer = deduce(ask, scene.looks)[1]
    if problem_type != "multiple choice":
        return scene, Question(text, problem_type, answer)
    # What the other pictures show comes first: a look at the wrong one has an option of its own.
    pool = COLORS if ask.wanted == "color" else SHAPES
    near = [word for look in scene.looks.values() for word in look]
    others = sorted((word for word in pool if word != answer), key=lambda word: (word not in near, rng.random()))
    options = [answer, *others[: CHOICES - 1]]
    rng.shuffle(options)
    return scene, Question(text, problem_type, "ABCD"[options.index(answer)], tuple(labelled_options(options)))


_WHAT_KINDS = [(wanted, beside) for wanted in ("color", "shape") for beside in (False, True)]


def _draw(images: Sequence[ShapeImage], thing: str, shown: bool | None, rng: random.Random) -> ShapeImage:
    """A random picture that shows the thing, or does not, or (None) any."""
    for _ in range(_TRIES):
        image = rng.choice(images)
        if shown is None or (thing in image.look) == shown:
            return image
    raise ValueError(f"none of {len(images)} images was found that shows {'a' if shown else 'no'} {thing}")


def make_rows(images: Sequence[ShapeImage], size: int, split: str, rng: random.Random) -> Iterable[dict[str, Any]]:
    """``size`` rows of RL_SCHEMA, the three types in turn, each with a new scene."""
    for index in range(size):
        scene, question = make_question(images, TYPES[index % len(TYPES)], rng)
        yield rl_row(
            data_source=DATA_SOURCE,
            question=question.text,
            problem_type=question.problem_type,
            answer=question.answer,
            options=question.options,
            images=[scene.png()],
            split=split,
            index=index,
        )


def write_split(file: Path, images: Sequence[ShapeImage], size: int, split: str, seed: int) -> Counter[str]:
    """Write one parquet file; returns the number of rows by type. The file appears whole or not at all."""
    rows = list(tqdm(make_rows(images, size, split, random.Random(f"{seed}-{split}")), total=size, desc=split))
    part = file.with_suffix(".part")
    pq.write_table(pa.Table.from_pylist(rows, schema=RL_SCHEMA), part)
    part.rename(file)
    return Counter(row["extra_info"]["problem_type"] for row in rows)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m data_preprocess.easy_vqa",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for train.parquet and val.parquet")
    parser.add_argument("--train-size", type=int, default=1500, help="training rows (default: 1500)")
    parser.add_argument("--val-size", type=int, default=384, help="validation rows (default: 384)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of questions (default: 0)")
    options = parser.parse_args(arguments)
    for name in ("train_size", "val_size"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {getattr(options, name)}")
    options.out.mkdir(parents=True, exist_ok=True)
    train = [image for image in load_images("train") if image.image_id >= FIRST_RL_IMAGE]
    for split, images, size in (("train", train, options.train_size), ("val", load_images("test"), options.val_size)):
        counts = write_split(options.out / f"{split}.parquet", images, size, split, options.seed)
        by_type = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        print(f"{options.out / split}.parquet: {size} rows from {len(images)} pictures ({by_type})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
