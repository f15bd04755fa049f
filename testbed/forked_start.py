"""Starts of the recipe's entry point that are over at once: forks of a process that has loaded it, not new ones."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

_MODULE = "recipe.sophiavl.main_sophiavl"


def run_forked(arguments: Sequence[str], cwd: Path, output: Path, timeout_s: float) -> int:
    """What ``python -m recipe.sophiavl.main_sophiavl`` would do, without the eight seconds of its imports.

    Args:
        output: takes what it prints.

    Returns:
        The exit code.

    Raises:
        TimeoutError: it did not end in time, and was killed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_MODULE, "verl.trainer.main_ppo", "transformers.models.auto"])  # by the first call
    process = context.Process(target=_main, args=(list(arguments), str(cwd), str(output)))
    process.start()
    process.join(timeout_s)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise TimeoutError(f"no end after {timeout_s:g} s; what it printed is in {output}")
    return process.exitcode


def _main(arguments: list[str], cwd: str, output: str) -> None:
    os.chdir(cwd)
    os.environ["HF_HUB_OFFLINE"] = "1"
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    sys.argv = [_MODULE, *arguments]
    runpy.run_module(_MODULE, run_name="__main__", alter_sys=True)
