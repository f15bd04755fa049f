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
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from recipe.sophiavl.trm.arguments import add_client_arguments, client_settings
from recipe.sophiavl.trm.client import ThinkingRewardClient, ThinkingScore
from recipe.sophiavl.trm.client_settings import ClientSettings
from recipe.sophiavl.trm.prompt import load_template
from recipe.sophiavl.trm.questions import digest_of
from recipe.sophiavl.trm.structured_output import settle
from recipe.sophiavl.trm.transport import AttemptError
from recipe.sophiavl.trm_training.asking import NOT_TRANSPORT, Request, ask_all, kinds, storable_reply
from recipe.sophiavl.trm_training.commands import DONE, FAILED, add_settings, exit_status, read_settings
from recipe.sophiavl.trm_training.journal import Journal, Known, Result
from recipe.sophiavl.trm_training.pairs import PairsError, image_bytes, read_files, write_pairs
from recipe.sophiavl.validation import FLAGS, settings_group

MAX_REPLY_CHARS = 20_000
# Enough for a judge that explains itself before it writes its score, where the server does not hold it to one.
MAX_TOKENS = 1024
CHANGES_NO_REPLY = (
    *("urls", "api_key_env", "max_concurrency", "connect_timeout_s", "timeout_s", "deadline_s", "cache_size"),
    *("max_retries", "backoff_base_s", "backoff_max_s"),
)
"""Settings of the client that may differ between runs with one journal: they decide when and how often it asks."""
# Fewer scores than this may be equal by chance.
_ENOUGH_TO_JUDGE = 50
_TEXTS = ("pair_id", "question", "thinking")
_NEEDS = (*_TEXTS, "images")
_Sample = tuple[str, int]  # pair_id and number of the sample
AtLeastOne = Annotated[int, Field(ge=1)]


@settings_group(FLAGS)
class AnnotateSettings:
    """What is asked for.

    Attributes:
        samples: scores per pair; more than one needs a --temperature above 0.
        retry_unreadable: ask again where the judge's reply held no score, in every run.
        allow_missing: write the output even where pairs have no score yet.
        limit: use the first so many rows only; None uses all.
        stop_after: stop after so many results in a row without a score.

    Raises:
        SettingsError: a number is below 1.
    """

    samples: AtLeastOne = 1
    retry_unreadable: bool = False
    allow_missing: bool = False
    limit: AtLeastOne | None = None
    stop_after: AtLeastOne = 100


@dataclass
class Summary:
    """What a run of `annotate` did, and how it ended.

    Attributes:
        rows, pairs: rows of the input, and different pairs among them.
        from_journal: results that earlier runs had kept and that this one used.
        asked: requests of this run that ended, in whatever way.
        failed: those without a usable answer, by kind.
        latencies_s: seconds of each usable answer, in order of arrival.
        without_score: kinds of the results since the last score.
        stopped: whether it gave up because of them.
        scores: all scores in [0, 1], of earlier runs too.
        unreadable: replies without a score, of earlier runs too, by kind.
        missing: pairs that lack a result of a sample.
        written: whether the output was written.
    """

    rows: int = 0
    pairs: int = 0
    from_journal: int = 0
    asked: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    without_score: Counter[str] = field(default_factory=Counter)
    stopped: bool = False
    scores: list[float] = field(default_factory=list)
    unreadable: Counter[str] = field(default_factory=Counter)
    missing: int = 0
    written: bool = False


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
        OSError: the journal or the output cannot be written, or no server says what ``structured_output`` it has.
    """
    if settings.samples > 1 and config.temperature == 0:
        raise ValueError(
            f"--samples {settings.samples} with --temperature 0: a greedy judge gives one score again and again; raise "
            "--temperature, or ask for one sample"
        )
    if out.resolve() in {file.resolve() for file in files}:
        raise ValueError(f"--out {out} is an input too: write to another file")
    summary = Summary()
    pairs = _check_rows(files, settings, summary)
    config = _settled(config)
    with Journal(journal_path(out), asked_with(config)) as journal:
        todo = {pair: lacking for pair in pairs if (lacking := _lacking(pair, journal, settings))}
        summary.from_journal = len(pairs) * settings.samples - sum(map(len, todo.values()))
        if todo:
            asyncio.run(_ask(files, todo, journal, config, settings, summary))
        for pair in pairs:
            found = [journal.find(pair, sample) for sample in range(settings.samples)]
            known = [result for result in found if result is not None]
            summary.missing += len(known) < settings.samples
            summary.scores += [result.score for result in known if result.score is not None]
            summary.unreadable.update(result.error for result in known if result.error is not None)
        summary.written = not summary.missing or settings.allow_missing
        if summary.written:
            rows = islice(read_files(files, "write"), settings.limit)
            write_pairs(out, (_annotated(row, journal, settings.samples) for _, _, row in rows))
    return summary


def _settled(config: ClientSettings) -> ClientSettings:
    """The settings with a ``structured_output`` that the servers have: what it is changes every reply."""
    if config.structured_output not in ("auto", "on"):
        return config
    try:
        return asyncio.run(settle(config))
    except AttemptError as error:
        raise ConnectionError(
            f"--structured-output {config.structured_output}: cannot be found out at {', '.join(config.urls)}: {error}"
        ) from error


def asked_with(config: ClientSettings) -> dict[str, Any]:
    """What makes two scores comparable: everything that can change a reply, the prompt by its content."""
    names = {one.name for one in fields(config)} - {*CHANGES_NO_REPLY, "prompt_path"}
    return {
        "prompt_digest": load_template(config.prompt_path).digest.hex(),
        **{name: getattr(config, name) for name in sorted(names)},
    }


def _check_rows(files: Sequence[Path], settings: AnnotateSettings, summary: Summary) -> Sequence[str]:
    """Check the text of every row before the first one is paid for; the different pairs, in order."""
    digests: dict[str, bytes] = {}
    for _, where, row in islice(read_files(files, "read", _TEXTS, _NEEDS), settings.limit):
        summary.rows += 1
        for name in _TEXTS:
            if not isinstance(row[name], str) or not row["pair_id"]:
                raise PairsError(f"{where}, field {name}: {row[name]!r} instead of text")
        digest = digest_of(row["question"].encode(), row["thinking"].encode())
        if digests.setdefault(row["pair_id"], digest) != digest:
            raise PairsError(
                f"{where}, field pair_id: {row['pair_id']} stands for another question or thinking in an earlier row"
            )
    if not digests:
        raise PairsError(f"{', '.join(map(str, files))}: no rows")
    summary.pairs = len(digests)
    return list(digests)


def _lacking(pair: str, journal: Journal, settings: AnnotateSettings) -> list[int]:
    """The numbers of the pair's samples that are to be asked for."""

    def is_done(known: Known | None) -> bool:
        return known is not None and not (settings.retry_unreadable and known.score is None)

    return [sample for sample in range(settings.samples) if not is_done(journal.find(pair, sample))]


async def _ask(
    files: Sequence[Path],
    todo: Mapping[str, Sequence[int]],
    journal: Journal,
    config: ClientSettings,
    settings: AnnotateSettings,
    summary: Summary,
) -> None:
    def take(request: Request[_Sample], score: ThinkingScore) -> bool:
        _record(request, score, journal, summary)
        summary.stopped = summary.stopped or summary.without_score.total() >= settings.stop_after
        return summary.stopped

    requests = _requests(files, dict(todo), settings.limit)
    total = sum(map(len, todo.values()))
    async with ThinkingRewardClient(replace(config, cache_size=0)) as client:
        await ask_all(client, requests, take, bound=config.max_concurrency, total=total, label="annotating")


def _requests(files: Sequence[Path], todo: dict[str, Sequence[int]], limit: int | None) -> Iterator[Request[_Sample]]:
    for _, where, row in islice(read_files(files, "ask about", _NEEDS), limit):
        if samples := todo.pop(row["pair_id"], ()):
            images = image_bytes(row, where)
            for sample in samples:
                yield Request((row["pair_id"], sample), row["question"], images, row["thinking"])
        if not todo:
            return


def _record(request: Request[_Sample], score: ThinkingScore, journal: Journal, summary: Summary) -> None:
    """Write down what a request brought, where it brought something."""
    summary.asked += 1
    if score.error is None or score.error in NOT_TRANSPORT:
        latency_s = round(score.latency_s, 4)
        pair, sample = request.key
        reply = storable_reply(score, MAX_REPLY_CHARS)
        journal.add(Result(pair, sample, score.value, score.error, reply, latency_s))
        summary.latencies_s.append(latency_s)
    else:
        summary.failed[score.error] += 1
    if score.error is None:
        summary.without_score.clear()
    elif score.error != "bad_image":  # which says nothing about the judge
        summary.without_score[score.error] += 1


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


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: 0 where the output is written, 1 where scores are missing, 2 where settings or files are wrong.

    130 where it was interrupted.
    """
    parser = argparse.ArgumentParser(
        prog="python -m recipe.sophiavl.trm_training.annotate", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("files", nargs="+", type=Path, help="parquet files of pairs")
    parser.add_argument(
        "--out", type=Path, required=True, help="annotated parquet file; its journal is kept beside it (.journal.jsonl)"
    )
    add_settings(parser, AnnotateSettings)
    add_client_arguments(parser, max_tokens=MAX_TOKENS)
    given = parser.parse_args(argv)
    advice = f"results so far are in {journal_path(given.out)}: run the same command again to go on"
    return exit_status(lambda: _run(given), advice)


def _run(given: argparse.Namespace) -> int:
    summary = annotate(given.files, given.out, client_settings(given), read_settings(given, AnnotateSettings))
    print(report(summary, given.out))
    problem = complaint(summary, given.url)
    if problem:
        print(problem, file=sys.stderr)
    return DONE if summary.written else FAILED


def report(summary: Summary, out: Path) -> str:
    """What was asked for and what came of it, a few lines for people."""
    lines = [
        f"asked {summary.asked} (from the journal: {summary.from_journal})",
        f"{len(summary.scores)} scores, {summary.unreadable.total()} unreadable{_kinds(summary.unreadable)}, "
        f"{summary.failed.total()} failed{_kinds(summary.failed)}",
    ]
    if summary.scores:
        lines.append(f"mean score {statistics.fmean(summary.scores):.3f}")
    if summary.latencies_s:
        p50, p95 = np.percentile(summary.latencies_s, (50, 95))
        lines.append(f"latency p50 {p50:.2f} s, p95 {p95:.2f} s")
    if summary.written:
        lines.append(f"wrote {out}: {summary.rows} rows of {summary.pairs} pairs")
    return "\n".join(lines)


def complaint(summary: Summary, urls: Sequence[str]) -> str:
    """What is missing and what to do about it; empty where nothing is."""
    lines = []
    if summary.stopped:
        lines.append(
            f"stopped: {summary.without_score.total()} results in a row without a score"
            f"{_kinds(summary.without_score)}. Look at the log of {', '.join(urls)}, and try "
            "python -m recipe.sophiavl.trm.preflight with the same settings"
        )
    if len(summary.scores) >= _ENOUGH_TO_JUDGE and len(set(summary.scores)) == 1:
        lines.append(
            f"every one of the {len(summary.scores)} scores is {summary.scores[0]}: a judge that tells nothing apart "
            "teaches nothing. Read some replies in the journal"
        )
    if summary.missing:
        lines.append(
            f"{summary.missing} of {summary.pairs} pairs have no score yet{_kinds(summary.failed)}: run the same "
            "command again" + ("" if summary.written else ", or with --allow-missing to write the others")
        )
    return "\n".join(lines)


def _kinds(counts: Mapping[str, int]) -> str:
    return f" ({kinds(counts)})" if counts else ""


if __name__ == "__main__":
    sys.exit(main())
