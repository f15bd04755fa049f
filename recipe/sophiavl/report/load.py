"""Reads run folders into what the report shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recipe.sophiavl.report.run_data import Bounds, Comparison, RunData


def load_run(run_dir: Path, *, bounds: Bounds | None = None, seed: int = 0) -> RunData:
    """What there is to show of a run, whether it has ended, goes on, was killed, or is damaged.

    The dumps are read once, a line at a time: memory grows with the number of steps, not with that of responses.

    Args:
        bounds: how much the sample holds at most; None: `Bounds()`.
        seed: of the samples and of the intervals.

    Raises:
        NotADirectoryError: there is no such folder.
    """
    raise NotImplementedError


def load_runs(run_dirs: Sequence[Path], *, bounds: Bounds | None = None, seed: int = 0) -> Comparison:
    """Several runs, overlaid. Arguments as for `load_run`; the gallery's groups are shared among the runs."""
    raise NotImplementedError
