"""Puts the bare answer in the place of each prediction of VLMEvalKit, whose exact matching does not know ``<answer>``.

    python -m examples.benchmarks.bare_answers outputs/benchmarks/vlmevalkit

For all ``.tsv`` predictions below the folder; the whole response stays, in the column ``response``. A response without
the tags is left as it is. Run again, it changes nothing.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from data_preprocess.core.files import replacing

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def bare(response: str) -> str:
    """The text of the last ``<answer>``; the response itself where it has none."""
    found = _ANSWER.findall(response)
    return found[-1].strip() if found else response


def rewrite(file: Path) -> int:
    """Rewrite one file of predictions; returns how many changed.

    Raises:
        ValueError, OSError: it is no table, or cannot be written.
    """
    table = pd.read_csv(file, sep="\t", dtype=str, keep_default_na=False)
    if "prediction" not in table or "response" in table:
        return 0
    table["response"] = table["prediction"]
    table["prediction"] = table["response"].map(bare)
    with replacing(file) as path:
        table.to_csv(path, sep="\t", index=False, quoting=csv.QUOTE_ALL)
    return int((table["prediction"] != table["response"]).sum())


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="VLMEvalKit's --work-dir")
    folder = parser.parse_args(argv).folder
    files = sorted(folder.rglob("*.tsv"))
    if not files:
        print(f"bare_answers: {folder}: no .tsv predictions; run VLMEvalKit with PRED_FORMAT=tsv", file=sys.stderr)
        return 1
    for file in files:
        try:
            print(f"{file}: {rewrite(file)} answers")
        except (ValueError, OSError) as error:
            print(f"bare_answers: {file}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
