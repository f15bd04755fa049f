"""Where rows come from: JSON, JSON Lines, CSV and parquet files, or a data set on the Hugging Face hub.

Every source is read as a stream in an order that does not depend on the machine. Several files are read in turns, so
that any beginning of the stream (``--limit``) is a mixture of them.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

import ijson
import pyarrow.parquet as pq

from data_preprocess.core.errors import SourceError
from data_preprocess.core.parquet import read_rows

JSON_SUFFIXES = (".json", ".jsonl")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*JSON_SUFFIXES, *_DELIMITERS, ".parquet")
_MAX_CELL_CHARS = 2**24


class RawRow(NamedTuple):
    """A row as the source has it.

    Attributes:
        file: the file it came from, relative to the source's root; for a hub data set its name.
        row: position in that file, from 0.
        split: side fixed by the source; None if the row is ours to assign.
        fields: the row; None if it is no JSON object.
        error: why `fields` is None.
    """

    file: str
    row: int
    split: str | None
    fields: dict[str, Any] | None
    error: str | None = None


class SourceFile(NamedTuple):
    """A file of a source and the side that its rows belong to, if the source fixes it."""

    path: Path
    split: str | None = None


class Source(Protocol):
    """A stream of rows that can be read again from the start, with the same rows in the same order."""

    @property
    def image_root(self) -> Path | None:
        """Folder of image paths; None if images are embedded."""

    def rows(self) -> Iterator[RawRow]:
        """The rows, from the first.

        Raises:
            SourceError: the source is broken in a way that no single row can answer for.
        """

    def identity(self) -> Any:
        """JSON-able value that changes when the source does."""

    def total_rows(self) -> int | None:
        """Number of rows, if it is known without reading them."""


@dataclass(frozen=True)
class LocalSource:
    """Files on disk.

    Attributes:
        root: folder that file names are shown relative to.
        files: the files, read in turns.
        image_root: no image path may leave this folder.
    """

    root: Path
    files: tuple[SourceFile, ...]
    image_root: Path

    def __post_init__(self) -> None:
        if not self.files:
            raise SourceError(f"{self.root}: no {', '.join(SUFFIXES)} files to read")

    def rows(self) -> Iterator[RawRow]:
        """See `Source.rows`."""
        return in_turns(self._rows_of(file) for file in self.files)

    def identity(self) -> Any:
        """Names, sizes and times of the files, and where images are; a changed image alone goes unseen."""
        stats = [(file, file.path.stat()) for file in self.files]
        return {
            "root": str(self.root.resolve()),
            "image_root": str(self.image_root.resolve()),
            "files": [[self._name(file.path), file.split, stat.st_size, stat.st_mtime_ns] for file, stat in stats],
        }

    def total_rows(self) -> int | None:
        """Known from the footers if all files are parquet."""
        if any(file.path.suffix != ".parquet" for file in self.files):
            return None
        return sum(pq.read_metadata(file.path).num_rows for file in self.files)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _rows_of(self, file: SourceFile) -> Iterator[RawRow]:
        name = self._name(file.path)
        for row, (fields, error) in enumerate(read_file(file.path)):
            yield RawRow(name, row, file.split, fields, error)


@dataclass(frozen=True)
class HubSource:
    """A data set on the Hugging Face hub, streamed.

    Attributes:
        name: ``owner/name``.
        splits: the hub's splits to read, each with the side it fixes (None: ours to assign).
        config: the data set's configuration; None for the default.
    """

    name: str
    splits: tuple[tuple[str, str | None], ...]
    config: str | None = None

    @property
    def image_root(self) -> Path | None:
        """Hub rows embed their images."""
        return None

    def rows(self) -> Iterator[RawRow]:
        """See `Source.rows`."""
        return in_turns(self._rows_of(split, side) for split, side in self.splits)

    def identity(self) -> Any:
        """The name; a new revision on the hub goes unseen."""
        return [self.name, self.config, [list(pair) for pair in self.splits]]

    def total_rows(self) -> int | None:
        """Unknown before the stream ends."""
        return None

    def _rows_of(self, split: str, side: str | None) -> Iterator[RawRow]:
        # Imported here: workers and local runs need not pay for it.
        from datasets import load_dataset
        from datasets.exceptions import DatasetNotFoundError

        try:
            stream = load_dataset(self.name, self.config, split=split, streaming=True)
        except (DatasetNotFoundError, ConnectionError, FileNotFoundError, ValueError) as error:
            raise SourceError(f"{self.name!r} is no local path, and the hub does not give it: {error}") from error
        # Images stay the bytes that they are.
        for row, fields in enumerate(stream.decode(False)):
            yield RawRow(f"{self.name}:{split}", row, side, dict(fields))


def in_turns(streams: Iterable[Iterator[RawRow]]) -> Iterator[RawRow]:
    """One row of each stream in turn, until all have ended."""
    waiting = deque(streams)
    while waiting:
        stream = waiting.popleft()
        for row in stream:
            yield row
            waiting.append(stream)
            break


def read_file(path: Path) -> Iterator[tuple[dict[str, Any] | None, str | None]]:
    """Rows of a file as (row, None), or (None, reason) for a row that is no JSON object or does not fit its table.

    Raises:
        SourceError: not a file of a known kind, or broken so that the rows after the fault cannot be found.
    """
    if path.suffix == ".parquet":
        return ((row, None) for row in read_rows(path))
    if path.suffix == ".jsonl" or (path.suffix == ".json" and not _is_json_array(path)):
        return _read_lines(path)
    if path.suffix == ".json":
        return _read_array(path)
    if path.suffix in _DELIMITERS:
        return _read_table(path, _DELIMITERS[path.suffix])
    raise SourceError(f"{path}: not one of {', '.join(SUFFIXES)}")


def _open_json(path: Path) -> BinaryIO:
    """The file, after the mark that some editors put before UTF-8."""
    file = path.open("rb")
    if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
        file.seek(0)
    return file


def _is_json_array(path: Path) -> bool:
    with _open_json(path) as file:
        while chunk := file.read(4096):
            if text := chunk.strip():
                return text.startswith(b"[")
    raise SourceError(f"{path}: the file is empty")


def _read_array(path: Path) -> Iterator[tuple[dict[str, Any] | None, str | None]]:
    with _open_json(path) as file:
        try:
            for row in ijson.items(file, "item", use_float=True):
                yield _as_object(row)
        except ijson.JSONError as error:
            raise SourceError(f"{path}: broken JSON before byte {file.tell()}: {error}") from error


def _read_lines(path: Path) -> Iterator[tuple[dict[str, Any] | None, str | None]]:
    with _open_json(path) as file:
        for line in file:
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:  # broken JSON, not UTF-8, or nested without end
                yield None, f"not JSON: {error}"
            else:
                yield _as_object(row)


def _read_table(path: Path, delimiter: str) -> Iterator[tuple[dict[str, Any] | None, str | None]]:
    """Rows under a header line, every cell as text; an empty cell is None."""
    csv.field_size_limit(_MAX_CELL_CHARS)
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            header = next(lines, [])
            if not header or len(set(header)) < len(header):
                raise SourceError(f"{path}: the first line must name the columns, each with a name of its own")
            for cells in filter(None, lines):
                if len(cells) == len(header):
                    yield {name: cell or None for name, cell in zip(header, cells, strict=True)}, None
                else:
                    yield None, f"has {len(cells)} cells, the header has {len(header)}"
        except (csv.Error, UnicodeDecodeError) as error:
            raise SourceError(f"{path}: broken after line {lines.line_num}: {error}") from error


def _as_object(row: Any) -> tuple[dict[str, Any] | None, str | None]:
    return (row, None) if isinstance(row, dict) else (None, f"a row must be an object, not {type(row).__name__}")


def files_under(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """Files of known kinds that match any of the glob `patterns` in `folder`, sorted, each once."""
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    return sorted(path for path in found if path.is_file() and path.suffix in SUFFIXES)
