"""Train and validation sides that share no image and no text-only question."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from hashlib import blake2b

from data_preprocess.core.images import DIGEST_BYTES

TRAIN, VAL = "train", "val"


def normalised_question(question: str) -> str:
    """The question without image marks, differences of case, of spacing and of Unicode form."""
    text = unicodedata.normalize("NFKC", question.replace("<image>", " ")).casefold()
    return " ".join(text.split())


def leak_keys(question: str, image_digests: Sequence[bytes]) -> list[bytes]:
    """What a row must not share with the other side: its images, or, of a text-only row, its question."""
    if image_digests:
        return sorted(set(image_digests))
    text = "text\0" + normalised_question(question)
    return [blake2b(text.encode("utf-8"), digest_size=DIGEST_BYTES).digest()]


class SplitAssigner:
    """Gives each row its side, by a seeded hash of its keys.

    Rows with one key need no memory. Rows with several (several images) tie their keys together, so that two rows
    that share any image fall on one side; only those keys are remembered. All ties must be known before the first
    side is asked.

    Args:
        val_fraction: expected share of validation, in [0, 1).
        seed: another seed gives another split.
    """

    def __init__(self, val_fraction: float, seed: int) -> None:
        if not 0.0 <= val_fraction < 1.0:
            raise ValueError(f"val_fraction must be in [0, 1), not {val_fraction}")
        self._threshold = int(val_fraction * 2**64)
        self._salt = seed.to_bytes(8, "little", signed=True)
        self._parent: dict[bytes, bytes] = {}

    def tie(self, keys: Sequence[bytes]) -> None:
        """Record that these keys belong to one row."""
        for key in keys[1:]:
            one, other = self._root(keys[0]), self._root(key)
            # The smaller key is the root, so that the order of the rows does not matter.
            self._parent[max(one, other)] = min(one, other)

    def side(self, keys: Sequence[bytes]) -> str:
        """`TRAIN` or `VAL` for a row with these keys."""
        digest = blake2b(self._root(keys[0]), digest_size=8, key=self._salt).digest()
        return VAL if int.from_bytes(digest, "little") < self._threshold else TRAIN

    def _root(self, key: bytes) -> bytes:
        root = key
        while (parent := self._parent.get(root, root)) != root:
            root = parent
        while (parent := self._parent.get(key, key)) != root:
            self._parent[key], key = root, parent
        return root
