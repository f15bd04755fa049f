"""The command line that all preprocessors share."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data_preprocess.core.adapter import Adapter
from data_preprocess.core.errors import PreprocessError
from data_preprocess.core.pipeline import REJECTED, Settings, rejected_rows, run
from data_preprocess.core.pool import default_workers
from data_preprocess.core.shown import example, one_line
from data_preprocess.core.sources import Source

_INTERRUPTED = 130
_MAX_SOURCES = 20
_MOST_REASONS = 3


def parser(name: str, description: str | None, source_help: str) -> argparse.ArgumentParser:
    """A parser with the options that every preprocessor has; scripts may add their own.

    Args:
        name: of the script, a module of `data_preprocess`.
    """
    made = argparse.ArgumentParser(
        prog=f"python -m data_preprocess.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("source", help=source_help)
    made.add_argument("--out", type=Path, required=True, help="output folder")
    made.add_argument(
        "--val-fraction",
        type=float,
        default=0.0,
        help="share of validation, by image; text-only rows by question (default: 0)",
    )
    made.add_argument("--seed", type=int, default=0, help="seed of the split (default: 0)")
    made.add_argument("--limit", type=int, help="read at most this many source rows, from all files in turn")
    made.add_argument("--max-pixels", type=int, help="scale larger images down to this many pixels")
    made.add_argument("--follow-links", action="store_true", help="images may lie outside of their folder, by links")
    made.add_argument("--max-prompt-chars", type=int, help="reject longer prompts (characters)")
    made.add_argument("--shard-rows", type=int, default=5000, help="most rows in a file (default: 5000)")
    made.add_argument("--shard-mb", type=int, default=512, help="most MiB in a file (default: 512)")
    made.add_argument(
        "--workers", type=int, default=default_workers(), help="processes (default: one per core, at most 8)"
    )
    made.add_argument("--strict", action="store_true", help="stop at the first bad row instead of recording it")
    made.add_argument("--overwrite", action="store_true", help="throw away what --out holds and start over")
    return made


def main(
    made: argparse.ArgumentParser,
    build: Callable[[argparse.Namespace], tuple[Source, Adapter]],
    argv: Sequence[str] | None,
) -> int:
    """Parse, run and print the summary.

    Returns the exit status: 0; 1 on an error with its message, or where no row could be used; 130 on Ctrl-C.
    """
    args = made.parse_args(argv)
    errors = Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)
    try:
        settings = Settings(
            val_fraction=args.val_fraction,
            seed=args.seed,
            limit=args.limit,
            max_pixels=args.max_pixels,
            follow_links=args.follow_links,
            shard_rows=args.shard_rows,
            shard_bytes=args.shard_mb * 2**20,
            strict=args.strict,
            workers=args.workers,
            overwrite=args.overwrite,
            progress=sys.stderr.isatty(),
        )
        source, adapter = build(args)
        manifest = run(source, adapter, settings, args.out)
    except (PreprocessError, OSError) as error:
        errors.print(f"{made.prog}: {error}", style="red")
        return 1
    except KeyboardInterrupt:
        errors.print(f"{made.prog}: stopped; run again to go on where it stopped")
        return _INTERRUPTED
    print_summary(manifest, args.out, Console())
    read, kept = manifest["rows"]["read"], manifest["rows"]["kept"]
    if 2 * kept < read:
        told = "no row can be used" if not kept else f"only {kept} of {read} rows can be used"
        errors.print(f"{made.prog}: {told}. {_reasons(args.out)}", style="yellow" if kept else "red")
    elif not read:
        errors.print(f"{made.prog}: the source has no rows", style="red")
    return 0 if kept else 1


def _reasons(out: Path) -> str:
    """The commonest reasons of the rejected rows, each with the first row that has it."""
    counts: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], dict[str, Any]] = {}
    for bad in rejected_rows(out):
        reason = bad["fault"], bad["field"]
        counts[reason] += 1
        first.setdefault(reason, bad)
    lines = [
        f"  {count} rows: field {example(field)} ({fault}); {one_line(bad['file'])}, row {bad['row']} (from 0): "
        + one_line(bad["reason"])
        for (fault, field), count in counts.most_common(_MOST_REASONS)
        for bad in [first[fault, field]]
    ]
    return "\n".join(["The commonest reasons, with a row each:", *lines])


def print_summary(manifest: dict[str, Any], out: Path, console: Console) -> None:
    """Print what a manifest says: rows kept by side, type and source, and rows rejected by fault."""
    rows = manifest["rows"]
    console.print(
        f"[bold]{rows['read']}[/] rows read, [bold]{rows['kept']}[/] kept, [bold]{rows['rejected']}[/] rejected"
    )
    sides = sorted(manifest["kinds"])
    if sides:
        console.print(_counts("kept, by problem type", manifest["kinds"], sides))
        console.print(_counts("kept, by data source", manifest["data_sources"], sides))
    if manifest["text_only"]:
        console.print(
            "Text-only rows: " + ", ".join(f"{side} {count}" for side, count in manifest["text_only"].items())
        )
    if rows["rejected"]:
        table = Table("rejected", "rows")
        for fault, count in sorted(manifest["faults"].items(), key=lambda item: -item[1]):
            table.add_row(fault, str(count))
        console.print(table)
        console.print(f"Each rejected row: {escape(str(out / REJECTED))}", highlight=False, soft_wrap=True)
    for side in sides:
        shards = [shard for shard in manifest["shards"] if shard["split"] == side]
        files = str(out / shards[0]["file"]) if len(shards) == 1 else f"{out}/{side}-*.parquet ({len(shards)} files)"
        size = sum(shard["bytes"] for shard in shards) / 2**20
        console.print(f"{escape(side)}: {escape(files)}, {size:.1f} MiB", highlight=False, soft_wrap=True)
    if manifest["settings"]["val_fraction"] and "val" not in sides:
        console.print("[yellow]No row fell on the validation side: the data is small for this --val-fraction[/]")


def _counts(title: str, counts: dict[str, dict[str, int]], sides: list[str]) -> Table:
    table = Table(title, *sides)
    names = sorted({name for side in sides for name in counts[side]})
    names.sort(key=lambda name: -sum(counts[side].get(name, 0) for side in sides))
    for name in names[:_MAX_SOURCES]:
        table.add_row(escape(one_line(name)), *(str(counts[side].get(name, 0)) for side in sides))
    if len(names) > _MAX_SOURCES:
        rest = names[_MAX_SOURCES:]
        table.add_row(f"{len(rest)} more", *(str(sum(counts[side].get(name, 0) for name in rest)) for side in sides))
    return table
