"""Any data set of questions and answers to verl's RL parquet, by a mapping of its columns.

    python -m data_preprocess.generic rows.jsonl --out data/mine \\
        --column question=problem --column answer=solution --column images=path --constant problem_type=numerical

The source is a .json, .jsonl, .csv, .tsv or .parquet file, a folder of such files, or a hub name (streamed). Columns
that are not mapped have the name of what they hold: question, answer, problem_type, options, images, data_source
(without one, the file's name). A constant holds for every row. A value of any of these columns may stand for another,
as in --value problem_type:mc='multiple choice' (of a list: each of its values; nothing on a side of the = is an empty
cell). --mapping FILE reads the same from YAML or JSON:

    columns: {question: problem, answer: solution, images: path}
    constants: {problem_type: numerical, data_source: mine, ability: geometry}
    values: {problem_type: {mc: multiple choice, "1": numerical}}

Images are paths under --image-root (default: the folder of the source), encoded bytes, or {bytes, path}; one or a list.
Options are a list. Where a cell can hold only text, as in CSV, write lists as JSON: ["a car", "a bus"].
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from data_preprocess.core import checks, cli
from data_preprocess.core.adapter import Adapter, Draft, FieldNames, rl_draft
from data_preprocess.core.columns import Values, cell_of, cell_text, look_over, nearest
from data_preprocess.core.errors import Fault, RowError, SourceError
from data_preprocess.core.published import image_list
from data_preprocess.core.shown import example, one_line
from data_preprocess.core.sources import SUFFIXES, HubSource, LocalSource, Source, SourceFile, files_under, suffix_of
from reward_score import PROBLEM_TYPES

COLUMNS = tuple(field.name for field in fields(FieldNames))
_NEEDED = ("question", "answer", "problem_type")
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
    """Adapter of rows whose columns and values are mapped by name; `max_prompt_chars` as in `rl_draft`."""

    names: FieldNames
    constants: Constants
    max_prompt_chars: int | None = None
    values: Values = field(default_factory=dict)

    def draft(self, fields: Mapping[str, Any], file: str) -> Draft:
        """See `Adapter.draft`."""
        names, constants = self.names, self.constants
        images = image_list(self._cell(fields, "images"))
        kind = constants.problem_type or self._cell(fields, "problem_type")
        data_source = constants.data_source or checks.text_field(self._cell(fields, "data_source"), names.data_source)
        try:
            return rl_draft(
                names,
                question=self._cell(fields, "question"),
                answer=self._cell(fields, "answer"),
                problem_type=kind,
                options=self._cell(fields, "options"),
                images=images,
                data_source=data_source or file,
                ability=constants.ability or ("vqa" if images else "text"),
                max_prompt_chars=self.max_prompt_chars,
            )
        except RowError as error:
            if error.fault is not Fault.UNKNOWN_TYPE:
                raise
            flag = shlex.quote(f"problem_type:{(cell_text(kind) or '')[:80]}=TYPE")
            raise RowError(error.fault, error.field, f"{error.reason}: map it with --value {flag}") from error

    def _cell(self, fields: Mapping[str, Any], column: str) -> Any:
        value = cell_of(fields, self.names, column)
        table = self.values.get(column, {})

        def mapped(one: Any) -> Any:
            text = cell_text(one) if table else None
            return (table[text] or None) if text in table else one

        return [mapped(one) for one in value] if isinstance(value, list) else mapped(value)


def read_mapping(
    path: Path | None, columns: Sequence[str], constants: Sequence[str], values: Sequence[str] = ()
) -> tuple[FieldNames, Constants, Values]:
    """The mapping in a file, overridden by ``NAME=VALUE`` settings, and ``FIELD:FROM=TO`` for values.

    Raises:
        SourceError: an unreadable file, or a name or a problem type that is not known.
    """
    data: Any = {}
    if path is not None:
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise SourceError(f"--mapping {path} cannot be read: {error}") from error
    if not isinstance(data, dict) or set(data) - {"columns", "constants", "values"}:
        raise SourceError(f"--mapping {path}: must hold `columns`, `constants` and `values`, nothing else")
    named = _known(data.get("columns"), COLUMNS, "column") | _known(_pairs(columns), COLUMNS, "column")
    fixed = _known(data.get("constants"), CONSTANTS, "constant") | _known(_pairs(constants), CONSTANTS, "constant")
    tables = _values(data.get("values"), values)
    for kind in filter(None, [fixed.get("problem_type"), *tables.get("problem_type", {}).values()]):
        _check_kind(kind)
    return replace(_OWN_NAMES, **named), Constants(**fixed), tables


def _pairs(settings: Sequence[str]) -> dict[str, str]:
    split = [setting.partition("=") for setting in settings]
    return {name: value for name, _, value in split}


def _known(mapping: Any, known: Sequence[str], what: str) -> dict[str, str]:
    mapping = mapping or {}
    if not isinstance(mapping, dict):
        raise SourceError(f"{what}s must be a mapping of names, not {type(mapping).__name__}")
    for name, value in mapping.items():
        if name not in known:
            near = nearest(str(name), known)
            raise SourceError(f"{what} {example(name)}: the name must be one of {', '.join(known)}{near}")
        if not isinstance(value, str) or not value:
            raise SourceError(f"{what} {name}={example(value)}: the value must be text, and not empty")
    return mapping


def _check_kind(kind: str) -> None:
    try:
        checks.problem_type_field(kind, "problem_type")
    except RowError as error:
        raise SourceError(f"problem_type: {error.reason}{nearest(kind, PROBLEM_TYPES)}") from error


def _values(mapping: Any, settings: Sequence[str]) -> Values:
    tables: dict[str, dict[str, str]] = {}
    for name, table in (mapping or {}).items() if isinstance(mapping or {}, dict) else [("", mapping)]:
        if not isinstance(table, dict) or not all(isinstance(text, str) for pair in table.items() for text in pair):
            raise SourceError(f"values {example(name)}: must be a mapping of texts to texts, numbers in quotes")
        tables[name] = {value.strip(): to for value, to in table.items()}
    for setting in settings:
        name, colon, rest = setting.partition(":")
        value, equals, to = rest.partition("=")
        if not (colon and equals):
            raise SourceError(f"--value {one_line(setting)}: must be FIELD:FROM=TO, as in problem_type:mc=numerical")
        tables.setdefault(name, {})[value.strip()] = to
    for name in tables:
        if name not in COLUMNS:
            near = nearest(str(name), COLUMNS)
            raise SourceError(f"--value {example(name)}: the field must be one of {', '.join(COLUMNS)}{near}")
    # In order: it is part of a run's identity.
    return {name: dict(sorted(tables[name].items())) for name in sorted(tables)}


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
    if suffix_of(path) in SUFFIXES or name.startswith(("/", ".", "~")):
        raise SourceError(f"{name}: no such file or folder")  # no name on the hub looks like this
    return HubSource(name, ((hub_split, None),))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = cli.parser("generic", __doc__, "file, folder or hub name")
    parser.add_argument("--mapping", type=Path, help="YAML or JSON file with `columns`, `constants` and `values`")
    parser.add_argument(
        "--column", action="append", default=[], metavar="COLUMN=NAME", help=f"one of {', '.join(COLUMNS)}"
    )
    parser.add_argument(
        "--constant", action="append", default=[], metavar="NAME=VALUE", help=f"one of {', '.join(CONSTANTS)}"
    )
    parser.add_argument(
        "--value",
        action="append",
        default=[],
        metavar="FIELD:FROM=TO",
        help="take a value for another, as problem_type:mc='multiple choice'; a field is one of the columns above",
    )
    parser.add_argument("--image-root", type=Path, help="folder of the image paths (default: that of the source)")
    parser.add_argument("--hub-split", default="train", help="the hub data set's split to read (default: train)")

    def build(args: argparse.Namespace) -> tuple[Source, MappedRows]:
        names, constants, values = read_mapping(args.mapping, args.column, args.constant, args.value)
        source = open_source(args.source, args.image_root, args.hub_split)
        if isinstance(source, LocalSource) and args.out.resolve().is_relative_to(Path(args.source).resolve()):
            raise SourceError(f"--out {args.out} is inside the source, where it would be read: choose another folder")
        needed = [name for name in _NEEDED if getattr(constants, name, None) is None]
        for told in look_over(source, names, needed, values):
            print(f"{parser.prog}: {told}", file=sys.stderr)
        return source, MappedRows(names, constants, args.max_prompt_chars, values)

    return cli.main(parser, build, argv)


if __name__ == "__main__":
    sys.exit(main())
