"""From annotated pairs to training files: images set aside for testing, filtering, a uniform spread of scores.

The paper (arXiv 2505.17018, section 3.1) samples its 156k set uniformly over ten intervals, 5,000 to 15,000 each.
The images are read first, for the sides that rows fall on (see `sides`). What to keep is decided from the other
columns, of which memory keeps ids and scores; then the chosen rows are read whole, in the order of the files, and
written in theirs (see `chosen_rows.in_order`).
"""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from recipe.sophiavl.thinking_reward.training_data.chosen_rows import in_order, stream_rows
from recipe.sophiavl.thinking_reward.training_data.filters import FilterLimits, Rule, chosen_rules, first_hit
from recipe.sophiavl.thinking_reward.training_data.pairs import (
    LIGHT_COLUMNS,
    PAIR_SCHEMA,
    PairsError,
    count_pairs,
    read_pairs,
    replacing,
    write_pairs,
)
from recipe.sophiavl.thinking_reward.training_data.sides import SIDES, sides_of

INTERVALS = 10
INTERVAL_NAMES = (*(f"[{i / 10:.1f}, {(i + 1) / 10:.1f})" for i in range(INTERVALS - 1)), "[0.9, 1.0]")
# Decimals to which a score counts: a mean of samples may come as 0.7999999999999999, and stands for 0.8.
_DECIMALS = 6
BelowFloor = Literal["warn", "repeat", "stop"]
_NEEDS = ("pair_id", "question_id", "question", "images", "thinking", "score")


@dataclass(frozen=True)
class BalanceSettings:
    """How the training files are made.

    Attributes:
        floor, cap: fewest and most rows of an interval.
        below_floor: an interval with fewer rows than `floor` is kept as it is (warn), filled up by repeating its rows
            (repeat), or an error (stop).
        max_repeats: "repeat" only: how often one row may occur at most.
        test_fraction, val_fraction: shares of the images (of text-only rows: the questions) that are set aside, in
            [0, 1).
        seed: of every choice.

    Raises:
        ValueError: a setting out of range.
    """

    floor: int = 5000
    cap: int = 15000
    below_floor: BelowFloor = "warn"
    max_repeats: int = 4
    test_fraction: float = 0.1
    val_fraction: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.floor <= self.cap or self.cap < 1:
            raise ValueError(f"--floor {self.floor} --cap {self.cap}: need 0 <= floor <= cap and a cap of at least 1")
        if self.max_repeats < 1:
            raise ValueError(f"--max-repeats {self.max_repeats}: must be at least 1")
        for name in ("test_fraction", "val_fraction"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be in [0, 1)")
        if self.test_fraction + self.val_fraction >= 1.0:
            raise ValueError("--test-fraction and --val-fraction leave nothing for training")


@dataclass
class Balanced:
    """What became of the rows.

    Attributes:
        rows: those that were read.
        test, val, train: those that were written.
        rejected: those that were left out, by rule; "duplicate" is a pair that an earlier row holds already.
        before, filtered, after: rows of the training side by interval (length 10): as annotated, after the rules, and
            as written.
    """

    rows: int = 0
    test: int = 0
    val: int = 0
    train: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    before: list[int] = field(default_factory=lambda: [0] * INTERVALS)
    filtered: list[int] = field(default_factory=lambda: [0] * INTERVALS)
    after: list[int] = field(default_factory=lambda: [0] * INTERVALS)


def interval(score: float) -> int:
    """The place of a score in [0, 1] among the ten intervals [0, 0.1) … [0.9, 1.0].

    Raises:
        ValueError: not in [0, 1].
    """
    if not 0.0 <= score <= 1.0:
        raise ValueError(f"score {score!r} is not in [0, 1]")
    millionths = round(score * 10**_DECIMALS)
    return min(millionths * INTERVALS // 10**_DECIMALS, INTERVALS - 1)


def spread_over_questions(rows: Sequence[tuple[int, str]], count: int, rng: random.Random) -> list[int]:
    """`count` of the rows (number, question_id), in turns over the questions, so that none dominates an interval."""
    by_question: dict[str, list[int]] = defaultdict(list)
    for number, question in rows:
        by_question[question].append(number)
    queues = [by_question[question] for question in sorted(by_question)]
    rng.shuffle(queues)
    for queue in queues:
        rng.shuffle(queue)
    chosen: list[int] = []
    while len(chosen) < count and queues:
        chosen += [queue.pop() for queue in queues[: count - len(chosen)]]
        queues = [queue for queue in queues if queue]
    return chosen


def choose(rows: Sequence[tuple[int, str, float]], settings: BalanceSettings) -> list[int]:
    """Numbers of the rows to train on, shuffled; a row that is repeated occurs several times.

    Args:
        rows: (number, question_id, score) of the rows that are left after filtering.

    Raises:
        PairsError: an interval is below the floor and `below_floor` is "stop".
    """
    rng = random.Random(settings.seed)
    chosen: list[int] = []
    for place in range(INTERVALS):
        inside = [(number, question) for number, question, score in rows if interval(score) == place]
        picked = spread_over_questions(inside, settings.cap, rng)
        if len(picked) < settings.floor:
            if settings.below_floor == "stop":
                raise PairsError(
                    f"interval {INTERVAL_NAMES[place]} has {len(picked)} rows, fewer than --floor {settings.floor}: "
                    "annotate more pairs, lower the floor, or use --below-floor warn or repeat"
                )
            if settings.below_floor == "repeat" and picked:
                picked = (picked * settings.max_repeats)[: max(settings.floor, len(picked))]
        chosen += picked
    rng.shuffle(chosen)
    return chosen


class Balancer:
    """Decides about every row from its light columns.

    Raises:
        PairsError: a file can't be read or lacks a column, or a score is not in [0, 1].
    """

    def __init__(
        self, files: Sequence[Path], settings: BalanceSettings, rules: Mapping[str, Rule], limits: FilterLimits
    ) -> None:
        self.settings, self.result = settings, Balanced()
        # Rows as they are numbered over all files; those to train on in the order in which they are written.
        self.numbers: dict[str, list[int]] = {"train": [], "val": [], "test": []}
        self.rejected: list[dict[str, Any]] = []
        self._rules, self._limits = rules, limits
        self._seen: set[str] = set()
        self._left: list[tuple[str, int, str, float]] = []
        self._sides = sides_of(files, settings.test_fraction, settings.val_fraction, settings.seed, needs=_NEEDS)
        for file in files:
            rows = read_pairs(file, LIGHT_COLUMNS, _NEEDS)
            progress = tqdm(rows, unit="row", desc=f"read {file.name}", total=count_pairs(file))
            for number, row in enumerate(progress):
                self._take(row, f"{file}, row {number}")
        # By pair_id: the order of the files changes nothing, but which score of a pair that two files hold is taken.
        self._left.sort()
        self.numbers["train"] = choose([row[1:] for row in self._left], settings)
        self._count()

    def _take(self, row: Mapping[str, Any], where: str) -> None:
        number = self.result.rows
        self.result.rows += 1
        for name in ("pair_id", "question_id", "question", "thinking"):
            if not isinstance(row[name], str):
                raise PairsError(f"{where}, field {name}: must be text, not {type(row[name]).__name__}")
        place = None
        if row["score"] is not None:
            try:
                place = interval(row["score"])
            except (ValueError, TypeError) as error:  # out of range; no number
                raise PairsError(f"{where}, field score: {error}") from error
        if place is not None and row["pair_id"] in self._seen:
            self._reject(row, "duplicate", "an earlier row holds the same pair")
            return
        if place is not None:
            self._seen.add(row["pair_id"])
        part = self._sides[number]
        if part == "train" and place is not None:
            self.result.before[place] += 1
        rules = {"no_score": self._rules["no_score"]} if part == "test" else self._rules
        hit = first_hit(row, rules, self._limits)
        if hit is not None:
            self._reject(row, *hit)
        elif part == "train":
            self._left.append((row["pair_id"], number, row["question_id"], row["score"]))
        else:
            self.numbers[part].append(number)

    def _reject(self, row: Mapping[str, Any], rule: str, detail: str) -> None:
        self.result.rejected[rule] += 1
        self.rejected.append({"pair_id": row["pair_id"], "rule": rule, "score": row["score"], "detail": detail})

    def _count(self) -> None:
        scores = {number: score for _, number, _, score in self._left}
        for score in scores.values():
            self.result.filtered[interval(score)] += 1
        for number in self.numbers["train"]:
            self.result.after[interval(scores[number])] += 1
        for name, numbers in self.numbers.items():
            setattr(self.result, name, len(numbers))


def balance(
    files: Sequence[Path],
    out: Path,
    settings: BalanceSettings,
    limits: FilterLimits | None = None,
    *,
    enable: Sequence[str] = (),
    disable: Sequence[str] = (),
) -> Balanced:
    """Write ``train.parquet``, ``val.parquet`` and ``test.parquet`` (those that have rows), and ``rejected.jsonl``.

    Test rows are neither filtered nor balanced, except that they have a score and are no pair again: an evaluation
    should see the natural distribution, and all that `collect` and the judge left of a group.

    Raises:
        PairsError: see `Balancer`; nothing is left to train on; or an input would be overwritten.
        ValueError: an unknown rule.
    """
    outputs = {name: out / f"{name}.parquet" for name in SIDES}
    for file in files:
        if file.resolve() in {output.resolve() for output in outputs.values()}:
            raise PairsError(f"{file}: would be overwritten; choose another --out")
    balancer = Balancer(files, settings, chosen_rules(enable, disable), limits or FilterLimits())
    if not balancer.numbers["train"]:
        left_out = ", ".join(f"{rule} {count}" for rule, count in balancer.result.rejected.most_common())
        raise PairsError(
            f"{', '.join(map(str, files))}: of {balancer.result.rows} rows none is left to train on "
            f"(left out: {left_out or 'none'}; test {balancer.result.test}, validation {balancer.result.val})"
        )
    for name, numbers in balancer.numbers.items():
        if numbers:
            write_pairs(outputs[name], _rows(files, numbers, name, out))
        else:
            outputs[name].unlink(missing_ok=True)
    _write_lines(out / "rejected.jsonl", balancer.rejected)
    return balancer.result


def _rows(files: Sequence[Path], numbers: Sequence[int], name: str, folder: Path) -> Iterator[dict[str, Any]]:
    """The rows with these numbers, in their order."""
    places: dict[int, list[int]] = defaultdict(list)
    for place, number in enumerate(numbers):
        places[number].append(place)
    placed = ((places[number], row) for number, row in _stream(files, sorted(places)))
    rows = in_order(placed, len(numbers), folder)
    for row in tqdm(rows, unit="row", desc=f"write {name}", total=len(numbers)):
        yield {column: row.get(column) for column in PAIR_SCHEMA.names} | {"split": name}


def _stream(files: Sequence[Path], numbers: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows with these numbers over all files (ascending), images included."""
    start = 0
    for file in files:
        end = start + count_pairs(file)
        inside = [number - start for number in numbers if start <= number < end]
        for number, row in stream_rows(file, inside, PAIR_SCHEMA.names):
            yield start + number, row
        start = end


def _write_lines(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with replacing(file) as temporary, temporary.open("w", encoding="utf-8") as lines:
        for row in rows:
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
