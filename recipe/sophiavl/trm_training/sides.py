"""Which rows are trained on, and which are set aside: rows that share an image are on one side.

A question is not enough to split by: what a model learned about an image from one question helps it with the next. Two
images are one where their pixels are equal, whatever file format they are in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from data_preprocess.core.errors import RowError, WorkError
from data_preprocess.core.images import pixel_digest
from data_preprocess.core.pool import default_workers, ordered_results
from data_preprocess.core.splits import VAL, SplitAssigner, leak_keys
from recipe.sophiavl.trm.questions import digest_of
from recipe.sophiavl.trm_training.pairs import PairsError, count_pairs, image_bytes, read_files

SIDES = ("train", "val", "test")
# Fewer rows are not worth the start of processes.
_ROWS_FOR_PROCESSES = 5000


def sides_of(
    files: Sequence[Path],
    test_fraction: float,
    val_fraction: float,
    seed: int,
    needs: Sequence[str] = ("question", "images"),
) -> list[str]:
    """The side of every row of the files, numbered over all of them; the order of the rows changes no side.

    Reads every row once and decodes every different image file once, on several processes where there are many; holds
    a few hundred bytes of each.

    Args:
        needs: columns that every file must have.

    Raises:
        PairsError: a file can't be read, lacks a column, or has an image without bytes; or a process died.
    """
    rows: list[list[bytes]] = []
    fresh = _fresh_images(files, needs, rows)
    workers = default_workers() if sum(map(count_pairs, files)) >= _ROWS_FOR_PROCESSES else 1
    try:
        pixels = dict(chain.from_iterable(ordered_results(_pixel_digests, fresh, workers)))
    except WorkError as error:
        raise PairsError("a process that decodes images died, perhaps for lack of memory: run it again") from error
    tested = SplitAssigner(test_fraction, seed)
    set_aside = SplitAssigner(test_fraction + val_fraction, seed)
    for number, keys in enumerate(rows):
        rows[number] = sorted(pixels.get(key, key) for key in keys)
        for assigner in (tested, set_aside):
            assigner.tie(rows[number])
    return ["test" if tested.side(keys) == VAL else "val" if set_aside.side(keys) == VAL else "train" for keys in rows]


def _fresh_images(files: Sequence[Path], needs: Sequence[str], rows: list[list[bytes]]) -> Iterator[dict[bytes, bytes]]:
    """For each row that has some, the image files that no earlier row had, by their digests.

    `rows` takes the keys of every row: the digests of its image files, or, of a text-only row, that of its question.
    """
    seen: set[bytes] = set()
    for _, where, row in read_files(files, "images of", ("question", "images"), needs):
        if not isinstance(row["question"], str):
            raise PairsError(f"{where}, field question: must be text, not {row['question']!r}")
        images = {digest_of(data): data for data in image_bytes(row, where)}
        rows.append(list(images) or leak_keys(row["question"], []))
        new = {key: data for key, data in images.items() if key not in seen}
        seen.update(new)
        if new:
            yield new


def _pixel_digests(images: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """The digest of each file, and that of its pixels; of a file that does not decode, its own again."""
    found = []
    for key, data in images.items():
        try:
            found.append((key, pixel_digest(data)))
        except RowError:
            found.append((key, key))
    return found
