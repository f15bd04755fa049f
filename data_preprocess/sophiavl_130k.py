"""SophiaVL-R1-130k to verl's RL parquet.

    python -m data_preprocess.sophiavl_130k FOLDER --out data/sophiavl_130k --val-fraction 0.01

FOLDER is the published data set, downloaded whole:

    hf download bunny127/SophiaVL-R1-130k --repo-type dataset --local-dir FOLDER

It holds JSON files (in json/, or beside or in the five folders) and the image folders Chart, General, Knowledge, Math
and OCR. Image paths are relative to FOLDER, or to the JSON file's own folder. A hub name in place of FOLDER is
downloaded beside the output first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from data_preprocess.core import checks, cli
from data_preprocess.core.adapter import Adapter, Draft, FieldNames, rl_draft
from data_preprocess.core.images import ImageRef
from data_preprocess.core.published import CATEGORIES, images_of, published_source
from data_preprocess.core.sources import LocalSource

_NAMES = FieldNames()


@dataclass(frozen=True)
class Sophia130k(Adapter):
    """Adapter of the published rows; `max_prompt_chars` as in `rl_draft`."""

    images_beside_file = True
    max_prompt_chars: int | None = None

    def draft(self, fields: Mapping[str, Any], file: str) -> Draft:
        """See `Adapter.draft`."""
        images = images_of(fields, _NAMES.images)
        return rl_draft(
            _NAMES,
            question=fields.get(_NAMES.question),
            answer=fields.get(_NAMES.answer),
            problem_type=fields.get(_NAMES.problem_type),
            options=fields.get(_NAMES.options),
            images=images,
            data_source=checks.text_field(fields.get(_NAMES.data_source), _NAMES.data_source) or "SophiaVL-R1-130k",
            ability=category_of(images, file) or ("vqa" if images else "text"),
            max_prompt_chars=self.max_prompt_chars,
        )


def category_of(images: Sequence[ImageRef], file: str) -> str | None:
    """The one of the five folders that the first image lies in, else the one that the JSON file is named after."""
    if images and isinstance(images[0], str):
        top = PurePosixPath(images[0]).parts[:1]
        if top and top[0] in CATEGORIES:
            return top[0]
    return next((name for name in CATEGORIES if name.casefold() in file.casefold()), None)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""

    def build(args: argparse.Namespace) -> tuple[LocalSource, Sophia130k]:
        return published_source(args.source, args.out), Sophia130k(args.max_prompt_chars)

    return cli.main(
        cli.parser("sophiavl_130k", __doc__, "folder of the published data set, or its hub name"), build, argv
    )


if __name__ == "__main__":
    sys.exit(main())
