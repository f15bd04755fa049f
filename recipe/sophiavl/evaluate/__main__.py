"""Measure a policy on RL data: accuracy with confidence intervals, and what it answered.

python -m recipe.sophiavl.evaluate MODEL_OR_URL data/mine/val-*.parquet --out outputs/evaluate/mine

MODEL_OR_URL is a model folder, a name on the hub (vLLM serves it meanwhile) or the base URL of an OpenAI-compatible
server. The prompt, the images and what counts as right are those of training. Interrupted, or left by its server, the
same command goes on with what is missing. The folder gets results.json, results.html, summary.md, scored.jsonl (every
answer with what it is worth) and answers.jsonl (as they arrived).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from recipe.sophiavl import fingerprint
from recipe.sophiavl.evaluate import outputs
from recipe.sophiavl.evaluate.answers import Answers, stored_settings
from recipe.sophiavl.evaluate.asking import AskSettings, read_body, read_prompt
from recipe.sophiavl.evaluate.comparison import RESULTS, Other, compared_with, load_other
from recipe.sophiavl.evaluate.evaluation import Scoring, ask, score
from recipe.sophiavl.evaluate.figures import figures_of
from recipe.sophiavl.evaluate.page import PAGE, render_page
from recipe.sophiavl.evaluate.policy import PolicyClient, find_model
from recipe.sophiavl.evaluate.questions import Question, check_files, read_questions
from recipe.sophiavl.evaluate.serving import add_serving_arguments, base_url, check_target, is_url, model_name, served
from recipe.sophiavl.evaluate.thinking import ThinkingScores
from recipe.sophiavl.server_process import ServerError
from recipe.sophiavl.trm.arguments import add_client_arguments, client_settings
from recipe.sophiavl.trm_training.commands import DONE, FAILED, add_settings, at_least, exit_status, read_settings
from recipe.sophiavl.trm_training.evaluate.outputs import save_json, show
from recipe.sophiavl.trm_training.evaluate.scoring import settled
from recipe.sophiavl.validation import SettingsError, make
from reward_score import PROBLEM_TYPES, OutcomeSettings

OUT = Path("outputs/evaluate")
_LOG_COLUMNS = 160


@dataclass(frozen=True)
class Target:
    """The model that is asked.

    Attributes:
        name: under which it is served.
        identity: what tells it from others, as JSON values.
    """

    name: str
    identity: dict[str, Any]


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m recipe.sophiavl.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", metavar="MODEL_OR_URL", help="model folder, name on the hub, or base URL such as http://host:8000/v1")
    add("data", metavar="DATA", nargs="+", type=Path, help="parquet files of RL rows")
    add("--name", help="what tables call this evaluation (default: the model's name)")
    add("--model", dest="served_model", help="name of the model at the URL (default: the only one there)")
    add("--out", type=Path, help=f"folder for the results (default: {OUT}/NAME)")
    add("--samples", type=at_least(1), default=1, help="answers to each question (default: 1)")
    add("--limit", type=at_least(1), help="only the first so many rows of each file")
    add("--retry-errors", action="store_true", help="ask again where the server had refused")
    add("--compare", nargs="+", type=Path, default=[], metavar="OTHER", help="folders of other evaluations")
    add("--bootstrap", type=at_least(0), default=1000, help="resamples of the intervals (default: 1000; 0: none)")
    add(
        "--threshold",
        action="append",
        default=[],
        metavar="[TYPE=]REWARD",
        help=f"least reward of a right answer, of all types or of one (default: {Scoring.threshold}); repeatable",
    )
    add(
        "--outcome",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of what counts as right, such as tolerance=0.05 (reward_score/settings.py); repeatable",
    )
    add_serving_arguments(parser)
    add_settings(parser.add_argument_group("asking"), AskSettings, system_prompt=read_prompt, extra_body=read_body)
    add_client_arguments(parser, "trm-")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: 0; 1 where the server or a file fails, 2 for wrong settings or files, 130 on Ctrl-C."""
    return exit_status(lambda: _run(make_parser().parse_args(argv)), "the same command goes on with what is missing")


def _run(given: argparse.Namespace) -> int:
    settings, scoring = read_settings(given, AskSettings), read_scoring(given.threshold, given.outcome)
    if given.samples > 1 and settings.temperature == 0:
        raise SettingsError(
            f"--samples={given.samples} with --temperature 0: a greedy policy answers the same again and again; raise "
            "--temperature, or ask for one sample"
        )
    if bool(given.trm_url) != bool(given.trm_model):
        raise SettingsError("--trm-url and --trm-model go together: give both, or neither")
    trm = client_settings(given, "trm-") if given.trm_url else None
    check_target(given.model, given.serve_flags)
    check_files(given.data)
    others = [load_other(path) for path in given.compare]
    target, out = _target(given, settings)
    name = given.name or target.name
    defining = {**target.identity, "data": fingerprint.data_files(list(map(str, given.data))), **settings.defining()}
    out.mkdir(parents=True, exist_ok=True)
    # Before anything is asked: a TRM that is not there would be told when all answers are.
    trm = None if trm is None else asyncio.run(settled(trm))
    with Answers(out, defining) as answers:
        questions = read_questions(given.data, given.limit)
        _ask_missing(given, settings, target, questions, answers)
        return _results(given, name, defining, scoring, trm, questions, answers, others)


def read_scoring(thresholds: Sequence[str], outcome: Sequence[str]) -> Scoring:
    """What counts as right, from ``--threshold`` and ``--outcome``.

    Raises:
        SettingsError: a value is out of range, or there is no such type or setting.
    """
    types = {name.lower() for name in PROBLEM_TYPES}
    general, by_type = Scoring.threshold, {}
    for text in thresholds:
        kind, sign, value = text.rpartition("=")
        try:
            reward = float(value)
        except ValueError:
            reward = 0.0
        if not 0 < reward <= 1 or (sign and kind.strip().lower() not in types):
            raise SettingsError(
                f"--threshold={text}: give a reward in (0, 1], or TYPE=REWARD with one of {', '.join(PROBLEM_TYPES)}"
            )
        if sign:
            by_type[kind.strip().lower()] = reward
        else:
            general = reward
    pairs = [text.partition("=") for text in outcome]
    values = {key.strip(): yaml.safe_load(value) for key, _, value in pairs}
    return Scoring(make("--outcome", OutcomeSettings, values), general, by_type)


def _target(given: argparse.Namespace, settings: AskSettings) -> tuple[Target, Path]:
    """The model to ask, and the folder for its results."""
    if not is_url(given.model):
        name = model_name(given.model)
        return Target(name, {"model": fingerprint.model(given.model)}), given.out or OUT / (given.name or name)
    stored = stored_settings(given.out) if given.out else None
    try:
        name, root = asyncio.run(find_model(base_url(given.model), given.served_model, settings))
    except ServerError:
        # It may be finished, or its server may come back while it is waited for.
        if stored is None or not {"model", "served_from"} <= stored.keys():
            raise
        name, root = stored["model"], stored["served_from"]
    return Target(name, {"model": name, "served_from": root}), given.out or OUT / (given.name or Path(name).name)


def _ask_missing(
    given: argparse.Namespace, settings: AskSettings, target: Target, questions: Sequence[Question], answers: Answers
) -> None:
    """Ask for the answers that are missing; of what is there nothing is asked again."""
    todo = {}
    for question in questions:
        keep = not given.retry_errors
        lacking = [n for n in range(given.samples) if not answers.has(question.id, n, failed_too=keep)]
        if lacking and question.fault is None:
            todo[question] = lacking
    wanted = given.samples * sum(question.fault is None for question in questions)
    missing = sum(map(len, todo.values()))
    if missing < wanted:
        print(f"{wanted - missing} of {wanted} answers are there already, in {answers.folder}", file=sys.stderr)
    if not todo:
        return

    async def asking(url: str, died: Any) -> None:
        async with PolicyClient(url, target.name, settings, died) as client:
            await ask(client, given.data, todo, answers, settings)

    with served(given.model, answers.folder / "server.log", given.serve_flags) as server:
        asyncio.run(asking(server.url, server.died))


def _results(
    given: argparse.Namespace,
    name: str,
    defining: dict[str, Any],
    scoring: Scoring,
    trm: Any,
    questions: Sequence[Question],
    answers: Answers,
    others: Sequence[Other],
) -> int:
    """Score, compute, write and show."""
    out, resamples, seed = answers.folder, given.bootstrap, given.seed
    if trm is None:
        found = score(out, given.data, questions, answers, given.samples, scoring, None)
    else:
        with ThinkingScores(out, trm) as thinking:
            asyncio.run(thinking.ask(given.data, questions, given.samples, answers))
            found = score(out, given.data, questions, answers, given.samples, scoring, thinking)
    figures = figures_of(questions, found.values, resamples, seed)
    compared = [compared_with(other, questions, found.values, resamples, seed) for other in others]
    results = outputs.results_of(name, defining, scoring, questions, found, figures, compared, given.samples)
    outputs.save_text(out / "summary.md", outputs.markdown_of(results))
    outputs.save_text(out / PAGE, render_page(results, out, given.data, questions))
    save_json(out / RESULTS, results)  # last: where it is, everything is
    console = Console()
    if not console.is_terminal:
        console.width = _LOG_COLUMNS
    show(outputs.tables_of(results), results["notes"], console)
    console.print(f"Written: {out / PAGE}", markup=False, highlight=False, soft_wrap=True)
    if not results["counts"]["answers"]:
        print("no question was answered", file=sys.stderr)
        return FAILED
    return DONE


if __name__ == "__main__":
    sys.exit(main())
