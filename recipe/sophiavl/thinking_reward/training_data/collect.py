"""Pairs from the rollout dumps of a GRPO run: each response with its question, images and outcome reward.

The dumps are read first, and only where each usable response begins is remembered; then the data is read in its own
order, images included, and the chosen responses of each row are fetched from the dumps. So memory grows with the
number of responses (some 200 bytes each), not with texts or images.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import random
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from recipe.sophiavl.thinking_reward.questions import question_text
from recipe.sophiavl.thinking_reward.training_data.chosen_rows import stream_rows
from recipe.sophiavl.thinking_reward.training_data.pairs import (
    PairsError,
    count_pairs,
    image_bytes,
    pair_digest,
    question_digest,
    read_pairs,
    write_pairs,
)
from reward_score import extract_thinking

logger = logging.getLogger(__name__)

Key = tuple[str, str, int]
"""(data_source, split, index) of a question's row."""

_DATA_COLUMNS = ("data_source", "images", "reward_model", "extra_info")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_reward(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


# What a dump line must hold (recipe/sophiavl/trainer.py writes it), what each must be, and how that is said.
_DUMP_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "output": (_is_text, "a text"),
    "gts": (lambda value: True, "a truth"),
    "step": (_is_whole, "a whole number"),
    "outcome_reward": (_is_reward, "a number in [0, 1]"),
    "group": (_is_text, "a text"),
    "data_source": (_is_text, "a text"),
    "split": (_is_text, "a text"),
    "index": (_is_whole, "a whole number"),
}

# Those that the trainer adds to verl's.
_OWN_FIELDS = ("outcome_reward", "group", "data_source", "split", "index")


@dataclass(frozen=True)
class CollectSettings:
    """What is kept.

    Attributes:
        steps: first and last global step whose rollouts are read; None reads all.
        max_per_question: most pairs of one question, whole groups drawn at random; None keeps all.
        limit: most pairs in all, whole questions drawn at random; None keeps all.
        seed: of both draws.

    Raises:
        ValueError: a limit below 1, or an empty range of steps.
    """

    steps: tuple[int, int] | None = None
    max_per_question: int | None = None
    limit: int | None = None
    seed: int = 0

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


class Response(NamedTuple):
    """Where a response is: number of its dump, the offset of its line in bytes, and the row of its question.

    `digest` is of its thinking.
    """

    dump: int
    offset: int
    row: int
    digest: bytes


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


def dump_files(folder: Path) -> list[Path]:
    """The dumps of a run, by step; `folder` is the run's folder or its ``rollouts``.

    Raises:
        PairsError: there are none.
    """
    inside = folder / "rollouts" if (folder / "rollouts").is_dir() else folder
    files = sorted((file for file in inside.glob("*.jsonl") if file.stem.isdigit()), key=lambda file: int(file.stem))
    if not files:
        raise PairsError(f"{inside}: no rollout dumps (STEP.jsonl); train with trainer.rollout_data_dir set")
    return files


def read_dump(file: Path, *, newest: bool) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """The lines of a dump with their numbers, from 1, and their offsets in bytes.

    Args:
        newest: the last dump of a run may end in a torn line where the run was killed; that line is left out.

    Raises:
        PairsError: a line that is no JSON object.
    """
    offset = 0
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
            except ValueError as error:
                if newest and not line.endswith(b"\n"):
                    logger.warning("%s:%d: torn line left out: the run was killed while it wrote", file, number)
                    return
                raise PairsError(f"{file}:{number}: no JSON: {error}") from error
            if not isinstance(row, dict):
                raise PairsError(f"{file}:{number}: no JSON object but {type(row).__name__}")
            yield number, offset, row
            offset += len(line)


def _is_final(row: Mapping[str, Any]) -> bool:
    """Not so for verl's padding rows, and for all outputs of a trajectory but its last: nothing of ours is known."""
    return any(name not in row or row[name] is not None for name in _OWN_FIELDS)


def _check_dumped(row: Mapping[str, Any], where: str) -> None:
    missing = [name for name in _DUMP_FIELDS if row.get(name) is None]
    if missing:
        raise PairsError(
            f"{where}: lacks {', '.join(missing)}; dumps of older versions can't be joined with their data"
        )
    for name, (fits, what) in _DUMP_FIELDS.items():
        if not fits(row[name]):
            raise PairsError(f"{where}, field {name}: {row[name]!r} is not {what}")


def find_responses(
    dumps: Sequence[tuple[Path, bool]], rows: DataRows, collected: Collected
) -> dict[int, list[Response]]:
    """The usable responses of every row of the data, in the order of the dumps; `collected` counts the others.

    Lines that only fill verl's batch are passed over.

    Args:
        dumps: files, and whether a file is the newest of its run.

    Raises:
        PairsError: a dump does not fit the data; the message names file, line and what differs.
    """
    found: dict[int, list[Response]] = defaultdict(list)
    for place, (file, newest) in enumerate(tqdm(dumps, unit="step", desc="read dumps")):
        for number, offset, dumped in read_dump(file, newest=newest):
            if not _is_final(dumped):
                continue
            collected.responses += 1
            _check_dumped(dumped, f"{file}:{number}")
            row = rows.find(dumped, f"{file}:{number}")
            thinking = extract_thinking(dumped["output"])
            if thinking:
                digest = hashlib.blake2b(thinking.encode("utf-8", "surrogatepass"), digest_size=16).digest()
                found[row].append(Response(place, offset, row, digest))
            else:
                collected.left_out["no thinking in the required format"] += 1
    return found


def choose_responses(
    questions: Mapping[str, Sequence[Response]], settings: CollectSettings, left_out: Counter[str]
) -> list[Response]:
    """The responses to keep, by row, then in the order of the dumps.

    Args:
        questions: the responses to each question, by its digest; two rows of the data may ask the same.
        left_out: counts the others.
    """
    rng = random.Random(settings.seed)
    most = math.inf if settings.max_per_question is None else settings.max_per_question
    limit = math.inf if settings.limit is None else settings.limit
    order = sorted(questions)
    rng.shuffle(order)
    chosen: list[Response] = []
    for question in order:
        unique: dict[bytes, Response] = {}
        for response in sorted(questions[question]):
            unique.setdefault(response.digest, response)
        kept = _whole_groups(list(unique.values()), most, rng)
        left_out["the same thinking about the same question"] += len(questions[question]) - len(unique)
        left_out["more than --max-per-question"] += len(unique) - len(kept)
        taken = kept[: int(min(limit - len(chosen), len(kept)))]
        left_out["more than --limit"] += len(kept) - len(taken)
        chosen += taken
    return sorted(chosen, key=lambda response: (response.row, response.dump, response.offset))


def _whole_groups(responses: list[Response], most: float, rng: random.Random) -> list[Response]:
    """At most `most` responses to a question: all of one step, all of another …; the last step may be cut."""
    if len(responses) <= most:
        return responses
    groups = [list(group) for _, group in groupby(responses, key=lambda response: response.dump)]
    rng.shuffle(groups)
    return [response for group in groups for response in group][: int(most)]


def write_responses(
    responses: Sequence[Response], rows: DataRows, dumps: Sequence[tuple[Path, bool]]
) -> Iterator[dict[str, Any]]:
    """The pairs of the chosen responses, in their order (by row)."""
    by_row = {row: list(members) for row, members in groupby(responses, key=lambda response: response.row)}
    for number, row in rows.stream(sorted(by_row), "write"):
        question = rows.question(number, row)
        for response in by_row[number]:
            with dumps[response.dump][0].open("rb") as lines:
                lines.seek(response.offset)
                yield make_pair(json.loads(lines.readline()), row["extra_info"]["problem_type"], *question)


def make_pair(
    dumped: Mapping[str, Any], problem_type: str, question_id: str, question: str, images: Sequence[bytes]
) -> dict[str, Any]:
    """One row of ``PAIR_SCHEMA`` that is not annotated yet."""
    thinking = extract_thinking(dumped["output"]) or ""
    return {
        "pair_id": pair_digest(question_id, thinking),
        "question_id": question_id,
        "data_source": dumped["data_source"],
        "question": question,
        "images": [{"bytes": data, "path": None} for data in images],
        "problem_type": problem_type,
        "response": dumped["output"],
        "thinking": thinking,
        "outcome": float(dumped["outcome_reward"]),
        "group": f"{dumped['step']}/{dumped['group']}",
        "step": dumped["step"],
        "split": dumped["split"],
        "index": dumped["index"],
    }


def collect(folder: Path, data: Sequence[Path], out: Path, settings: CollectSettings) -> Collected:
    """Write the pairs of a run, in the order of the data, then of the dumps.

    Args:
        folder: the run's folder, or the one that holds its dumps.
        data: the RL parquet files that it was trained on, or their folders.
        out: parquet file of ``PAIR_SCHEMA``.

    Raises:
        PairsError: see `DataRows`, `read_dump` and `find_responses`; there is nothing to write; or `out` is one of the
            data files.
    """
    dumps = _of_steps(dump_files(folder), settings.steps)
    rows = DataRows(data)
    if out.resolve() in {file.resolve() for file in parquet_files(data)}:
        raise PairsError(f"{out}: is data of the run; choose another --out")
    collected = Collected()
    found = find_responses(dumps, rows, collected)
    if not found:
        raise PairsError(f"{folder}: none of the {collected.responses} responses has thinking in the required format")
    questions: dict[str, list[Response]] = defaultdict(list)
    for number, row in rows.stream(sorted(found), "identify"):
        questions[rows.question(number, row)[0]] += found.pop(number)
    chosen = choose_responses(questions, settings, collected.left_out)
    collected.left_out = +collected.left_out
    collected.pairs = write_pairs(out, write_responses(chosen, rows, dumps))
    return collected


def _of_steps(files: Sequence[Path], steps: tuple[int, int] | None) -> list[tuple[Path, bool]]:
    """The dumps of these steps, each with whether it is the newest of the run."""
    first, last = steps or (0, math.inf)
    chosen = [(file, file == files[-1]) for file in files if first <= int(file.stem) <= last]
    if not chosen:
        there = f"{files[0].stem} to {files[-1].stem}"
        raise PairsError(f"{files[0].parent}: no rollout dumps of steps {first} to {last}, only of {there}")
    return chosen
