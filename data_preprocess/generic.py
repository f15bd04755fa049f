"""Any data set of questions and answers to verl's RL parquet, by a mapping of its columns.

    python -m data_preprocess.generic rows.jsonl --out data/mine \\
        --column question=problem --column answer=solution --column images=path --constant problem_type=numerical

The source is a .json, .jsonl, .csv, .tsv or .parquet file, a folder of such files, or a hub name (streamed). Columns
that are not mapped have the name of what they hold: question, answer, problem_type, options, images, data_source
(without one, the file's name). A constant holds for every row. --mapping FILE reads the same from YAML or JSON:

    columns: {question: problem, answer: solution, images: path}
    constants: {problem_type: numerical, data_source: mine, ability: geometry}

Images are paths under --image-root (default: the folder of the source), encoded bytes, or {bytes, path}; one or a list.
Options are a list. Where a cell can hold only text, as in CSV, write lists as JSON: ["a car", "a bus"].
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from data_preprocess.core import checks, cli
from data_preprocess.core.adapter import Adapter, Draft, FieldNames, rl_draft
from data_preprocess.core.errors import SourceError
from data_preprocess.core.published import image_list
from data_preprocess.core.sources import SUFFIXES, HubSource, LocalSource, Source, SourceFile, files_under, suffix_of

COLUMNS = tuple(field.name for field in fields(FieldNames))
# Rows of a JSON file need not all have the same fields.
_LOOK_AT = 1000
_OWN_NAMES = FieldNames(**{name: name for name in COLUMNS})


@dataclass(frozen=True)
class Constants:
    """Values that hold for every row; None leaves it to the row's own column."""

    problem_type: str | None = None
    data_source: str | None = None
    ability: str | None = None


CONSTANTS = tuple(field.name for field in fields(Constants))


@dataclass(frozen=True)
class MappedRows(Adapter):
    """Adapter of rows whose columns are mapped by name; `max_prompt_chars` as in `rl_draft`."""

    names: FieldNames
    constants: Constants
    max_prompt_chars: int | None = None

    def draft(self, fields: Mapping[str, Any], file: str) -> Draft:
        """See `Adapter.draft`."""
        names, constants = self.names, self.constants
        images = image_list(_listed(fields.get(names.images)))
        return rl_draft(
            names,
            question=fields.get(names.question),
            answer=fields.get(names.answer),
            problem_type=constants.problem_type or fields.get(names.problem_type),
            options=_listed(fields.get(names.options)),
            images=images,
            data_source=constants.data_source
            or checks.text_field(fields.get(names.data_source), names.data_source)
            or file,
            ability=constants.ability or ("vqa" if images else "text"),
            max_prompt_chars=self.max_prompt_chars,
        )


def _listed(value: Any) -> Any:
    """The list that a text writes as JSON; any other value as it is."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            return value  # its check says what is wrong with it
    return value


def read_mapping(path: Path | None, columns: Sequence[str], constants: Sequence[str]) -> tuple[FieldNames, Constants]:
    """The mapping in a file, overridden by ``NAME=VALUE`` settings.

    Raises:
        SourceError: an unreadable file, or a name that is not known.
    """
    data: Any = {}
    if path is not None:
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise SourceError(f"--mapping {path} cannot be read: {error}") from error
    if not isinstance(data, dict) or set(data) - {"columns", "constants"}:
        raise SourceError(f"--mapping {path}: must hold `columns` and `constants`, nothing else")
    named = _known(data.get("columns"), COLUMNS, "column") | _known(_pairs(columns), COLUMNS, "column")
    fixed = _known(data.get("constants"), CONSTANTS, "constant") | _known(_pairs(constants), CONSTANTS, "constant")
    return replace(_OWN_NAMES, **named), Constants(**fixed)


def _pairs(settings: Sequence[str]) -> dict[str, str]:
    split = [setting.partition("=") for setting in settings]
    return {name: value for name, _, value in split}


def _known(mapping: Any, known: Sequence[str], what: str) -> dict[str, str]:
    mapping = mapping or {}
    if not isinstance(mapping, dict):
        raise SourceError(f"{what}s must be a mapping of names, not {type(mapping).__name__}")
    for name, value in mapping.items():
        if name not in known or not isinstance(value, str) or not value:
            raise SourceError(f"{what} {name!r}={value!r}: the name must be one of {', '.join(known)}, the value text")
    return mapping


def check_names(source: Source, names: FieldNames) -> None:
    """Compare the names that the user gave with what the first rows have.

    A row may lack its images or options, so a slip in their names would only turn every row into a text-only one.

    Raises:
        SourceError: a name that no row has; the message lists those that there are.
    """
    absent = {column: name for column, name in asdict(names).items() if name != column}
    there: dict[str, None] = {}
    looked_at = 0
    for row in islice(source.rows(), _LOOK_AT):
        absent = {column: name for column, name in absent.items() if name not in (row.fields or {})}
        if not absent:
            return
        there |= dict.fromkeys(row.fields or {})
        looked_at += 1
    if absent and there:
        column, name = next(iter(absent.items()))
        raise SourceError(
            f"{column}={name}: no such column in the first {looked_at} rows, which have {', '.join(map(repr, there))}"
        )


def open_source(name: str, image_root: Path | None, hub_split: str) -> Source:
    """A file, a folder of files (searched to any depth), or a data set on the hub.

    Raises:
        SourceError: a local path of the wrong kind, an empty folder, or no folder at `image_root`.
    """
    path = Path(name).expanduser()
    if image_root is not None and not image_root.is_dir():
        raise SourceError(f"--image-root {image_root}: no such folder")
    if path.is_file():
        if suffix_of(path) not in SUFFIXES:
            raise SourceError(f"{path}: not one of {', '.join(SUFFIXES)}")
        return LocalSource(path.parent, (SourceFile(path),), image_root or path.parent)
    if path.is_dir():
        return LocalSource(path, tuple(map(SourceFile, files_under(path, ["**/*"]))), image_root or path)
    return HubSource(name, ((hub_split, None),))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = cli.parser(__doc__, "file, folder or hub name")
    parser.add_argument("--mapping", type=Path, help="YAML or JSON file with `columns` and `constants`")
    parser.add_argument(
        "--column", action="append", default=[], metavar="COLUMN=NAME", help=f"one of {', '.join(COLUMNS)}"
    )
    parser.add_argument(
        "--constant", action="append", default=[], metavar="NAME=VALUE", help=f"one of {', '.join(CONSTANTS)}"
    )
    parser.add_argument("--image-root", type=Path, help="folder of the image paths (default: that of the source)")
    parser.add_argument("--hub-split", default="train", help="the hub data set's split to read (default: train)")

    def build(args: argparse.Namespace) -> tuple[Source, MappedRows]:
        names, constants = read_mapping(args.mapping, args.column, args.constant)
        source = open_source(args.source, args.image_root, args.hub_split)
        if isinstance(source, LocalSource) and args.out.resolve().is_relative_to(Path(args.source).resolve()):
            raise SourceError(f"--out {args.out} is inside the source, where it would be read: choose another folder")
        check_names(source, names)
        return source, MappedRows(names, constants, args.max_prompt_chars)

    return cli.main(parser, build, argv)


if __name__ == "__main__":
    sys.exit(main())
