"""Pairs from the rollout dumps of a GRPO run: each response with its question, images and outcome reward."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
from tqdm import tqdm

from recipe.sophiavl.thinking_reward.questions import question_text
from recipe.sophiavl.thinking_reward.training_data.pairs import (
    PairsError,
    image_bytes,
    pair_digest,
    question_digest,
    write_pairs,
)
from reward_score import extract_thinking

logger = logging.getLogger(__name__)

# What a dump line must hold (recipe/sophiavl/trainer.py writes it).
_DUMP_FIELDS = ("output", "gts", "step", "outcome_reward", "group", "data_source", "split", "index")

Key = tuple[str, str, int]
"""(data_source, split, index) of a question's row."""


@dataclass(frozen=True)
class CollectSettings:
    """What is kept.

    Attributes:
        steps: first and last global step whose rollouts are read; None reads all.
        max_per_question: most pairs of one question, the first ones; None keeps all.
        limit: most pairs in all, the first ones; None keeps all.

    Raises:
        ValueError: a limit below 1, or an empty range of steps.
    """

    steps: tuple[int, int] | None = None
    max_per_question: int | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_per_question", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} {value}: must be at least 1")
        if self.steps is not None and self.steps[0] > self.steps[1]:
            raise ValueError(f"--steps {self.steps[0]}-{self.steps[1]}: the first step is after the last")


@dataclass
class Collected:
    """What became of the responses: `left_out` counts the dropped ones by reason."""

    responses: int = 0
    pairs: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


class QuestionRows:
    """The rows of RL parquet files by (data_source, split, index); memory-mapped, so images cost no memory.

    Raises:
        PairsError: no file, a file that can't be read or lacks a column, or two rows with the same key.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = parquet_files(files)
        try:
            self._rows = datasets.load_dataset("parquet", data_files=[str(file) for file in self._files], split="train")
        except (datasets.exceptions.DatasetGenerationError, OSError, ValueError) as error:
            raise PairsError(f"{_names(self._files)}: cannot be read as parquet: {error}") from error
        needs = ("data_source", "images", "reward_model", "extra_info")
        missing = [name for name in needs if name not in self._rows.column_names]
        if missing:
            raise PairsError(f"{_names(self._files)}: lacks {', '.join(missing)}; give the RL parquet of the run")
        self._places: dict[Key, int] = {}
        light = self._rows.select_columns(["data_source", "extra_info"])
        for place, row in enumerate(light):
            key = row_key(row["data_source"], row["extra_info"])
            if key in self._places:
                raise PairsError(
                    f"{_names(self._files)}: rows {self._places[key]} and {place} (counted over all files) are both "
                    f"{key}; give only the files that the run was trained on"
                )
            self._places[key] = place

    def __getitem__(self, key: Key) -> dict[str, Any]:
        """The row; KeyError where no file has it."""
        return self._rows[self._places[key]]

    @property
    def names(self) -> str:
        """The files, for messages."""
        return _names(self._files)


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


def row_key(data_source: Any, extra_info: Mapping[str, Any]) -> Key:
    """The key under which a dump names a row of the data."""
    return str(data_source), str(extra_info.get("split")), int(extra_info["index"])


def dump_files(folder: Path, steps: tuple[int, int] | None) -> list[Path]:
    """The dumps of a run, by step; `folder` is the run's folder or its ``rollouts``.

    Raises:
        PairsError: there are none.
    """
    inside = folder / "rollouts" if (folder / "rollouts").is_dir() else folder
    files = sorted((file for file in inside.glob("*.jsonl") if file.stem.isdigit()), key=lambda file: int(file.stem))
    if steps is not None:
        files = [file for file in files if steps[0] <= int(file.stem) <= steps[1]]
    if not files:
        wanted = "" if steps is None else f" of steps {steps[0]} to {steps[1]}"
        raise PairsError(f"{inside}: no rollout dumps{wanted} (STEP.jsonl); train with trainer.rollout_data_dir set")
    return files


def read_dump(file: Path, *, newest: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines of a dump with their numbers, from 1.

    Args:
        newest: the last dump of a run may end in a torn line where the run was killed; that line is left out.

    Raises:
        PairsError: a broken line, or one that lacks a field.
    """
    lines = file.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            if newest and number == len(lines) and not line.endswith(b"\n"):
                logger.warning("%s:%d: torn line left out: the run was killed while it wrote", file, number)
                return
            raise PairsError(f"{file}:{number}: no JSON: {error}") from error
        missing = [name for name in _DUMP_FIELDS if row.get(name) is None]
        if missing:
            raise PairsError(f"{file}:{number}: lacks {', '.join(missing)}; dumps of older versions can't be joined")
        yield number, row


def make_pair(dumped: Mapping[str, Any], row: Mapping[str, Any], thinking: str) -> dict[str, Any]:
    """One row of ``PAIR_SCHEMA`` that is not annotated yet."""
    question = question_text(row["extra_info"])
    images = image_bytes(row)
    question_id = question_digest(question, images)
    return {
        "pair_id": pair_digest(question_id, thinking),
        "question_id": question_id,
        "data_source": str(dumped["data_source"]),
        "question": question,
        "images": [{"bytes": data, "path": None} for data in images],
        "problem_type": row["extra_info"]["problem_type"],
        "response": dumped["output"],
        "thinking": thinking,
        "outcome": float(dumped["outcome_reward"]),
        "group": f"{dumped['step']}/{dumped['group']}",
        "step": int(dumped["step"]),
        "split": str(dumped["split"]),
        "index": int(dumped["index"]),
    }


def iterate_pairs(
    dumps: Sequence[Path], rows: QuestionRows, settings: CollectSettings, collected: Collected
) -> Iterator[dict[str, Any]]:
    """The pairs in the order of the dumps; `collected` counts while they are taken.

    Raises:
        PairsError: a dump does not fit the data; the message names file, line and what differs.
    """
    seen: set[str] = set()
    per_question: Counter[str] = Counter()
    for file in tqdm(dumps, unit="step", desc="collect"):
        for number, dumped in read_dump(file, newest=file == dumps[-1]):
            if settings.limit is not None and collected.pairs >= settings.limit:
                return
            collected.responses += 1
            thinking = extract_thinking(dumped["output"])
            if not thinking or not thinking.strip():
                collected.left_out["no thinking in the required format"] += 1
                continue
            pair = make_pair(dumped, _row_of(dumped, rows, f"{file}:{number}"), thinking.strip())
            if pair["pair_id"] in seen:
                collected.left_out["the same thinking about the same question"] += 1
            elif settings.max_per_question is not None and (
                per_question[pair["question_id"]] >= settings.max_per_question
            ):
                collected.left_out["more than --max-per-question"] += 1
            else:
                seen.add(pair["pair_id"])
                per_question[pair["question_id"]] += 1
                collected.pairs += 1
                yield pair


def _row_of(dumped: Mapping[str, Any], rows: QuestionRows, where: str) -> dict[str, Any]:
    key = row_key(dumped["data_source"], dumped)
    try:
        row = rows[key]
    except KeyError:
        raise PairsError(
            f"{where}: {rows.names} has no row {key}; give the files that the run was trained on"
        ) from None
    truth = row["reward_model"]["ground_truth"]
    if str(truth) != str(dumped["gts"]):
        raise PairsError(
            f"{where}: the ground truth is {dumped['gts']!r}, but {truth!r} in row {key} of {rows.names}; these are "
            "not the files that the run was trained on"
        )
    return row


def collect(folder: Path, data: Sequence[Path], out: Path, settings: CollectSettings) -> Collected:
    """Write the pairs of a run.

    Args:
        folder: the run's folder, or the one that holds its dumps.
        data: the RL parquet files that it was trained on, or their folders.
        out: parquet file of ``PAIR_SCHEMA``.

    Raises:
        PairsError: see `QuestionRows`, `read_dump` and `iterate_pairs`.
    """
    dumps = dump_files(folder, settings.steps)
    collected = Collected()
    write_pairs(out, iterate_pairs(dumps, QuestionRows(data), settings, collected))
    return collected


def _names(files: Sequence[Path]) -> str:
    return ", ".join(map(str, files))
