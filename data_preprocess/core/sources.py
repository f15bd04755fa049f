"""Where rows come from: JSON, JSON Lines, CSV and parquet files, or a data set on the Hugging Face hub.

Every source is read as a stream in an order that does not depend on the machine. Several files are read in turns, so
that any beginning of the stream (``--limit``) is a mixture of them.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow.parquet as pq

from data_preprocess.core.errors import SourceError
from data_preprocess.core.parquet import read_rows
from data_preprocess.core.shown import example

JSON_SUFFIXES = (".json", ".jsonl")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*JSON_SUFFIXES, *_DELIMITERS, ".parquet")
_PIECE_CHARS = 2**14
# A longer cell or row is taken for a quote or bracket that was never closed.
_MAX_CELL_CHARS = 2**24
_MAX_ROW_CHARS = 2**26
_SEPARATOR = re.compile(r"\s*([],])")
_SPACE = re.compile(r"\s*")


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
        if any(suffix_of(file.path) != ".parquet" for file in self.files):
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


def suffix_of(path: Path) -> str:
    """The ending that tells the kind of a file, in small letters."""
    return path.suffix.lower()


def read_file(path: Path) -> Iterator[tuple[dict[str, Any] | None, str | None]]:
    """Rows of a file as (row, None), or (None, reason) for a row that is no JSON object or does not fit its table.

    Raises:
        SourceError: not a file of a known kind, or broken so that the rows after the fault cannot be found.
    """
    suffix = suffix_of(path)
    if suffix == ".parquet":
        return ((row, None) for row in read_rows(path))
    if suffix in JSON_SUFFIXES:
        return _read_array(path) if suffix == ".json" and _is_json_array(path) else _read_lines(path)
    if suffix in _DELIMITERS:
        return _read_table(path, _DELIMITERS[suffix])
    raise SourceError(f"{path}: not one of {', '.join(SUFFIXES)}")


def _is_json_array(path: Path) -> bool:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        while piece := file.read(_PIECE_CHARS):
            if text := piece.strip():
                return text.startswith("[")
    raise SourceError(f"{path}: the file is empty")


def _read_array(path: Path) -> Iterator[tuple[dict[str, Any] | None, str | None]]:
    """Rows as Python's json reads them, with NaN and integers of any size; a piece of the text in memory at a time."""
    decoder = json.JSONDecoder()
    with path.open(encoding="utf-8-sig") as file:
        try:
            while not (text := file.read(_PIECE_CHARS)).strip():
                pass
            place, before, ended = text.index("[") + 1, 0, False
            read = 0
            while not ended:
                place = _SPACE.match(text, place).end()
                fault, separator = "no comma or ] after a row", None
                try:
                    row, end = decoder.raw_decode(text, place)
                    separator = _SEPARATOR.match(text, end)
                except json.JSONDecodeError as error:  # perhaps only cut off by the end of the piece
                    fault = error.msg
                if separator is not None:
                    yield _as_object(row)
                    place, ended, read = separator.end(), separator[1] == "]", read + 1
                elif read == 0 and text.startswith("]", place):
                    place, ended = place + 1, True
                else:
                    left = len(text) - place
                    more = file.read(max(_PIECE_CHARS, left)) if left < _MAX_ROW_CHARS else ""
                    if not more:
                        raise SourceError(f"{path}: broken JSON in row {read}, at character {before + place}: {fault}")
                    text, place, before = text[place:] + more, 0, before + place
            if (text[place:] + file.read(_PIECE_CHARS)).strip():
                raise SourceError(f"{path}: broken JSON: something follows the array")
        except (UnicodeDecodeError, RecursionError) as error:  # not UTF-8, or nested without end
            raise SourceError(f"{path}: broken JSON: {error}") from error


def _read_lines(path: Path) -> Iterator[tuple[dict[str, Any] | None, str | None]]:
    with path.open("rb") as file:
        for number, line in enumerate(file):
            try:
                if text := line.decode("utf-8-sig").strip():
                    yield _as_object(json.loads(text))
            except json.JSONDecodeError as error:
                if number == 0 and error.pos >= len(text):
                    raise SourceError(
                        f"{path}: its first line is the beginning of JSON that goes on: write one row a line, or a "
                        "list of rows, [{...}, {...}]"
                    ) from error
                yield None, f"not JSON: {error}"
            except (ValueError, RecursionError) as error:  # not UTF-8, a number without end, or nested without end
                yield None, f"not JSON: {error}"


def _read_table(path: Path, delimiter: str) -> Iterator[tuple[dict[str, Any] | None, str | None]]:
    """Rows under a header line, every cell as text; an empty cell is None.

    A quote that is never closed, or closed in the middle of a cell, makes one bad row of the line that it opens on.
    """
    csv.field_size_limit(_MAX_CELL_CHARS)
    with path.open(encoding="utf-8-sig", newline="") as file:
        waiting: deque[str] = deque()
        taken: list[str] = []

        def lines() -> Iterator[str]:
            while line := waiting.popleft() if waiting else file.readline():
                taken.append(line)
                yield line

        try:
            header = next(csv.reader(lines(), delimiter=delimiter, strict=True), [])
            if not header or len(set(header)) < len(header):
                twice = ", ".join(example(name) for name, count in Counter(header).items() if count > 1)
                what = f"each with a name of its own, not two with {twice}" if twice else "and the file is empty"
                raise SourceError(f"{path}: the first line must name the columns, {what}")
            rows = csv.reader(lines(), delimiter=delimiter, strict=True)
            while True:
                taken.clear()
                try:
                    cells = next(rows, None)
                except csv.Error as error:
                    yield None, f"badly quoted: {error}: {taken[0][:80]!r}"
                    waiting.extendleft(reversed(taken[1:]))
                    rows = csv.reader(lines(), delimiter=delimiter, strict=True)
                    continue
                if cells is None:
                    return
                if len(cells) == len(header):
                    yield {name: cell or None for name, cell in zip(header, cells, strict=True)}, None
                elif cells:
                    yield None, f"has {len(cells)} cells, the header has {len(header)}"
        except (csv.Error, UnicodeDecodeError) as error:
            raise SourceError(f"{path}: cannot be read as text in UTF-8 with a header: {error}") from error


def _as_object(row: Any) -> tuple[dict[str, Any] | None, str | None]:
    return (row, None) if isinstance(row, dict) else (None, f"a row must be an object, not {type(row).__name__}")


def files_under(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """Files of known kinds that match any of the glob `patterns` in `folder`, sorted, each once."""
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    return sorted(path for path in found if path.is_file() and suffix_of(path) in SUFFIXES)
