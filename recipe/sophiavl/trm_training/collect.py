"""Collect (question, images, response, outcome) pairs from the rollout dumps of a GRPO run.

python -m recipe.sophiavl.trm_training.collect RUN_DIR --data train.parquet --out pairs.parquet

Pairs from the rollout dumps of a GRPO run: each response with its question, images and outcome reward.

The dumps are read first, and only where each usable response begins is remembered; then the data is read in its own
order, images included, and the chosen responses of each row are fetched from the dumps. So memory grows with the
number of responses (some 200 bytes each), not with texts or images.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field
from tqdm import tqdm

from recipe.sophiavl.trm_training.commands import DONE, add_settings, exit_status, read_settings
from recipe.sophiavl.trm_training.pairs import PairsError, pair_digest, write_pairs
from recipe.sophiavl.trm_training.rollouts import DataRows, dump_files, read_dump
from recipe.sophiavl.validation import FLAGS, SettingsError, settings_group
from reward_score import extract_thinking

Most = Annotated[int, Field(ge=1)] | None


@settings_group(FLAGS)
class CollectSettings:
    """What is kept.

    Attributes:
        steps: first and last global step whose rollouts are read; None reads all.
        max_per_question: most pairs of one question, whole groups drawn at random; None keeps all.
        limit: most pairs in all, whole questions drawn at random; None keeps all.
        seed: of both draws.

    Raises:
        SettingsError: a limit below 1, or an empty range of steps.
    """

    steps: tuple[int, int] | None = None
    max_per_question: Most = None
    limit: Most = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps[0] > self.steps[1]:
            raise SettingsError(f"--steps {self.steps[0]}-{self.steps[1]}: the first step is after the last")


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


def find_responses(
    dumps: Sequence[tuple[Path, bool]], rows: DataRows, collected: Collected
) -> dict[int, list[Response]]:
    """The usable responses of every row of the data, in the order of the dumps; `collected` counts the others.

    Args:
        dumps: files, and whether a file is the newest of its run.

    Raises:
        PairsError: a dump does not fit the data; the message names file, line and what differs.
    """
    found: dict[int, list[Response]] = defaultdict(list)
    for place, (file, newest) in enumerate(tqdm(dumps, unit="step", desc="read dumps")):
        for where, offset, dumped in read_dump(file, newest=newest):
            collected.responses += 1
            row = rows.find(dumped, where)
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
        PairsError: see `DataRows` and `read_dump`; there is nothing to write; or `out` is one of the
            data files.
    """
    dumps = _of_steps(dump_files(folder), settings.steps)
    rows = DataRows(data)
    if out.resolve() in {file.resolve() for file in rows.files}:
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


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: 0 where the output is written, 1 where it can't be, 2 where settings or files are wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path, help="folder of the run, or the folder of its rollout dumps")
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, help="RL parquet files (or folders) that the run was trained on"
    )
    parser.add_argument("--out", type=Path, required=True, help="parquet file to write")
    add_settings(parser, CollectSettings, steps=_steps)
    given = parser.parse_args(argv)
    return exit_status(lambda: _run(given))


def _run(given: argparse.Namespace) -> int:
    collected = collect(given.run_dir, given.data, given.out, read_settings(given, CollectSettings))
    print(f"{given.out}: {collected.pairs} pairs of {collected.responses} responses")
    for reason, count in collected.left_out.most_common():
        print(f"  left out: {count} ({reason})")
    return DONE


def _steps(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    if not (first.isdigit() and (not dash or last.isdigit())):
        raise argparse.ArgumentTypeError(f"{text!r}: give FIRST-LAST, such as 1-500")
    return int(first), int(last or first)


if __name__ == "__main__":
    sys.exit(main())
