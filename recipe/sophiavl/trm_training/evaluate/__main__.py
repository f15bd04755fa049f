"""Measure a served thinking reward model on rows with reference scores.

python -m recipe.sophiavl.trm_training.evaluate test.parquet --url http://localhost:8000/v1 --model trm --out FOLDER

Every row needs question, images, thinking and score (`data_preprocess.schema.THINKING_SCHEMA`); with outcome and group
more is measured. FOLDER gets evaluation.json, evaluation.html, scores.parquet and edits.parquet.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from recipe.sophiavl.trm.arguments import add_client_arguments, client_settings
from recipe.sophiavl.trm.client import read_api_key
from recipe.sophiavl.trm.client_settings import ClientSettings
from recipe.sophiavl.trm.prompt import PromptError, load_template
from recipe.sophiavl.trm_training.evaluate.evaluation import Options, evaluate, save
from recipe.sophiavl.trm_training.evaluate.outputs import (
    Evaluation,
    EvaluationError,
    load_evaluation,
    show,
)
from recipe.sophiavl.trm_training.evaluate.rows import EvaluationSet, read_evaluation_set
from recipe.sophiavl.trm_training.evaluate.scoring import ServerError
from recipe.sophiavl.trm_training.pairs import PairsError

DONE, NO_SERVER, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130


def _at_least(least: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value}: give {least} or more")
        return value

    return whole


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="parquet file of scored reasoning")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--limit", type=_at_least(1), help="most rows, whole questions drawn by the seed (default: all)"
    )
    parser.add_argument("--seed", type=_at_least(0), default=0, help="seed of draws, edits and intervals (default: 0)")
    parser.add_argument(
        "--bootstrap", type=_at_least(0), default=1000, help="resamples (default: 1000; 0: no intervals)"
    )
    parser.add_argument("--no-edits", action="store_true", help="leave out the sensitivity to edits")
    parser.add_argument("--edits-limit", type=_at_least(1), default=500, help="most rows to edit (default: 500)")
    parser.add_argument("--compare", type=Path, metavar="JSON", help="evaluation.json to put beside this one")
    add_client_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 0, 1 where the server cannot be used, 2 for wrong settings or files, 130 on Ctrl-C."""
    given = make_parser().parse_args(argv)
    console, errors = Console(), Console(stderr=True)

    def fail(error: Exception | str, status: int) -> int:
        errors.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        return status

    try:
        config, data, other = _prepare(given)
        edits_limit = 0 if given.no_edits else given.edits_limit
        options = Options(given.limit, given.seed, given.bootstrap, edits_limit)
        results = asyncio.run(evaluate(data, config, options))
        save(results, given.out, other)
    except ServerError as error:
        return fail(error, NO_SERVER)
    except (PairsError, PromptError, EvaluationError, OSError) as error:
        return fail(error, WRONG_INPUT)
    except KeyboardInterrupt:
        return fail("interrupted", INTERRUPTED)
    show(results.evaluation, other, console)
    console.print(f"Page: {given.out / 'evaluation.html'}", markup=False, highlight=False, soft_wrap=True)
    return DONE


def _prepare(given: argparse.Namespace) -> tuple[ClientSettings, EvaluationSet, Evaluation | None]:
    """Check everything that can be wrong before the server is asked."""
    try:
        # Without a cache: an unchanged text that is asked again must be asked again.
        config = client_settings(given, cache_size=0)
        read_api_key(config)
    except ValueError as error:
        raise EvaluationError(str(error)) from error
    load_template(config.prompt_path)
    other = None if given.compare is None else load_evaluation(given.compare)
    given.out.mkdir(parents=True, exist_ok=True)
    return config, read_evaluation_set(given.file, given.limit, given.seed), other


if __name__ == "__main__":
    sys.exit(main())
