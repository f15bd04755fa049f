"""The command line that all preprocessors share."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from data_preprocess.core.adapter import Adapter
from data_preprocess.core.errors import PreprocessError
from data_preprocess.core.pipeline import REJECTED, Settings, run
from data_preprocess.core.pool import default_workers
from data_preprocess.core.report import print_summary
from data_preprocess.core.sources import Source

_INTERRUPTED = 130


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
    with (out / REJECTED).open(encoding="utf-8") as lines:
        first = json.loads(next(lines))
    return f"no row can be used; the first one: {first['file']}, field {first['field']!r}: {first['reason']}"
