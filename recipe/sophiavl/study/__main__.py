"""The paper's ablations as a study: many short runs on one engine, and what they show together.

python -m recipe.sophiavl.study run examples/study/study.yaml --results docs/study/results
python -m recipe.sophiavl.study analyse docs/study/results --out docs/study

`run` makes the runs that have no result yet: interrupted, or with a larger grid, the same command goes on. `analyse`
makes tables and figures from the results alone, of a part of the grid too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from recipe.sophiavl.study import runner
from recipe.sophiavl.study.grid import load_study
from recipe.sophiavl.trm_training.commands import DONE, FAILED, at_least, exit_status
from recipe.sophiavl.verl_support import environment

RUNS = Path("outputs/study")


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m recipe.sophiavl.study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="make the runs that have no result yet")
    run.add_argument("study", metavar="STUDY.yaml", type=Path)
    run.add_argument("--results", type=Path, required=True, help="folder of the results, a small file a run")
    run.add_argument("--runs", type=Path, default=RUNS, help=f"folder of the runs themselves (default: {RUNS})")
    run.add_argument("--workers", type=at_least(0), default=0, help="engines at once (default: what the machine holds)")
    run.add_argument(
        "--runs-per-engine",
        type=at_least(0),
        default=0,
        help="runs that share an engine; 1: each has its own, which takes two minutes to start (default: no limit)",
    )
    run.add_argument(
        "--stall-s",
        type=at_least(1),
        default=int(runner.STALL_S),
        help="seconds without a sign of life after which a run counts as failed (default: %(default)s)",
    )
    run.add_argument("--dry-run", action="store_true", help="list the runs and what is left, and start nothing")
    analyse = commands.add_parser("analyse", help="tables and figures from the results")
    analyse.add_argument("results", type=Path)
    analyse.add_argument("--out", type=Path, required=True, help="folder for tables and figures")
    return parser


def _run(given: argparse.Namespace) -> int:
    study = load_study(given.study)
    left = runner.missing(study, given.results)
    if given.dry_run:
        environment.configure()  # before anything imports verl
        from recipe.sophiavl.study.run_config import check_study

        check_study(study)
        for cell in study.cells():
            print(f"{'would make' if cell in left else 'made':10}  {cell.name}")
        print(f"{len(study.cells()) - len(left)} of {len(study.cells())} runs are made, {len(left)} would be")
        return DONE
    found = runner.run(
        given.study,
        given.results,
        given.runs,
        workers=given.workers,
        runs_per_engine=given.runs_per_engine,
        stall_s=given.stall_s,
    )
    for name, why in found.failed.items():
        print(f"{name} failed: {why} ({given.runs / name}.failed, {given.runs / name}/train.log)", file=sys.stderr)
    print(f"{found.made} runs made, {len(found.failed)} failed, {found.left} left")
    return FAILED if found.left else DONE


def _analyse(given: argparse.Namespace) -> int:
    from recipe.sophiavl.study.analysis import analyse

    analyse(given.results, given.out)
    return DONE


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 0 where every run is made, 1 where some are left, 2 for a wrong study, 130 after Ctrl-C."""
    given = make_parser().parse_args(arguments)
    command = {"run": _run, "analyse": _analyse}[given.command]
    return exit_status(lambda: command(given), "the same command goes on with what is missing")


if __name__ == "__main__":
    sys.exit(main())
