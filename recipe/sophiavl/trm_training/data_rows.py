"""The RL parquet files that a run was trained on, found again by what its rollout dumps say of each response."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from recipe.sophiavl.trm.questions import question_text
from recipe.sophiavl.trm_training.chosen_rows import stream_rows
from recipe.sophiavl.trm_training.pairs import (
    PairsError,
    count_pairs,
    image_bytes,
    question_digest,
    read_pairs,
)

Key = tuple[str, str, int]
"""(data_source, split, index) of a question's row."""

_DATA_COLUMNS = ("data_source", "images", "reward_model", "extra_info")


class DataRows:
    """The rows of RL parquet files, numbered over all files; their keys and truths are held, their images are not.

    Raises:
        PairsError: no file, a file that can't be read or lacks a column or a field, or two rows with the same key.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files = parquet_files(paths)
        self._starts: list[int] = []
        self._numbers: dict[Key, int] = {}
        self._truths: list[Any] = []
        for file in self._files:
            self._starts.append(len(self._truths))
            light = [name for name in _DATA_COLUMNS if name != "images"]
            rows = read_pairs(file, light, needs=_DATA_COLUMNS)
            for row in tqdm(rows, unit="row", desc=f"index {file.name}", total=count_pairs(file)):
                self._add(row)

    def _add(self, row: Mapping[str, Any]) -> None:
        number = len(self._truths)
        self._truths.append((row["reward_model"] or {}).get("ground_truth"))
        extra = row["extra_info"] or {}
        for name in ("split", "index", "question", "problem_type"):
            if extra.get(name) is None:
                raise PairsError(f"{self.where(number)}: extra_info.{name} is missing; give the RL parquet of the run")
        key = (str(row["data_source"]), str(extra["split"]), int(extra["index"]))
        if key in self._numbers:
            raise PairsError(
                f"{self.where(self._numbers[key])} and {self.where(number)} are both {key}; give only the files that "
                "the run was trained on"
            )
        self._numbers[key] = number

    def where(self, number: int) -> str:
        """File and row, for messages."""
        place = bisect_right(self._starts, number) - 1
        return f"{self._files[place]}, row {number - self._starts[place]}"

    def find(self, dumped: Mapping[str, Any], where: str) -> int:
        """Number of the row that a dumped response answers.

        Raises:
            PairsError: no file has the row, or its truth is not the one that was dumped.
        """
        key = (dumped["data_source"], dumped["split"], dumped["index"])
        number = self._numbers.get(key)
        if number is None:
            names = ", ".join(map(str, self._files))
            raise PairsError(
                f"{where}: (data_source, split, index) = {key} is in no row of {names}; give the files that the run "
                "was trained on"
            )
        truth = self._truths[number]
        if str(truth) != str(dumped["gts"]):
            raise PairsError(
                f"{where}: the ground truth is {dumped['gts']!r}, but {truth!r} in {self.where(number)}, which has "
                f"the same (data_source, split, index) = {key}: this is not the file that the run was trained on"
            )
        return number

    def stream(self, numbers: Sequence[int], desc: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """The rows with these numbers (ascending), images included, with their numbers."""
        with tqdm(total=len(numbers), unit="question", desc=desc) as progress:
            for file, start, end in zip(self._files, self._starts, [*self._starts[1:], len(self._truths)], strict=True):
                inside = [number - start for number in numbers if start <= number < end]
                for number, row in stream_rows(file, inside, _DATA_COLUMNS):
                    yield start + number, row
                    progress.update()

    def question(self, number: int, row: Mapping[str, Any]) -> tuple[str, str, list[bytes]]:
        """Digest, text as the TRM is asked, and encoded images of a row.

        Raises:
            PairsError: an image has no bytes.
        """
        try:
            images = image_bytes(row)
        except PairsError as error:
            raise PairsError(
                f"{self.where(number)}, field images: an image without bytes; preprocess with images embedded"
            ) from error
        text = question_text(row["extra_info"])
        return question_digest(text, images), text, images


def parquet_files(paths: Sequence[Path]) -> list[Path]:
    """Files, and the parquet files in folders, sorted.

    Raises:
        PairsError: a path does not exist, or a folder holds no parquet file.
    """
    files: list[Path] = []
    for path in paths:
        found = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not found or not all(file.is_file() for file in found):
            raise PairsError(f"{path}: no parquet file there")
        files += found
    return files
