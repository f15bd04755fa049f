"""Filter annotated pairs and balance them over ten intervals of scores, for the training of a thinking reward model.

python -m recipe.sophiavl.thinking_reward.balance annotated.parquet --out data/trm
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.table import Table

from recipe.sophiavl.thinking_reward.training_data.balance import (
    INTERVAL_NAMES,
    Balanced,
    BalanceSettings,
    BelowFloor,
    balance,
)
from recipe.sophiavl.thinking_reward.training_data.figure import draw_distribution
from recipe.sophiavl.thinking_reward.training_data.filters import (
    OFF_BY_DEFAULT,
    RULES,
    FilterLimits,
    chosen_rules,
)
from recipe.sophiavl.thinking_reward.training_data.pairs import replacing


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
    for field in fields(FilterLimits):
        group.add_argument(
            f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default, help="(%(default)s)"
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
