"""Filter annotated pairs and balance them over ten intervals of scores, for the training of a thinking reward model.

python -m recipe.sophiavl.trm_training.balance annotated.parquet --out data/trm

From annotated pairs to training files: images set aside for testing, filtering, a uniform spread of scores.

The paper (arXiv 2505.17018, section 3.1) samples its 156k set uniformly over ten intervals, 5,000 to 15,000 each.
The images are read first, for the sides that rows fall on (see `sides`). What to keep is decided from the other
columns, of which memory keeps ids and scores; then the chosen rows are read whole, in the order of the files, and
written in theirs (see `in_order`).
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
import tempfile
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field
from rich.console import Console
from rich.table import Column, Table

from data_preprocess.core.files import replacing, write_json
from recipe.sophiavl.trm_training.commands import DONE, add_settings, exit_status, read_settings
from recipe.sophiavl.trm_training.filters import OFF_BY_DEFAULT, RULES, FilterLimits, Rule, chosen_rules, first_hit
from recipe.sophiavl.trm_training.intervals import INTERVAL_NAMES, INTERVALS, draw_distribution, interval
from recipe.sophiavl.trm_training.pairs import LIGHT_COLUMNS, PAIR_SCHEMA, PairsError, read_files, write_pairs
from recipe.sophiavl.trm_training.sides import SIDES, sides_of
from recipe.sophiavl.validation import FLAGS, SettingsError, settings_group

_NEEDS = ("pair_id", "question_id", "question", "images", "thinking", "score")
OTHER_SCORE = "duplicate_other_score"
Share = Annotated[float, Field(ge=0, lt=1)]


@settings_group(FLAGS)
class BalanceSettings:
    """How the training files are made.

    Attributes:
        floor: fewest rows of an interval.
        cap: most rows of an interval.
        below_floor: an interval with fewer rows than `floor` is kept as it is (warn), filled up by repeating its rows
            (repeat), or an error (stop).
        max_repeats: "repeat" only: how often one row may occur at most.
        test_fraction: share of the images (of text-only rows: the questions) that is set aside for testing, in [0, 1).
        val_fraction: the same, for validation.
        seed: of every choice.

    Raises:
        SettingsError: a setting out of range.
    """

    floor: Annotated[int, Field(ge=0)] = 5000
    cap: Annotated[int, Field(ge=1)] = 15000
    below_floor: Literal["warn", "repeat", "stop"] = "warn"
    max_repeats: Annotated[int, Field(ge=1)] = 4
    test_fraction: Share = 0.1
    val_fraction: Share = 0.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    def __post_init__(self) -> None:
        if self.floor > self.cap:
            raise SettingsError(f"--floor {self.floor} is more than --cap {self.cap}: lower the one or raise the other")
        if self.test_fraction + self.val_fraction >= 1.0:
            raise SettingsError("--test-fraction and --val-fraction leave nothing for training")


@dataclass
class Balanced:
    """What became of the rows.

    Attributes:
        rows: those that were read.
        test, val, train: those that were written.
        rejected: those that were left out, by rule; "duplicate" is a pair that an earlier row holds already with the
            same score, "duplicate_other_score" one that it holds with another.
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


def choose(rows: Sequence[tuple[int, str, float]], settings: BalanceSettings) -> list[int]:
    """Numbers of the rows to train on, shuffled; a row that is repeated occurs several times.

    Where an interval has more rows than the cap, its questions take turns, so that none dominates it.

    Args:
        rows: (number, question_id, score) of the rows that are left after filtering.

    Raises:
        PairsError: an interval is below the floor and `below_floor` is "stop".
    """
    rng = np.random.default_rng(settings.seed)
    shuffled = pd.DataFrame(rows, columns=["number", "question", "score"]).sample(frac=1, random_state=rng)
    shuffled["place"] = shuffled["score"].map(interval)
    shuffled["turn"] = shuffled.groupby(["place", "question"]).cumcount()
    in_turns = shuffled.sort_values("turn", kind="stable")
    chosen: list[int] = []
    for place, name in enumerate(INTERVAL_NAMES):
        picked = in_turns["number"][in_turns["place"] == place].head(settings.cap).tolist()
        if len(picked) < settings.floor:
            if settings.below_floor == "stop":
                raise PairsError(
                    f"interval {name} has {len(picked)} rows, fewer than --floor {settings.floor}: annotate more "
                    "pairs, lower the floor, or use --below-floor warn or repeat"
                )
            if settings.below_floor == "repeat" and picked:
                picked = (picked * settings.max_repeats)[: max(settings.floor, len(picked))]
        chosen += picked
    return rng.permutation(chosen).astype(int).tolist()


def sort_rows(
    files: Sequence[Path],
    settings: BalanceSettings,
    rules: Mapping[str, Rule],
    limits: FilterLimits,
    reject: Callable[[Mapping[str, Any]], None],
) -> tuple[Balanced, dict[str, list[int]]]:
    """Decide about every row from its light columns.

    Args:
        reject: gets what is said of each row that is left out.

    Returns:
        What became of the rows; and the rows of each side as they are numbered over all files, those to train on in the
        order in which they are written.

    Raises:
        PairsError: a file can't be read or lacks a column, or a row has a value that is not possible.
    """
    result, numbers = Balanced(), {side: [] for side in SIDES}
    scores: dict[str, float] = {}
    left: list[tuple[str, int, str, float]] = []
    sides = sides_of(files, settings.test_fraction, settings.val_fraction, settings.seed, needs=_NEEDS)
    for number, where, row in read_files(files, "read", LIGHT_COLUMNS, _NEEDS):
        side, pair, score, place = sides[number], row["pair_id"], row["score"], _place(row, where)
        hit = _duplicate(score, scores[pair]) if place is not None and pair in scores else None
        if hit is None:
            if place is not None:
                scores[pair] = score
                result.before[place] += side == "train"
            hit = first_hit(row, {"no_score": rules["no_score"]} if side == "test" else rules, limits)
        if hit is not None:
            result.rejected[hit[0]] += 1
            reject({"pair_id": pair, "rule": hit[0], "score": score, "detail": hit[1]})
        elif side == "train":
            result.filtered[place] += 1
            left.append((pair, number, row["question_id"], score))
        else:
            numbers[side].append(number)
    result.rows = len(sides)
    # By pair_id: the order of the files changes nothing, but which score of a pair that two files hold is taken.
    left.sort()
    numbers["train"] = choose([row[1:] for row in left], settings)
    places = {number: interval(score) for _, number, _, score in left}
    for number in numbers["train"]:
        result.after[places[number]] += 1
    result.train, result.val, result.test = (len(numbers[side]) for side in SIDES)
    return result, numbers


def _place(row: Mapping[str, Any], where: str) -> int | None:
    """The interval of a row's score; None where it has none."""
    for name in ("pair_id", "question_id", "question", "thinking"):
        if not isinstance(row[name], str):
            raise PairsError(f"{where}, field {name}: must be text, not {type(row[name]).__name__}")
    try:
        return None if row["score"] is None else interval(row["score"])
    except (ValueError, TypeError) as error:  # out of range; no number
        raise PairsError(f"{where}, field score: {error}") from error


def _duplicate(score: float, first: float) -> tuple[str, str]:
    if score == first:
        return "duplicate", "an earlier row holds the same pair"
    return OTHER_SCORE, f"an earlier row holds the same pair with score {first}, which is the one that is used"


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
        PairsError: see `sort_rows`; nothing is left to train on; or an input would be overwritten.
        ValueError: an unknown rule.
    """
    outputs = {name: out / f"{name}.parquet" for name in SIDES}
    for file in files:
        if file.resolve() in {output.resolve() for output in outputs.values()}:
            raise PairsError(f"{file}: would be overwritten; choose another --out")
    rules = chosen_rules(enable, disable)
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / "rejected.jsonl") as temporary, temporary.open("w", encoding="utf-8") as lines:

        def reject(entry: Mapping[str, Any]) -> None:
            lines.write(json.dumps(entry, ensure_ascii=False) + "\n")

        result, numbers = sort_rows(files, settings, rules, limits or FilterLimits(), reject)
        if not result.train:
            left_out = ", ".join(f"{rule} {count}" for rule, count in result.rejected.most_common())
            raise PairsError(
                f"{', '.join(map(str, files))}: of {result.rows} rows none is left to train on "
                f"(left out: {left_out or 'none'}; test {result.test}, validation {result.val})"
            )
        for side, output in outputs.items():
            if numbers[side]:
                rows = in_order(files, numbers[side], out)
                write_pairs(
                    output, ({name: row.get(name) for name in PAIR_SCHEMA.names} | {"split": side} for row in rows)
                )
            else:
                output.unlink(missing_ok=True)
    return result


def in_order(files: Sequence[Path], numbers: Sequence[int], folder: Path) -> Iterator[dict[str, Any]]:
    """The rows with these numbers over all files, in their order, images included; one may come several times.

    They are read once, in the order of the files, into a temporary file, and then from there one at a time.

    Args:
        folder: where the temporary file goes; it is gone when the rows have been taken.
    """
    ascending = sorted(set(numbers))
    offsets = array("Q")
    with tempfile.TemporaryFile(prefix=".rows-", dir=folder) as rows:
        for _, _, row in read_files(files, "read chosen of", PAIR_SCHEMA.names, numbers=ascending):
            offsets.append(rows.tell())
            pickle.dump(row, rows, pickle.HIGHEST_PROTOCOL)
        for number in numbers:
            rows.seek(offsets[bisect_left(ascending, number)])
            yield pickle.load(rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: 0 where the files are written, 1 where they can't be, 2 where settings or files are wrong."""
    given = _parser().parse_args(argv)
    return exit_status(lambda: _run(given))


def _run(given: argparse.Namespace) -> int:
    settings, limits = read_settings(given, BalanceSettings), read_settings(given, FilterLimits)
    result = balance(given.files, given.out, settings, limits, enable=given.enable, disable=given.disable)
    draw_distribution(result.before, result.after, settings.floor, settings.cap, given.out / "distribution.png")
    rules = list(chosen_rules(given.enable, given.disable))
    # Last: where it is, everything is. vars, not asdict: that breaks a Counter.
    write_json(
        given.out / "summary.json",
        {"settings": asdict(settings), "rules": rules, "limits": asdict(limits), **vars(result)},
    )
    show(result, settings, Console())
    files = [f"{name}.parquet" for name in ("train", "val", "test") if getattr(result, name)]
    print(f"written to {given.out}: {', '.join(files)}, rejected.jsonl, distribution.png, summary.json")
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recipe.sophiavl.trm_training.balance",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", type=Path, nargs="+", help="parquet files that annotate wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    add_settings(parser, BalanceSettings)
    rules = "; ".join(f"{name}{' (off)' if name in OFF_BY_DEFAULT else ''}" for name in RULES)
    parser.add_argument("--disable", action="append", default=[], metavar="RULE", help=f"repeatable. Rules: {rules}")
    parser.add_argument("--enable", action="append", default=[], metavar="RULE", help="repeatable")
    add_settings(parser.add_argument_group("thresholds of the rules"), FilterLimits)
    return parser


def show(result: Balanced, settings: BalanceSettings, console: Console) -> None:
    """Print what the rules left out, and the intervals before and after."""
    console.print(
        f"{result.rows} rows: test {result.test}, validation {result.val}, training {result.train}, "
        f"left out {result.rejected.total()}"
    )
    if result.rejected:
        _print_table(console, "left out", ("rule", "rows"), result.rejected.most_common())
    columns = ("interval", "annotated", "after the rules", "training")
    rows = list(zip(INTERVAL_NAMES, result.before, result.filtered, result.after, strict=True))
    _print_table(console, "training side: rows by score", columns, rows)
    low = [name for name, *_, after in rows if after < settings.floor]
    warnings = [f"below the floor of {settings.floor}: {', '.join(low)}"] if low else []
    if other := result.rejected[OTHER_SCORE]:
        warnings.append(
            f"{other} rows hold a pair that an earlier row holds with another score: the earlier score was used, so "
            "the order of the files decides. See rejected.jsonl; give each pair one score"
        )
    for warning in warnings:
        console.print(warning, style="yellow", highlight=False)


def _print_table(console: Console, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    table = Table(columns[0], *(Column(name, justify="right") for name in columns[1:]), title=title)
    for row in rows:
        table.add_row(*map(str, row))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
