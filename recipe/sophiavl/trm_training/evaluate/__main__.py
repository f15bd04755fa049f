"""Measure a served thinking reward model on rows with reference scores, or on a public benchmark.

python -m recipe.sophiavl.trm_training.evaluate test.parquet --url http://localhost:8000/v1 --model trm --out FOLDER

Every row needs question, images, thinking and score (`data_preprocess.schema.THINKING_SCHEMA`); with outcome and group
more is measured. FOLDER gets evaluation.json, evaluation.html, summary.md, scores.parquet and edits.parquet.
With --format, the file is a folder in the published layout of a benchmark, and FOLDER gets benchmark.json and
scores.parquet.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from rich.console import Console

from recipe.sophiavl.trm.arguments import add_client_arguments, client_settings
from recipe.sophiavl.trm.client import read_api_key
from recipe.sophiavl.trm.client_settings import ClientSettings
from recipe.sophiavl.trm.prompt import load_template
from recipe.sophiavl.trm.scale import StructuredOutput
from recipe.sophiavl.trm_training.commands import DONE, at_least, exit_status
from recipe.sophiavl.trm_training.evaluate import benchmark_figures
from recipe.sophiavl.trm_training.evaluate.blind import fit_text_only
from recipe.sophiavl.trm_training.evaluate.evaluation import Options, evaluate, load_other, save
from recipe.sophiavl.trm_training.evaluate.outputs import EvaluationError, show, tables_of
from recipe.sophiavl.trm_training.evaluate.public_benchmarks import READERS, read_benchmark
from recipe.sophiavl.trm_training.evaluate.rows import read_evaluation_set

PAIRS = "pairs"
# A log has no width; in 80 columns most cells would be folded.
_LOG_COLUMNS = 200
# As for annotate: a judge may explain itself before it writes its score.
_JUDGE_MAX_TOKENS = 1024


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m recipe.sophiavl.trm_training.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, help="parquet file of scored reasoning, or a benchmark's folder")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--format",
        choices=[PAIRS, *READERS],
        default=PAIRS,
        help="what the file is (default: pairs, a parquet file of this project)",
    )
    parser.add_argument(
        "--limit",
        type=at_least(1),
        help="most rows, whole questions drawn by the seed; of a benchmark its first cases (default: all)",
    )
    parser.add_argument("--seed", type=at_least(0), default=0, help="seed of draws, edits and intervals (default: 0)")
    parser.add_argument(
        "--bootstrap", type=at_least(0), default=1000, help="resamples (default: 1000; 0: no intervals)"
    )
    parser.add_argument("--no-edits", action="store_true", help="leave out the sensitivity to edits")
    parser.add_argument("--edits-limit", type=at_least(1), default=500, help="most rows to edit (default: 500)")
    parser.add_argument("--compare", type=Path, metavar="JSON", help="evaluation.json to put beside this one")
    parser.add_argument(
        "--blind-baseline",
        type=Path,
        metavar="TRAIN",
        help="parquet file to fit a text-only scorer on, as a baseline that sees no image: the train file beside the "
        "test file",
    )
    judge = parser.add_argument_group("judge, asked about edited texts too, so that its drops stand beside the TRM's")
    judge.add_argument("--reference-url", action="append", help="base URL of the judge; repeatable")
    judge.add_argument("--reference-model", help="name of the judge")
    judge.add_argument("--reference-api-key-env", help="environment variable that holds the judge's API key")
    judge.add_argument(
        "--reference-structured-output",
        choices=get_args(StructuredOutput),
        default="auto",
        help="restrict the judge's replies to 0.0, 0.1 ... 1.0 on its server (default: auto)",
    )
    add_client_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0, 1 where the server or a file fails, 2 for wrong settings or files, 130 on Ctrl-C."""
    return exit_status(lambda: _run(make_parser().parse_args(argv)))


def _run(given: argparse.Namespace) -> int:
    config, judge = _settings(given)
    given.out.mkdir(parents=True, exist_ok=True)
    measure = _measure_pairs if given.format == PAIRS else _measure_benchmark
    console = Console()
    if not console.is_terminal:
        console.width = _LOG_COLUMNS
    written = measure(given, config, judge, console)
    console.print(f"Written: {written}", markup=False, highlight=False, soft_wrap=True)
    return DONE


def _settings(given: argparse.Namespace) -> tuple[ClientSettings, ClientSettings | None]:
    """How to ask the TRM and the judge; what can be wrong with it is found before a server is asked."""
    # Without a cache: an unchanged text that is asked again must be asked again.
    config = client_settings(given, cache_size=0)
    judge = None
    if bool(given.reference_url) != bool(given.reference_model):
        raise EvaluationError("--reference-url and --reference-model go together: give both, or neither")
    if given.reference_url:
        judge = replace(
            config,
            urls=given.reference_url,
            model=given.reference_model,
            api_key_env=given.reference_api_key_env,
            structured_output=given.reference_structured_output,
            score_mode="discrete",
            max_tokens=max(_JUDGE_MAX_TOKENS, config.max_tokens),
        )
        read_api_key(judge)
    read_api_key(config)
    load_template(config.prompt_path)
    return config, judge


def _measure_pairs(
    given: argparse.Namespace, config: ClientSettings, judge: ClientSettings | None, console: Console
) -> Path:
    if judge is not None and given.no_edits:
        raise EvaluationError("--reference-url asks the judge about edited texts, and --no-edits leaves them out")
    options = Options(
        limit=given.limit,
        seed=given.seed,
        resamples=given.bootstrap,
        edits_limit=0 if given.no_edits else given.edits_limit,
        judge=judge,
        compare=None if given.compare is None else load_other(given.compare),
        blind=None if given.blind_baseline is None else fit_text_only(given.blind_baseline),
    )
    data = read_evaluation_set(given.file, given.limit, given.seed)
    results = asyncio.run(evaluate(data, config, options))
    save(results, given.out)
    show(tables_of(results.evaluation), results.evaluation["notes"], console)
    return given.out / "evaluation.html"


def _measure_benchmark(
    given: argparse.Namespace, config: ClientSettings, judge: ClientSettings | None, console: Console
) -> Path:
    if judge is not None or given.compare or given.blind_baseline:
        raise EvaluationError(f"--reference-url, --compare and --blind-baseline are for --format {PAIRS}")
    benchmark = read_benchmark(given.format, given.file, given.limit)
    found = asyncio.run(benchmark_figures.measure(benchmark, config, given.bootstrap, given.seed))
    benchmark_figures.save(found, given.out)
    show([benchmark_figures.table_of(found.evaluation)], found.evaluation["notes"], console)
    return given.out / "benchmark.json"


if __name__ == "__main__":
    sys.exit(main())
