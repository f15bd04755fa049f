"""Scores the answers that harnesses kept by one rule, ``reward_score``, and tells their differences row by row.

    python -m examples.benchmarks.rescore lmms_eval=outputs/benchmarks/lmms_eval evaluate=outputs/evaluate/mine \\
        --questions outputs/local_data/questions.jsonl

Each NAME=PATH is a folder or file of answers: lmms-eval's ``*_samples_*.jsonl``, EvalScope's ``reviews/``, VLMEvalKit's
``.tsv`` or ``.xlsx``, or ``scored.jsonl`` of ``recipe.sophiavl.evaluate``. With ``--questions`` (of local_data.py)
types, truths and options are those of the data. Without it they are the harness' own, and the type is guessed from the
truth where ``--problem-type`` does not say it: a letter is multiple choice, a number numerical, all else free-form.

An answer that a harness did not get is counted apart and never scored. The table has each accuracy by our rule beside
the harness' own (the share of its main scores of 0.5 or more); below it stands every question that two rules, or two
harnesses, decide differently.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from data_preprocess.core.shown import one_line
from examples.benchmarks.harness_logs import Answered, LogError, read_answers
from examples.benchmarks.local_data import CHOICE, NAME, slug
from recipe.sophiavl.trust_grpo import TrustGRPOConfig
from reward_score import PROBLEM_TYPES, OutcomeSettings, score_outcome

_NUMBER = re.compile(r"[-+]?\d[\d,]*\.?\d*%?")
_MOST_SHOWN = 20


@dataclass(frozen=True)
class Row:
    """One question in one harness.

    Attributes:
        key: the same for the same question in every harness.
        kind: its answer type.
        correct: by our rule; None without a response.
        own: by the harness' rule; None where it says nothing.
    """

    key: str
    kind: str
    question: str
    truth: str
    response: str | None
    answer: str | None
    correct: bool | None
    own: bool | None


def read_questions(file: Path) -> dict[str, list[dict[str, Any]]]:
    """The questions of local_data.py by answer type, as the harnesses number them, and all of them under ``all``.

    Raises:
        LogError: it is no such file.
    """
    found: dict[str, list[dict[str, Any]]] = {"all": []}
    try:
        for line in file.read_text(encoding="utf-8").splitlines():
            question = json.loads(line)
            found["all"].append(question)
            found.setdefault(slug(question["problem_type"]), []).append(question)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LogError(f"--questions {file}: no questions of local_data.py ({error})") from error
    return found


def question_of(answered: Answered, questions: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The question that an answer is to.

    Raises:
        LogError: it is to none of these.
    """
    kind = answered.task.removeprefix(f"{NAME}_").removeprefix("general_vqa_")
    kind = slug(CHOICE) if kind == "general_vmcq_default" else kind
    rows = questions[kind if kind in questions else "all"]
    if not 0 <= answered.position < len(rows):
        raise LogError(f"{answered.task}, question {answered.position}: --questions has only {len(rows)} of these")
    return rows[answered.position]


def guessed_type(truth: str) -> str:
    """The answer type that a truth looks like."""
    if re.fullmatch(r"\(?[A-Z]\)?\.?", truth.strip()):
        return CHOICE
    return "numerical" if _NUMBER.fullmatch(truth.strip()) else "free-form"


def score(
    answers: Iterable[Answered],
    questions: Mapping[str, list[dict[str, Any]]] | None,
    problem_type: str | None,
    settings: OutcomeSettings,
) -> dict[str, Row]:
    """Each answer by our rule, by the key of its question.

    Raises:
        LogError: a truth that cannot be scored by, or an answer to none of the questions.
    """
    rows = {}
    for answered in answers:
        if questions is None:
            key, truth, options = f"{answered.task}/{answered.position}", answered.truth, answered.options
            kind = problem_type or guessed_type(truth or "")
        else:
            question = question_of(answered, questions)
            key, truth, options = str(question["id"]), question["answer"], question["options"]
            kind = question["problem_type"]
        correct, answer = None, None
        if answered.response is not None:
            try:
                outcome = score_outcome(kind, answered.response, truth, options or None, settings=settings)
            except (ValueError, TypeError) as error:
                raise LogError(f"{answered.task}, question {answered.position}: {error}") from error
            correct, answer = outcome.reward >= TrustGRPOConfig.correct_threshold, outcome.answer
        own = None if answered.own is None or answered.response is None else answered.own >= 0.5
        rows[key] = Row(key, kind, answered.question, str(truth), answered.response, answer, correct, own)
    return rows


def accuracy(values: Iterable[bool | None]) -> float | None:
    """The share of True among what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def table_of(runs: Mapping[str, Mapping[str, Row]]) -> Table:
    """Accuracies by run and answer type: by our rule, and by the harness' own."""
    table = Table("harness", "type", "answers", "none", "by our rule", "by its own")
    for name, rows in runs.items():
        kinds = [kind for kind in PROBLEM_TYPES if any(row.kind == kind for row in rows.values())]
        for kind in [*kinds, None]:
            some = [row for row in rows.values() if kind in (None, row.kind)]
            table.add_row(
                name,
                kind or "all",
                str(len(some)),
                str(sum(row.response is None for row in some)),
                *map(_percent, (accuracy(row.correct for row in some), accuracy(row.own for row in some))),
                end_section=kind is None,
            )
    return table


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.4f}"


def own_differences(name: str, rows: Mapping[str, Row]) -> list[str]:
    """The questions that the harness' rule decides otherwise than ours, a line each."""
    return [
        f"{name}, question {row.key}: truth {one_line(row.truth, 60)}, response {one_line(row.response or '', 160)}: "
        f"{_verdict(row.correct)} by our rule, {_verdict(row.own)} by its own"
        for row in rows.values()
        if None not in (row.correct, row.own) and row.correct != row.own
    ]


def paired_differences(names: tuple[str, str], first: Mapping[str, Row], second: Mapping[str, Row]) -> list[str]:
    """The questions whose verdicts by our rule differ between two harnesses, with the cause, a line each."""
    found = []
    for key in sorted(first.keys() & second.keys(), key=lambda text: (len(text), text)):
        one, other = first[key], second[key]
        if None in (one.correct, other.correct) or one.correct == other.correct:
            continue
        found.append(
            f"question {key}: truth {one_line(one.truth, 60)}; the model answered otherwise: "
            + "; ".join(
                f"{name} {_verdict(row.correct)}, {one_line(row.response or '', 160)}"
                for name, row in zip(names, (one, other), strict=True)
            )
        )
    return found


def _verdict(correct: bool | None) -> str:
    return "right" if correct else "wrong"


def same_text(first: Mapping[str, Row], second: Mapping[str, Row]) -> tuple[int, int]:
    """How many questions both answered, and of these, how many in the same words (white space aside)."""
    pairs = [(first[key].response, second[key].response) for key in first.keys() & second.keys()]
    known = [["".join(text.split()) for text in pair] for pair in pairs if None not in pair]
    return len(known), sum(one == other for one, other in known)


def report(runs: Mapping[str, Mapping[str, Row]], console: Console) -> None:
    """Print the table and every difference."""
    console.print(table_of(runs))
    for name, rows in runs.items():
        _print_some(console, f"{name}: decided otherwise by its own rule", own_differences(name, rows))
    for (one, first), (other, second) in combinations(runs.items(), 2):
        both, equal = same_text(first, second)
        console.print(f"{one}, {other}: {both} questions answered by both, {equal} in the same words")
        _print_some(
            console, f"{one}, {other}: decided otherwise by our rule", paired_differences((one, other), first, second)
        )


def _print_some(console: Console, title: str, lines: Sequence[str]) -> None:
    console.print(f"{title}: {len(lines)}")
    for line in lines[:_MOST_SHOWN]:
        console.print(f"  {line}")
    if len(lines) > _MOST_SHOWN:
        console.print(f"  … and {len(lines) - _MOST_SHOWN} more (--rows has all)")


def write_rows(runs: Mapping[str, Mapping[str, Row]], file: Path) -> None:
    """Every row of every run as JSON lines."""
    with file.open("w", encoding="utf-8") as out:
        for name, rows in runs.items():
            for row in rows.values():
                out.write(json.dumps({"harness": name, **vars(row)}, ensure_ascii=False) + "\n")


def largest_difference(runs: Mapping[str, Mapping[str, Row]]) -> float:
    """Between the accuracies by our rule of any two runs."""
    known = [share for rows in runs.values() if (share := accuracy(row.correct for row in rows.values())) is not None]
    return max(known, default=0.0) - min(known, default=0.0)


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="NAME=PATH", help="answers of a harness")
    parser.add_argument("--questions", type=Path, help="questions.jsonl of local_data.py")
    parser.add_argument("--problem-type", choices=PROBLEM_TYPES, help="answer type of all (default: guessed)")
    parser.add_argument(
        "--tolerance", type=float, default=0.0, help="share by which a number may be off (ChartQA: 0.05)"
    )
    parser.add_argument("--rows", type=Path, help="write every row here, as JSON lines")
    parser.add_argument(
        "--max-difference",
        type=float,
        default=1.0,
        help="fail where accuracies by our rule differ by more (default: 1)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: 0; 1 where answers cannot be read, or accuracies differ by more than they may."""
    parser = make_parser()
    args = parser.parse_args(argv)
    console = Console(markup=False, highlight=False, emoji=False, soft_wrap=True)
    runs: dict[str, dict[str, Row]] = {}
    try:
        settings = OutcomeSettings(tolerance=args.tolerance)
        questions = read_questions(args.questions) if args.questions else None
        for run in args.runs:
            name, equals, path = run.partition("=")
            if not (name and equals and path) or name in runs:
                parser.error(f"{run}: give NAME=PATH, each name once")
            runs[name] = score(read_answers(Path(path)), questions, args.problem_type, settings)
        if args.rows:
            write_rows(runs, args.rows)
    except (LogError, ValueError, OSError) as error:
        print(f"rescore: {one_line(str(error), 500)}", file=sys.stderr)
        return 1
    report(runs, console)
    if (difference := largest_difference(runs)) > args.max_difference:
        print(f"rescore: accuracies differ by {difference:.4f}, more than {args.max_difference}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
