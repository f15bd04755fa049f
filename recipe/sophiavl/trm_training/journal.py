"""An append-only journal of a judge's results: what was paid for stays, whatever happens to the process.

A JSONL file. Its first line says what the judge was asked with; each further line is one result, written whole by one
`write` the moment it arrives, so that it outlives a process that is killed. A machine that loses power may lose the
last seconds. A later line of the same pair and sample takes the place of an earlier one.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

FORMAT = "sophiavl judge results 1"
_HEADER_START = b'{"journal": '


class JournalError(ValueError):
    """A journal that cannot be used; the message names it and says what to change."""


@dataclass(frozen=True)
class Result:
    """What a judge made of one pair.

    Attributes:
        pair_id: the pair, as in `PAIR_SCHEMA`.
        sample: number of the sample, from 0.
        score: in [0, 1]; None where the judge's reply held none.
        error: why there is no score; None where there is one.
        reply: the judge's text; None where there was none.
        latency_s: seconds that the judge took.
    """

    pair_id: str
    sample: int
    score: float | None
    error: str | None
    reply: str | None
    latency_s: float


class Known(NamedTuple):
    """A result as it is held in memory: without its reply, but with the place of its line in the file, in bytes."""

    score: float | None
    error: str | None
    offset: int
    size: int


class Journal:
    """The journal in `file`, made where it is missing, and locked until it is closed.

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
        file.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            self._lock()
            self._size = self._read(dict(asked_with))
            if not self._size:
                self._append(json.dumps({"journal": FORMAT, "asked_with": dict(asked_with)}))
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
            os.fsync(self._fd)
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
        offset = 0
        changed: list[str] = []
        with os.fdopen(self._fd, "rb", closefd=False) as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    if number == 1 and not (line.startswith(_HEADER_START) or _HEADER_START.startswith(line)):
                        raise self._broken(1, "no journal of judge results")
                    os.ftruncate(self._fd, offset)
                    break
                if number == 1:
                    changed = self._compare_header(line, asked_with)
                else:
                    result = self._parse(number, line)
                    known = Known(result.score, result.error, offset, len(line))
                    self._known[result.pair_id, result.sample] = known
                offset += len(line)
        if changed and self._known:
            raise JournalError(
                f"{self.file}: its judge was asked otherwise: {'; '.join(changed)}. Scores of two judges must not be "
                "mixed: set the old values again, or write to another --out"
            )
        if changed:  # the old setting never got a result
            os.ftruncate(self._fd, 0)
            return 0
        return offset

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
            f"{name} was {before.get(name)!r}, is {asked_with.get(name)!r}"
            for name in sorted(before.keys() | asked_with.keys())
            if before.get(name) != asked_with.get(name)
        ]

    def _parse(self, number: int, line: bytes) -> Result:
        try:
            result = Result(**json.loads(line))
        except (ValueError, TypeError, RecursionError) as error:
            raise self._broken(number, str(error)) from error
        score = result.score
        for field, fine in (
            ("pair_id", isinstance(result.pair_id, str) and bool(result.pair_id)),
            ("sample", _is_whole(result.sample) and result.sample >= 0),
            ("score", score is None or (_is_number(score) and 0 <= score <= 1)),
            ("error", isinstance(result.error, str) if score is None else result.error is None),
            ("reply", result.reply is None or isinstance(result.reply, str)),
            ("latency_s", _is_number(result.latency_s)),
        ):
            if not fine:
                raise self._broken(number, f"field {field}: {getattr(result, field)!r} is not possible")
        return result

    def _broken(self, number: int, what: str) -> JournalError:
        return JournalError(
            f"{self.file}, line {number}: {what}. Repair this line, or remove it and its pair is asked again"
        )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
