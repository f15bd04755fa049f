"""Collect (question, images, response, outcome) pairs from the rollout dumps of a GRPO run.

python -m recipe.sophiavl.trm_training.collect RUN_DIR --data train.parquet --out pairs.parquet

Pairs from the rollout dumps of a GRPO run: each response with its question, images and outcome reward.

The dumps are read first, and only where each usable response begins is remembered; then the data is read in its own
order, images included, and the chosen responses of each row are fetched from the dumps. So memory grows with the
number of responses (some 200 bytes each), not with texts or images.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field
from tqdm import tqdm

from recipe.sophiavl.trm.questions import digest_of
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
    seed: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps[0] > self.steps[1]:
            raise SettingsError(f"--steps {self.steps[0]}-{self.steps[1]}: the first step is after the last")


@dataclass
class Collected:
    """What became of the responses: `left_out` counts the dropped ones by reason."""

    responses: int = 0
    pairs: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


def find_responses(dumps: Sequence[tuple[Path, bool]], rows: DataRows, collected: Collected) -> pd.DataFrame:
    """The usable responses, in the order of the dumps; `collected` counts the others.

    Args:
        dumps: files, and whether a file is the newest of its run.

    Returns:
        Of each, the number of its dump, the offset of its line there in bytes, the row of its question, and a digest of
        its thinking: the columns ``dump``, ``offset``, ``row`` and ``thinking``.

    Raises:
        PairsError: a dump does not fit the data; the message names file, line and what differs.
    """
    found = []
    for place, (file, newest) in enumerate(tqdm(dumps, unit="step", desc="read dumps")):
        for where, offset, dumped in read_dump(file, newest=newest):
            collected.responses += 1
            row = rows.find(dumped, where)
            thinking = extract_thinking(dumped["output"])
            if thinking:
                found.append((place, offset, row, digest_of(thinking.encode("utf-8", "surrogatepass"))))
            else:
                collected.left_out["no thinking in the required format"] += 1
    return pd.DataFrame(found, columns=["dump", "offset", "row", "thinking"])


def choose_responses(found: pd.DataFrame, settings: CollectSettings, left_out: Counter[str]) -> pd.DataFrame:
    """The responses to keep, by row, then in the order of the dumps.

    Args:
        found: what `find_responses` returns, with the ``question``'s digest: two rows of the data may ask the same.
        left_out: counts the others.
    """
    rng = np.random.default_rng(settings.seed)
    unique = found.sort_values(["dump", "offset"]).drop_duplicates(["question", "thinking"])

    def shuffled(by: list[str]) -> np.ndarray:
        numbers = unique.groupby(by).ngroup()
        return rng.permutation(numbers.nunique())[numbers]

    # All of one question, all of another …; of each, all of one step, all of another: a limit cuts one of them only.
    order = unique.assign(of_question=shuffled(["question"]), of_group=shuffled(["question", "dump"]))
    order = order.sort_values(["of_question", "of_group", "offset"])
    kept = order if settings.max_per_question is None else order.groupby("question").head(settings.max_per_question)
    taken = kept if settings.limit is None else kept.head(settings.limit)
    left_out["the same thinking about the same question"] += len(found) - len(unique)
    left_out["more than --max-per-question"] += len(unique) - len(kept)
    left_out["more than --limit"] += len(kept) - len(taken)
    return taken.sort_values(["row", "dump", "offset"])


def write_responses(
    chosen: pd.DataFrame, rows: DataRows, dumps: Sequence[tuple[Path, bool]]
) -> Iterator[dict[str, Any]]:
    """The pairs of the chosen responses, in their order (by row)."""
    by_row = {row: list(zip(part["dump"], part["offset"], strict=True)) for row, part in chosen.groupby("row")}
    for number, row in rows.stream(sorted(by_row), "write from"):
        question = rows.question(number, row)
        for dump, offset in by_row[number]:
            with dumps[dump][0].open("rb") as lines:
                lines.seek(offset)
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
    if found.empty:
        raise PairsError(f"{folder}: none of the {collected.responses} responses has thinking in the required format")
    asked = sorted(found["row"].unique())
    questions = {number: rows.question(number, row)[0] for number, row in rows.stream(asked, "identify")}
    chosen = choose_responses(found.assign(question=found["row"].map(questions)), settings, collected.left_out)
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
    parser = argparse.ArgumentParser(
        prog="python -m recipe.sophiavl.trm_training.collect",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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
