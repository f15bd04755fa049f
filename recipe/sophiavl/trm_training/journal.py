"""An append-only journal of a judge's results: what was paid for stays, whatever happens to the process.

A JSONL file. Its first line says what the judge was asked with; each further line is one result, written whole by one
`write` the moment it arrives, so that it outlives a process that is killed. A power cut can take the results of the
last `SYNC_S` seconds of asking (from a machine that then stands still, of the half minute that its kernel holds back).
A later line of the same pair and sample takes the place of an earlier one.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import re
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from recipe.sophiavl.validation import SettingsError, settings_group

logger = logging.getLogger(__name__)

FORMAT = "sophiavl judge results 1"
SYNC_S = 5.0
"""Seconds after which a new result brings all before it to the disk."""
_HEADER_START = b'{"journal": '


class JournalError(ValueError):
    """A journal that cannot be used; the message names it and says what to change."""


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
        self._synced = 0.0
        file.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            self._lock()
            self._size = self._read(asked_with)
            if not self._size:
                self._append(json.dumps({"journal": FORMAT, "asked_with": dict(asked_with)}))
            self._sync()
        except BaseException:
            os.close(self._fd)
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
        try:
            self._sync()
        finally:
            os.close(self._fd)  # this unlocks it

    def find(self, pair_id: str, sample: int) -> Known | None:
        """The result of this sample; None where there is none yet."""
        return self._known.get((pair_id, sample))

    def reply(self, known: Known) -> str | None:
        """The judge's text of a result, from the file."""
        reply: str | None = json.loads(os.pread(self._fd, known.size, known.offset))["reply"]
        return reply

    def add(self, result: Result) -> None:
        """Write down a result.

        Raises:
            OSError: it cannot be written, for instance on a full disk; the journal is then as it was before.
        """
        offset, size = self._append(json.dumps(asdict(result)))
        self._known[result.pair_id, result.sample] = Known(result.score, result.error, offset, size)
        if time.monotonic() - self._synced >= SYNC_S:
            self._sync()

    def _append(self, text: str) -> tuple[int, int]:
        line = text.encode("ascii") + b"\n"
        try:
            written = os.write(self._fd, line)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.file)) from error
        if written != len(line):
            os.ftruncate(self._fd, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.file))
        offset, self._size = self._size, self._size + written
        return offset, written

    def _sync(self) -> None:
        os.fsync(self._fd)
        self._synced = time.monotonic()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise JournalError(
                f"{self.file}: another process is writing this journal; let it end, or write to another --out"
            ) from error
        except OSError as error:
            raise JournalError(
                f"{self.file}: cannot be locked ({error.strerror}); write to --out on a file system that has locks"
            ) from error

    def _read(self, asked_with: Mapping[str, Any]) -> int:
        """Read all lines, cut off a torn last one; return the size in bytes, 0 where not even the header is there."""
        end = damaged = 0
        changed: list[str] = []
        with os.fdopen(self._fd, "rb", closefd=False) as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    if number == 1 and not (line.startswith(_HEADER_START) or _HEADER_START.startswith(line)):
                        raise self._broken(1, "no journal of judge results")
                    os.ftruncate(self._fd, end)
                    break
                if number == 1:
                    changed = self._compare_header(line, asked_with)
                elif not self._take(number, line, end):
                    damaged += 1
                end += len(line)
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
            os.ftruncate(self._fd, 0)
            return 0
        return end

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
