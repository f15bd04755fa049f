"""Annotate pairs with a judge's scores; interrupted or failed in part, the same command goes on where it stopped.

python -m recipe.sophiavl.trm_training.annotate pairs.parquet --out annotated.parquet \\
    --url http://localhost:8000/v1 --model Qwen2.5-VL-72B-Instruct

No pair is lost and none is paid for twice: killed at any moment, only requests that were in flight at that moment (at
most ``max_concurrency``) can have been asked without their reply being kept. What is kept, in the journal beside the
output, is every score and every reply that held none. A request to which no usable answer came (a timeout, a refused
connection, an HTTP error) is not kept, and the next run sends it again. At a temperature above 0 one sample is the
client's tries together: where the last of them failed that way, the sample is open, whatever the earlier ones brought.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from recipe.sophiavl.trm.arguments import add_client_arguments, client_settings
from recipe.sophiavl.trm.client import ThinkingRewardClient, ThinkingScore
from recipe.sophiavl.trm.client_settings import ClientSettings
from recipe.sophiavl.trm.metrics import percentile
from recipe.sophiavl.trm.prompt import load_template
from recipe.sophiavl.trm.questions import digest_of
from recipe.sophiavl.trm_training.asking import NOT_TRANSPORT, Request, ask_all, kinds, storable_reply
from recipe.sophiavl.trm_training.journal import Journal, Known, Result
from recipe.sophiavl.trm_training.pairs import PairsError, image_bytes, read_pairs, write_pairs

MAX_REPLY_CHARS = 20_000
_TEXTS = ("pair_id", "question", "thinking")
_NEEDS = (*_TEXTS, "images")


@dataclass(frozen=True)
class AnnotateSettings:
    """What is asked for.

    Attributes:
        samples: scores per pair; more than one needs a temperature above 0.
        retry_unreadable: ask again where the journal holds a reply without a score.
        allow_missing: write the output even where pairs have no result yet.
        limit: use the first so many rows only; None uses all.
        stop_after: results in a row without a score after which no more is asked.

    Raises:
        ValueError: a number is below 1.
    """

    samples: int = 1
    retry_unreadable: bool = False
    allow_missing: bool = False
    limit: int | None = None
    stop_after: int = 100

    def __post_init__(self) -> None:
        for name in ("samples", "limit", "stop_after"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} {value}: give 1 or more")


@dataclass
class Asked:
    """What one run asked for.

    Attributes:
        results: requests that ended, in whatever way.
        failed: those without a usable answer, by kind.
        failed_attempts: HTTP requests that failed, by kind; one result may stand for several, retries included, and
            where the circuit breaker held one back for none.
        latencies_s: seconds of each answer, in order of arrival.
        without_score: kinds of the results since the last score.
        stopped: whether it gave up because of them.
    """

    results: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    failed_attempts: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    without_score: Counter[str] = field(default_factory=Counter)
    stopped: bool = False


@dataclass(frozen=True)
class Summary:
    """How a run of `annotate` ended.

    Attributes:
        rows, pairs: rows of the input, and different pairs among them.
        from_journal: results that earlier runs had kept and that this one used.
        asked: what this run asked for.
        scores: all scores in [0, 1], of earlier runs too.
        unreadable: replies without a score, of earlier runs too, by kind.
        missing: pairs that lack a result of a sample.
        written: whether the output was written.
    """

    rows: int
    pairs: int
    from_journal: int
    asked: Asked
    scores: list[float]
    unreadable: Counter[str]
    missing: int
    written: bool


@dataclass(frozen=True)
class _Plan:
    """`todo` holds, for each pair that is not done, the numbers of the samples to ask for."""

    rows: int
    pairs: list[str]
    todo: dict[str, list[int]]
    from_journal: int


_Sample = tuple[str, int]  # pair_id and number of the sample


def journal_path(out: Path) -> Path:
    """The journal beside an output: ``pairs.parquet`` has ``pairs.journal.jsonl``."""
    return out.with_suffix(".journal.jsonl")


def annotate(files: Sequence[Path], out: Path, config: ClientSettings, settings: AnnotateSettings) -> Summary:
    """Ask the judge for every sample that the journal lacks, then write `out`: the rows in order, with their scores.

    The output is written when every pair has all its results, with a score or without; until then, the same call goes
    on. Equal pairs are asked about once. Memory holds a few hundred rows, and some hundred bytes for each pair.

    Args:
        files: parquet files of pairs.
        out: parquet file of `PAIR_SCHEMA`; its journal is `journal_path(out)`.
        config: how to reach the judge; its cache is not used.

    Raises:
        PairsError: an input cannot be used; the message names file, row and field.
        JournalError: the journal is in use, broken, or of another judge.
        PromptError: the prompt file cannot be used.
        ValueError: settings that do not go together, or an API key that is not set.
        OSError: the journal or the output cannot be written.
    """
    if settings.samples > 1 and config.temperature == 0:
        raise ValueError(
            f"--samples {settings.samples} with --temperature 0: a greedy judge gives one score again and again; raise "
            "--temperature, or ask for one sample"
        )
    if out.resolve() in {file.resolve() for file in files}:
        raise ValueError(f"--out {out} is an input too: write to another file")
    with Journal(journal_path(out), asked_with(config)) as journal:
        plan = _make_plan(files, journal, settings)
        asked = Asked()
        if plan.todo:
            asyncio.run(_ask_all(_tasks(files, plan.todo, settings.limit), plan, journal, config, settings, asked))
        missing = sum(
            any(journal.find(pair, sample) is None for sample in range(settings.samples)) for pair in plan.pairs
        )
        written = not missing or settings.allow_missing
        if written:
            rows = tqdm(_rows(files, None, settings.limit), desc="writing", unit="row", total=plan.rows)
            write_pairs(out, (_annotated(row, journal, settings.samples) for _, row in rows))
        return _summary(plan, journal, settings, asked, missing, written)


def asked_with(config: ClientSettings) -> dict[str, Any]:
    """What makes two scores comparable: the judge, and how it is asked."""
    return {
        "model": config.model,
        "prompt_digest": load_template(config.prompt_path).digest.hex(),
        "temperature": config.temperature,
        "max_thinking_chars": config.max_thinking_chars,
        "structured_output": config.structured_output,
        "score_mode": config.score_mode,
    }


def _rows(
    files: Sequence[Path], columns: Sequence[str] | None, limit: int | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of all files in order, each with the words that say where it stands."""
    rows = (
        (f"{file}, row {number}", row) for file in files for number, row in enumerate(read_pairs(file, columns, _NEEDS))
    )
    return islice(rows, limit)


def _make_plan(files: Sequence[Path], journal: Journal, settings: AnnotateSettings) -> _Plan:
    """Check the text of every row before the first one is paid for, and see what the journal lacks."""
    count = 0
    digests: dict[str, bytes] = {}
    for where, row in tqdm(_rows(files, _TEXTS, settings.limit), desc="reading", unit="row"):
        count += 1
        pair, question, thinking = (_text(where, row, name) for name in _TEXTS)
        digest = digest_of(question.encode(), thinking.encode())
        if digests.setdefault(pair, digest) != digest:
            raise PairsError(
                f"{where}, field pair_id: {pair} stands for another question or thinking in an earlier row"
            )
    if not digests:
        raise PairsError(f"{', '.join(map(str, files))}: no rows")
    todo = {}
    from_journal = 0
    for pair in digests:
        known = [journal.find(pair, sample) for sample in range(settings.samples)]
        lacking = [sample for sample, result in enumerate(known) if not _is_done(result, settings.retry_unreadable)]
        from_journal += settings.samples - len(lacking)
        if lacking:
            todo[pair] = lacking
    return _Plan(count, list(digests), todo, from_journal)


def _text(where: str, row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    if not isinstance(value, str) or (name == "pair_id" and not value):
        raise PairsError(f"{where}, field {name}: {value!r} instead of text")
    return value


def _is_done(known: Known | None, retry_unreadable: bool) -> bool:
    return known is not None and not (retry_unreadable and known.score is None)


def _tasks(files: Sequence[Path], todo: Mapping[str, Sequence[int]], limit: int | None) -> Iterator[Request[_Sample]]:
    left = dict(todo)
    for where, row in _rows(files, _NEEDS, limit):
        samples = left.pop(row["pair_id"], ())
        if not samples:
            continue
        images = image_bytes(row, where)
        for sample in samples:
            yield Request((row["pair_id"], sample), row["question"], images, row["thinking"])
        if not left:
            return


async def _ask_all(
    requests: Iterator[Request[_Sample]],
    plan: _Plan,
    journal: Journal,
    config: ClientSettings,
    settings: AnnotateSettings,
    asked: Asked,
) -> None:
    async with ThinkingRewardClient(replace(config, cache_size=0)) as client:
        try:
            await ask_all(
                client,
                requests,
                lambda request, score: _record(request, score, journal, asked, settings.stop_after),
                bound=config.max_concurrency,
                total=sum(map(len, plan.todo.values())),
                label="annotating",
            )
        finally:
            asked.failed_attempts.update(client.metrics()["attempt_failures"])


def _record(request: Request[_Sample], score: ThinkingScore, journal: Journal, asked: Asked, stop_after: int) -> bool:
    """Write down what a request brought; whether it is time to give up."""
    asked.results += 1
    if score.error is None or score.error in NOT_TRANSPORT:
        latency_s = round(score.latency_s, 4)
        reply = storable_reply(score, MAX_REPLY_CHARS)
        journal.add(Result(*request.key, score.value, score.error, reply, latency_s))
        asked.latencies_s.append(latency_s)
    else:
        asked.failed[score.error] += 1
    if score.error is None:
        asked.without_score.clear()
    elif score.error != "bad_image":  # which says nothing about the judge
        asked.without_score[score.error] += 1
        asked.stopped = asked.stopped or asked.without_score.total() >= stop_after
    return asked.stopped


def _annotated(row: dict[str, Any], journal: Journal, samples: int) -> dict[str, Any]:
    """The row with what the judge made of it: the mean of its scores, their spread, and the first one's reply."""
    found = (journal.find(row["pair_id"], sample) for sample in range(samples))
    scored = [known for known in found if known is not None and known.score is not None]
    scores = [known.score for known in scored if known.score is not None]
    return row | {
        # Exact arithmetic: equal scores have exactly themselves as mean.
        "score": float(statistics.mean(scores)) if scores else None,
        "spread": max(scores) - min(scores) if scores else None,
        "samples": len(scores),
        "reply": journal.reply(scored[0]) if scored else None,
    }


def _summary(
    plan: _Plan, journal: Journal, settings: AnnotateSettings, asked: Asked, missing: int, written: bool
) -> Summary:
    found = [journal.find(pair, sample) for pair in plan.pairs for sample in range(settings.samples)]
    return Summary(
        rows=plan.rows,
        pairs=len(plan.pairs),
        from_journal=plan.from_journal,
        asked=asked,
        scores=[known.score for known in found if known is not None and known.score is not None],
        unreadable=Counter(known.error for known in found if known is not None and known.error is not None),
        missing=missing,
        written=written,
    )


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
        summary = annotate(given.files, given.out, client_settings(given), settings)
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
            f"log of {', '.join(urls)}, and try python -m recipe.sophiavl.trm.preflight with the same "
            "settings"
        )
    if summary.missing:
        lines.append(
            f"{summary.missing} of {summary.pairs} pairs have no score yet{_kinds(asked.failed)}: run the same command "
            "again" + ("" if summary.written else ", or with --allow-missing to write the others")
        )
    return "\n".join(lines)


def _kinds(counts: Mapping[str, int]) -> str:
    return f" ({kinds(counts)})" if counts else ""


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
