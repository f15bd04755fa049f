"""Geometry3K (hiyouga/geometry3k) to verl's RL parquet.

    python -m data_preprocess.geometry3k FOLDER --out data/geometry3k

FOLDER holds the published files data/{train,validation,test}-*.parquet with the columns images, problem and answer; a
hub name (hiyouga/geometry3k) is streamed. The published sides are kept, validation under the name val; --val-fraction
takes more validation rows out of train.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from data_preprocess.core import checks, cli
from data_preprocess.core.adapter import FieldNames
from data_preprocess.core.errors import SourceError
from data_preprocess.core.sources import HubSource, LocalSource, Source, SourceFile, files_under
from data_preprocess.core.splits import VAL
from data_preprocess.generic import Constants, MappedRows

# None: the rows are train, less what --val-fraction takes.
_SIDES: dict[str, str | None] = {"train": None, "validation": VAL, "test": "test"}
# The problem asks for a value; the newer files' choices are not shown to the model.
_NAMES = FieldNames(question="problem", answer="answer", images="images", options="", problem_type="", data_source="")
_CONSTANTS = Constants(problem_type=checks.NUMERICAL, data_source="hiyouga/geometry3k", ability="geometry")


def open_source(name: str) -> Source:
    """The published files in a folder, or the data set of that name on the hub.

    Raises:
        SourceError: a folder without the published files.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return HubSource(name, tuple(_SIDES.items()))
    files = []
    for split, side in _SIDES.items():
        files += [SourceFile(path, side) for path in files_under(folder, [f"data/{split}-*", f"{split}-*"])]
    if not files:
        raise SourceError(f"{folder}: no data/train-*.parquet in it")
    return LocalSource(folder, tuple(files), folder)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""

    def build(args: argparse.Namespace) -> tuple[Source, MappedRows]:
        return open_source(args.source), MappedRows(_NAMES, _CONSTANTS, args.max_prompt_chars)

    return cli.main(cli.parser("geometry3k", __doc__, "folder of the published files, or a hub name"), build, argv)


if __name__ == "__main__":
    sys.exit(main())
