"""An append-only journal of a judge's results: what was paid for stays, whatever happens to the process.

A JSONL file (see `line_file`). Its first line says what the judge was asked with; each further line is one result. A
later line of the same pair and sample takes the place of an earlier one.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from recipe.sophiavl.trm_training.line_file import JournalError, LineFile
from recipe.sophiavl.validation import SettingsError, settings_group

logger = logging.getLogger(__name__)

FORMAT = "sophiavl judge results 1"
_HEADER_START = b'{"journal": '


@settings_group("result")
class Result:
    """What a judge made of one pair.

    Attributes:
        pair_id: the pair, as in `PAIR_SCHEMA`.
        sample: number of the sample, from 0.
        score: in [0, 1]; None where the judge's reply held none.
        error: why there is no score; None where there is one.
        reply: the judge's text; None where there was none.
        latency_s: seconds that the judge took.

    Raises:
        SettingsError: a value that is not possible.
    """

    pair_id: Annotated[str, Field(min_length=1)]
    sample: Annotated[int, Field(ge=0)]
    score: Annotated[float, Field(ge=0, le=1)] | None
    error: str | None
    reply: str | None
    latency_s: float

    def __post_init__(self) -> None:
        if (self.score is None) == (self.error is None):
            raise SettingsError(
                f"result.error={self.error!r} with result.score={self.score!r}: one of them must be null"
            )


class Known(NamedTuple):
    """A result as it is held in memory: without its reply, but with the place of its line in the file, in bytes."""

    score: float | None
    error: str | None
    offset: int
    size: int


class Journal:
    """The journal in `file`, made where it is missing, and locked until it is closed.

    Lines that a crash of the file system has overwritten with null bytes are passed over: their pairs are asked again.

    Args:
        file: the JSONL file.
        asked_with: what the judge is asked with, as JSON values; a journal holds the results of one such setting.

    Raises:
        JournalError: another process has it open, its results were asked for otherwise, or a line is broken. A last
            line without its end is no error but a write that was cut short, and goes.
        OSError: the file cannot be opened or written.
    """

    def __init__(self, file: Path, asked_with: Mapping[str, Any]) -> None:
        self.file = file
        self._known: dict[tuple[str, int], Known] = {}
        self._lines = LineFile(file)
        try:
            if not self._read(asked_with):
                self._lines.append(json.dumps({"journal": FORMAT, "asked_with": dict(asked_with)}))
        except BaseException:
            self._lines.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """Number of results."""
        return len(self._known)

    def close(self) -> None:
        """Bring everything to the disk, and let other processes have the journal."""
        self._lines.close()

    def find(self, pair_id: str, sample: int) -> Known | None:
        """The result of this sample; None where there is none yet."""
        return self._known.get((pair_id, sample))

    def reply(self, known: Known) -> str | None:
        """The judge's text of a result, from the file."""
        reply: str | None = json.loads(self._lines.read(known.offset, known.size))["reply"]
        return reply

    def add(self, result: Result) -> None:
        """Write down a result.

        Raises:
            OSError: it cannot be written, for instance on a full disk; the journal is then as it was before.
        """
        offset, size = self._lines.append(json.dumps(asdict(result)))
        self._known[result.pair_id, result.sample] = Known(result.score, result.error, offset, size)

    def _read(self, asked_with: Mapping[str, Any]) -> bool:
        """Read all lines, cut off a torn last one; return whether the header is there."""
        damaged = 0
        changed: list[str] = []
        for number, (start, line) in enumerate(self._lines.lines(), 1):
            if not line.endswith(b"\n"):
                if number == 1 and not (line.startswith(_HEADER_START) or _HEADER_START.startswith(line)):
                    raise self._broken(1, "no journal of judge results")
                self._lines.cut(start)
            elif number == 1:
                changed = self._compare_header(line, asked_with)
            elif not self._take(number, line, start):
                damaged += 1
        if damaged:
            logger.warning(
                "%s: %d lines are damaged by null bytes, as a crash of the file system leaves them; results that stood "
                "there are asked for again",
                self.file,
                damaged,
            )
        if changed and self._known:
            raise JournalError(
                f"{self.file}: its judge was asked otherwise: {'; '.join(changed)}. Scores of two judges must not be "
                "mixed: set the old values again, or write to another --out"
            )
        if changed:  # the old setting never got a result
            self._lines.cut(0)
        return self._lines.size > 0

    def _take(self, number: int, line: bytes, start: int) -> bool:
        """Remember the result on a line that begins at `start`; False where null bytes have overwritten a part of it.

        What is whole before, between and after them is a result too: they may have taken no more than a line's end.
        """
        for part in re.finditer(rb"[^\0]+", line):
            try:
                result = Result(**json.loads(part[0]))
            except (ValueError, TypeError, RecursionError) as error:
                if b"\0" in line:
                    continue
                raise self._broken(number, str(error)) from error
            known = Known(result.score, result.error, start + part.start(), len(part[0]))
            self._known[result.pair_id, result.sample] = known
        return b"\0" not in line

    def _compare_header(self, line: bytes, asked_with: Mapping[str, Any]) -> list[str]:
        """What is asked otherwise now."""
        try:
            header = json.loads(line)
            before = header["asked_with"]
            if header["journal"] != FORMAT or not isinstance(before, dict):
                raise ValueError(f"its format is not {FORMAT!r}")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise JournalError(f"{self.file}, line 1: no journal of judge results ({error})") from error
        return [
            f"{name} was {before[name]!r}, is {asked_with.get(name)!r}"
            if name in before
            else f"{name} was not written down (add it to the first line if you know it), is {asked_with[name]!r}"
            for name in sorted(before.keys() | asked_with.keys())
            if name not in before or before[name] != asked_with.get(name)
        ]

    def _broken(self, number: int, what: str) -> JournalError:
        return JournalError(
            f"{self.file}, line {number}: {what}. Repair this line, or remove it and its pair is asked again"
        )
