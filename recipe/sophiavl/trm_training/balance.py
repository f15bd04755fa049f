"""Filter annotated pairs and balance them over ten intervals of scores, for the training of a thinking reward model.

python -m recipe.sophiavl.trm_training.balance annotated.parquet --out data/trm

From annotated pairs to training files: images set aside for testing, filtering, a uniform spread of scores.

The paper (arXiv 2505.17018, section 3.1) samples its 156k set uniformly over ten intervals, 5,000 to 15,000 each.
The images are read first, for the sides that rows fall on (see `sides`). What to keep is decided from the other
columns, of which memory keeps ids and scores; then the chosen rows are read whole, in the order of the files, and
written in theirs (see `chosen_rows.in_order`).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from recipe.sophiavl.trm_training.chosen_rows import in_order, stream_rows
from recipe.sophiavl.trm_training.distribution import draw_distribution
from recipe.sophiavl.trm_training.filters import (
    OFF_BY_DEFAULT,
    RULES,
    FilterLimits,
    Rule,
    chosen_rules,
    first_hit,
)
from recipe.sophiavl.trm_training.intervals import INTERVAL_NAMES, INTERVALS, interval
from recipe.sophiavl.trm_training.pairs import (
    LIGHT_COLUMNS,
    PAIR_SCHEMA,
    PairsError,
    count_pairs,
    read_pairs,
    replacing,
    write_pairs,
)
from recipe.sophiavl.trm_training.sides import SIDES, sides_of

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


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: 0 where the files are written, 1 where they can't be, 2 where settings or files are wrong."""
    given = _parser().parse_args(argv)
    try:
        settings = BalanceSettings(**{field.name: getattr(given, field.name) for field in fields(BalanceSettings)})
        limits = FilterLimits(**{field.name: getattr(given, field.name) for field in fields(FilterLimits)})
        result = balance(given.files, given.out, settings, limits, enable=given.enable, disable=given.disable)
        draw_distribution(result.before, result.after, settings.floor, settings.cap, given.out / "distribution.png")
        rules = list(chosen_rules(given.enable, given.disable))
        # vars, not asdict: that breaks a Counter.
        summary = {"settings": asdict(settings), "rules": rules, "limits": asdict(limits), **vars(result)}
        # Last and whole: where it is, everything is.
        with replacing(given.out / "summary.json") as temporary:
            temporary.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    show(result, settings, Console())
    files = [f"{name}.parquet" for name in ("train", "val", "test") if getattr(result, name)]
    print(f"written to {given.out}: {', '.join(files)}, rejected.jsonl, distribution.png, summary.json")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="parquet files that annotate wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    default = BalanceSettings()
    parser.add_argument("--floor", type=int, default=default.floor, help="fewest rows of an interval (%(default)s)")
    parser.add_argument("--cap", type=int, default=default.cap, help="most rows of an interval (%(default)s)")
    parser.add_argument(
        "--below-floor",
        choices=get_args(BelowFloor),
        default=default.below_floor,
        help="an interval below the floor: keep it, repeat its rows, or stop (%(default)s)",
    )
    parser.add_argument("--max-repeats", type=int, default=default.max_repeats, help="of one row (%(default)s)")
    parser.add_argument(
        "--test-fraction", type=float, default=default.test_fraction, help="share of the images (%(default)s)"
    )
    parser.add_argument(
        "--val-fraction", type=float, default=default.val_fraction, help="share of the images (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=default.seed, help="of every choice (%(default)s)")
    rules = "; ".join(f"{name}{' (off)' if name in OFF_BY_DEFAULT else ''}" for name in RULES)
    parser.add_argument("--disable", action="append", default=[], metavar="RULE", help=f"repeatable. Rules: {rules}")
    parser.add_argument("--enable", action="append", default=[], metavar="RULE", help="repeatable")
    group = parser.add_argument_group("thresholds of the rules")
    for limit in fields(FilterLimits):
        group.add_argument(
            f"--{limit.name.replace('_', '-')}", type=type(limit.default), default=limit.default, help="(%(default)s)"
        )
    return parser


def show(result: Balanced, settings: BalanceSettings, console: Console) -> None:
    """Print what the rules left out, and the intervals before and after."""
    console.print(
        f"{result.rows} rows: test {result.test}, validation {result.val}, training {result.train}, "
        f"left out {result.rejected.total()}"
    )
    if result.rejected:
        table = Table(title="left out")
        table.add_column("rule")
        table.add_column("rows", justify="right")
        for name, count in result.rejected.most_common():
            table.add_row(name, f"{count}")
        console.print(table)
    table = Table(title="training side: rows by score")
    for column in ("interval", "annotated", "after the rules", "training"):
        table.add_column(column, justify="left" if column == "interval" else "right")
    low = []
    for name, before, kept, after in zip(INTERVAL_NAMES, result.before, result.filtered, result.after, strict=True):
        table.add_row(name, f"{before}", f"{kept}", f"{after}")
        if after < settings.floor:
            low.append(name)
    console.print(table)
    if low:
        console.print(f"below the floor of {settings.floor}: {', '.join(low)}", style="yellow", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
