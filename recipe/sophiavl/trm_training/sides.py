"""Which rows are trained on, and which are set aside: rows that share an image are on one side.

A question is not enough to split by: what a model learned about an image from one question helps it with the next.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from networkx.utils import UnionFind
from tqdm import tqdm

from recipe.sophiavl.trm.questions import digest_of
from recipe.sophiavl.trm_training.pairs import PairsError, count_pairs, image_bytes, read_pairs

SIDES = ("train", "val", "test")


def split_keys(question: str, images: Sequence[bytes]) -> list[str]:
    """What a row must not share with another side: its images, or, of a text-only row, its question.

    Differences of case, of spacing and of Unicode form make no other question.
    """
    if images:
        return [digest_of(image).hex() for image in images]
    text = " ".join(unicodedata.normalize("NFKC", question).casefold().split())
    return [digest_of(b"text", text.encode("utf-8", "surrogatepass")).hex()]


def side(key: str, test_fraction: float, val_fraction: float, seed: int) -> str:
    """``test``, ``val`` or ``train``, by a seeded hash of the key."""
    digest = hashlib.blake2b(f"{seed}/{key}".encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    if place < test_fraction:
        return "test"
    return "val" if place < test_fraction + val_fraction else "train"


def sides_of(
    files: Sequence[Path],
    test_fraction: float,
    val_fraction: float,
    seed: int,
    needs: Sequence[str] = ("question", "images"),
) -> list[str]:
    """The side of every row of the files, numbered over all of them; the order of the rows changes no side.

    Reads every image once, a few hundred rows in memory at a time.

    Args:
        needs: columns that every file must have.

    Raises:
        PairsError: a file can't be read, lacks a column, or has an image without bytes.
    """
    tied = UnionFind()
    firsts: list[str] = []
    for file in files:
        rows = read_pairs(file, ("question", "images"), needs)
        for number, row in enumerate(tqdm(rows, unit="row", desc=f"images {file.name}", total=count_pairs(file))):
            try:
                images = image_bytes(row)
            except PairsError as error:
                raise PairsError(f"{file}, row {number}, field images: {error}") from error
            if not isinstance(row["question"], str):
                raise PairsError(f"{file}, row {number}, field question: must be text, not {row['question']!r}")
            keys = split_keys(row["question"], images)
            tied.union(*keys)
            firsts.append(keys[0])
    # The root that the ties have depends on their order; the least key does not.
    least: dict[str, str] = {}
    for key in tied:
        root = tied[key]
        least[root] = min(key, least.get(root, key))
    return [side(least[tied[key]], test_fraction, val_fraction, seed) for key in firsts]
