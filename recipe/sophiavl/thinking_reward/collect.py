"""Collect (question, images, response, outcome) pairs from the rollout dumps of a GRPO run.

python -m recipe.sophiavl.thinking_reward.collect RUN_DIR --data train.parquet --out pairs.parquet
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from recipe.sophiavl.thinking_reward.training_data.collect import CollectSettings, collect


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: 0 where the output is written, 1 where it can't be, 2 where settings or files are wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path, help="folder of the run, or the folder of its rollout dumps")
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, help="RL parquet files (or folders) that the run was trained on"
    )
    parser.add_argument("--out", type=Path, required=True, help="parquet file to write")
    parser.add_argument("--steps", type=_steps, metavar="FIRST-LAST", help="global steps to read (default: all)")
    parser.add_argument(
        "--max-per-question", type=int, help="most pairs of one question; whole groups are drawn (default: all)"
    )
    parser.add_argument("--limit", type=int, help="most pairs in all; whole questions are drawn (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of --max-per-question and --limit (default: 0)")
    given = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        settings = CollectSettings(given.steps, given.max_per_question, given.limit, given.seed)
        collected = collect(given.run_dir, given.data, given.out, settings)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{given.out}: {collected.pairs} pairs of {collected.responses} responses")
    for reason, count in collected.left_out.most_common():
        print(f"  left out: {count} ({reason})")
    return 0


def _steps(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    if not (first.isdigit() and (not dash or last.isdigit())):
        raise argparse.ArgumentTypeError(f"{text!r}: give FIRST-LAST, such as 1-500")
    return int(first), int(last or first)


if __name__ == "__main__":
    sys.exit(main())
