"""easy-VQA (the PyPI package, MIT) as RL parquet: its real questions and images, as three problem types.

Each image shows one shape in one colour. The package's what-questions become multiple choice and free-form questions,
its is-there-questions become counting questions. Mechanism evidence for the quickstart and the tests, not a benchmark.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import easy_vqa
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from data_preprocess.schema import RL_SCHEMA, rl_row
from reward_score.option_labels import labelled_options

DATA_SOURCE = "easy_vqa"
COLORS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
SHAPES = ("circle", "rectangle", "triangle")
CHOICES = 4

# Images of the package's training split from this id on are left for RL: the quickstart's models saw the ones before.
FIRST_RL_IMAGE = 3000

_IS_THERE = re.compile(r"^(?:is there a|does the image contain a|is a) (\w+)( shape)?(?: in the image| present)?\?$")


@dataclass(frozen=True)
class Question:
    """One question in our form. ``answer`` is the truth: a letter, a number, or a word."""

    text: str
    problem_type: str
    answer: str
    options: tuple[str, ...] = ()


@dataclass
class ShapeImage:
    """One image of the package with what its own annotations say about it."""

    image_id: int
    path: Path
    color: str | None = None
    shape: str | None = None
    what: list[tuple[str, str]] = field(default_factory=list)
    counts: list[tuple[str, str]] = field(default_factory=list)


def load_images(split: str) -> list[ShapeImage]:
    """The images of the package's split (``train`` or ``test``) whose colour and shape its annotations both name."""
    questions, paths = {
        "train": (easy_vqa.get_train_questions, easy_vqa.get_train_image_paths),
        "test": (easy_vqa.get_test_questions, easy_vqa.get_test_image_paths),
    }[split]
    images = {image_id: ShapeImage(image_id, Path(path)) for image_id, path in paths().items()}
    for text, answer, image_id in zip(*questions(), strict=True):
        _annotate(images[image_id], text, answer)
    return [image for _, image in sorted(images.items()) if image.color and image.shape]


def _annotate(image: ShapeImage, text: str, answer: str) -> None:
    """Add one of the package's questions to its image; negated is-there-questions are left out."""
    there = _IS_THERE.match(text)
    thing = answer if text.startswith("what") else there and answer == "yes" and there.group(1)
    if thing in COLORS:
        image.color = thing
    elif thing in SHAPES:
        image.shape = thing
    if text.startswith("what"):
        image.what.append((text, answer))
    elif there:
        noun = f"{there.group(1)} shape" if there.group(2) else there.group(1)
        image.counts.append((f"how many {noun}s are there?", "1" if answer == "yes" else "0"))


def make_question(image: ShapeImage, problem_type: str, rng: random.Random) -> Question | None:
    """A question of this type about this image, or None where the package asks none that fits."""
    source = image.counts if problem_type == "numerical" else image.what
    if not source:
        return None
    text, answer = rng.choice(source)
    if problem_type != "multiple choice":
        return Question(text, problem_type, answer)
    pool = COLORS if answer in COLORS else SHAPES
    options = rng.sample([name for name in pool if name != answer], min(CHOICES, len(pool)) - 1)
    options.insert(rng.randrange(len(options) + 1), answer)
    return Question(text, problem_type, "ABCD"[options.index(answer)], tuple(labelled_options(options)))


def make_rows(images: Sequence[ShapeImage], size: int, split: str, rng: random.Random) -> Iterable[dict[str, Any]]:
    """``size`` rows of RL_SCHEMA, the three types in turn, images in random order and reused when they run out."""
    order: list[ShapeImage] = []
    index = 0
    while index < size:
        if not order:
            order = rng.sample(images, len(images))
        image = order.pop()
        problem_type = ("numerical", "multiple choice", "free-form")[index % 3]
        question = make_question(image, problem_type, rng)
        if question is None:
            continue
        yield rl_row(
            data_source=DATA_SOURCE,
            question=question.text,
            problem_type=question.problem_type,
            answer=question.answer,
            options=question.options,
            images=[image.path.read_bytes()],
            split=split,
            index=index,
        )
        index += 1


def write_split(file: Path, images: Sequence[ShapeImage], size: int, split: str, seed: int) -> Counter[str]:
    """Write one parquet file; returns the number of rows by type. The file appears whole or not at all."""
    rows = list(tqdm(make_rows(images, size, split, random.Random(f"{seed}-{split}")), total=size, desc=split))
    part = file.with_suffix(".part")
    pq.write_table(pa.Table.from_pylist(rows, schema=RL_SCHEMA), part)
    part.rename(file)
    return Counter(row["extra_info"]["problem_type"] for row in rows)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
        print(f"{options.out / split}.parquet: {size} rows from {len(images)} images ({by_type})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
