"""A file of lines that only grows: each is written whole by one `write` the moment it is there, and outlives a kill.

A power cut can take the lines of the last `SYNC_S` seconds of writing (from a machine that then stands still, of the
half minute that its kernel holds back).
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

SYNC_S = 5.0
"""Seconds after which a new line brings all before it to the disk."""


class JournalError(ValueError):
    """A journal that cannot be used; the message names it and says what to change."""


class LineFile:
    """The lines of `file`, made where it is missing, and locked until it is closed.

    Raises:
        JournalError: another process has it open, or its file system has no locks.
        OSError: the file cannot be opened.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._synced = -math.inf
        file.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            self._lock()
            self._size = os.fstat(self._fd).st_size
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return self._size

    def close(self) -> None:
        """Bring everything to the disk, and let other processes have the file."""
        try:
            self.sync()
        finally:
            os.close(self._fd)  # this unlocks it

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Each line with its place in bytes; the last one may lack its end, where its write was cut short."""
        start = 0
        with os.fdopen(self._fd, "rb", closefd=False) as file:
            file.seek(0)
            for line in file:
                yield start, line
                start += len(line)

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from a place on."""
        return os.pread(self._fd, size, offset)

    def append(self, text: str) -> tuple[int, int]:
        """Write ASCII `text` as a line; returns its place and its size in bytes.

        Raises:
            OSError: it cannot be written, for instance on a full disk; the file is then as it was before.
        """
        line = text.encode("ascii") + b"\n"
        try:
            written = os.write(self._fd, line)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.file)) from error
        if written != len(line):
            os.ftruncate(self._fd, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.file))
        offset, self._size = self._size, self._size + written
        if time.monotonic() - self._synced >= SYNC_S:
            self.sync()
        return offset, written

    def cut(self, size: int) -> None:
        """Keep the first `size` bytes only."""
        os.ftruncate(self._fd, size)
        self._size = size

    def sync(self) -> None:
        """Bring everything to the disk."""
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
