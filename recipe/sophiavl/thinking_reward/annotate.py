"""Annotate pairs with a judge's scores; interrupted or failed in part, the same command goes on where it stopped.

python -m recipe.sophiavl.thinking_reward.annotate pairs.parquet --out annotated.parquet \
    --url http://localhost:8000/v1 --model Qwen2.5-VL-72B-Instruct
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from recipe.sophiavl.thinking_reward.cli import add_client_arguments, client_config
from recipe.sophiavl.thinking_reward.metrics import percentile
from recipe.sophiavl.thinking_reward.training_data.annotate import AnnotateSettings, Summary, annotate, journal_path

# Enough for a judge that explains itself before it writes its score, where the server does not hold it to one.
MAX_TOKENS = 1024


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: 0 where the output is written, 1 where scores are missing, 2 where settings or files are wrong.

    130 where it was interrupted.
    """
    given = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    again = "run the same command again to go on"
    try:
        settings = AnnotateSettings(
            given.samples, given.retry_unreadable, given.allow_missing, given.limit, given.stop_after
        )
        summary = annotate(given.files, given.out, client_config(given), settings)
    except KeyboardInterrupt:
        print(f"\ninterrupted; results so far are in {journal_path(given.out)}: {again}", file=sys.stderr)
        return 130
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error}; when this is put right, {again}", file=sys.stderr)
        return 1
    print(report(summary, given.out))
    problem = complaint(summary, given.url)
    if problem:
        print(problem, file=sys.stderr)
    return 0 if summary.written else 1


def report(summary: Summary, out: Path) -> str:
    """What was asked for and what came of it, a few lines for people."""
    asked = summary.asked
    lines = [
        f"asked {asked.results} (from the journal: {summary.from_journal})",
        f"{len(summary.scores)} scores, {summary.unreadable.total()} unreadable{_kinds(summary.unreadable)}, "
        f"{asked.failed.total()} failed{_kinds(asked.failed)}",
    ]
    if summary.scores:
        lines.append(f"mean score {statistics.fmean(summary.scores):.3f}")
    if asked.latencies_s:
        ordered = sorted(asked.latencies_s)
        lines.append(f"latency p50 {percentile(ordered, 0.5):.2f} s, p95 {percentile(ordered, 0.95):.2f} s")
    if summary.written:
        lines.append(f"wrote {out}: {summary.rows} rows of {summary.pairs} pairs")
    return "\n".join(lines)


def complaint(summary: Summary, urls: Sequence[str]) -> str:
    """What is missing and what to do about it; empty where nothing is."""
    asked = summary.asked
    lines = []
    if asked.stopped:
        lines.append(
            f"stopped: {asked.without_score.total()} results in a row without a score{_kinds(asked.without_score)}; "
            f"HTTP requests that failed: {asked.failed_attempts.total()}{_kinds(asked.failed_attempts)}. Look at the "
            f"log of {', '.join(urls)}, and try python -m recipe.sophiavl.thinking_reward.preflight with the same "
            "settings"
        )
    if summary.missing:
        lines.append(
            f"{summary.missing} of {summary.pairs} pairs have no score yet{_kinds(asked.failed)}: run the same command "
            "again" + ("" if summary.written else ", or with --allow-missing to write the others")
        )
    return "\n".join(lines)


def _kinds(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return f" ({', '.join(f'{kind} {count}' for kind, count in ordered)})" if ordered else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("files", nargs="+", type=Path, help="parquet files of pairs")
    parser.add_argument(
        "--out", type=Path, required=True, help="annotated parquet file; its journal is kept beside it (.journal.jsonl)"
    )
    parser.add_argument(
        "--samples", type=int, default=1, help="scores per pair; above 1 needs --temperature above 0 (default: 1)"
    )
    parser.add_argument(
        "--retry-unreadable", action="store_true", help="ask again where the judge's reply held no score, in every run"
    )
    parser.add_argument(
        "--allow-missing", action="store_true", help="write the output even where pairs have no score yet"
    )
    parser.add_argument("--limit", type=int, help="use the first so many rows only")
    parser.add_argument(
        "--stop-after",
        type=int,
        default=AnnotateSettings.stop_after,
        help="stop after so many results in a row without a score (default: %(default)s)",
    )
    add_client_arguments(parser, max_tokens=MAX_TOKENS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
