"""The command line that all preprocessors share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data_preprocess.core.adapter import Adapter
from data_preprocess.core.errors import PreprocessError
from data_preprocess.core.pipeline import REJECTED, Settings, first_rejected, run
from data_preprocess.core.pool import default_workers
from data_preprocess.core.sources import Source

_INTERRUPTED = 130
_MAX_SOURCES = 20


def parser(description: str | None, source_help: str) -> argparse.ArgumentParser:
    """A parser with the options that every preprocessor has; scripts may add their own."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    errors = Console(stderr=True)
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
        errors.print(f"{made.prog}: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        errors.print(f"{made.prog}: stopped; run again to go on where it stopped", markup=False)
        return _INTERRUPTED
    print_summary(manifest, args.out, Console())
    if not manifest["rows"]["kept"]:
        errors.print(f"{made.prog}: {_why_nothing(manifest, args.out)}", style="red", markup=False, soft_wrap=True)
        return 1
    return 0


def _why_nothing(manifest: Mapping[str, Any], out: Path) -> str:
    """Why no row was kept, by the example of the first one."""
    if not manifest["rows"]["read"]:
        return "the source has no rows"
    first = first_rejected(out)
    return f"no row can be used; the first one: {first['file']}, field {first['field']!r}: {first['reason']}"


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
        table.add_row(escape(name), *(str(counts[side].get(name, 0)) for side in sides))
    if len(names) > _MAX_SOURCES:
        rest = names[_MAX_SOURCES:]
        table.add_row(f"{len(rest)} more", *(str(sum(counts[side].get(name, 0) for name in rest)) for side in sides))
    return table
