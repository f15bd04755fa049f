"""What a run has logged and dumped so far, read a piece at a time while it is being written."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.sophiavl.report.logs import Steps
from recipe.sophiavl.run_folder import METRICS_PATTERN, ROLLOUTS, RunFolder
from recipe.sophiavl.validation import SettingsError

# A line of a dump is a response; a longer one is left out, so that no response fills the memory.
MOST_LINE_BYTES = 8 * 2**20
MOST_RESPONSES = 64
MOST_CHARS = 4000


@dataclass(frozen=True)
class NewestGroup:
    """The first group of the newest dump.

    Attributes:
        rows: its responses as the dump has them, `MOST_RESPONSES` at most: untrusted text (of the prompt the last
            `MOST_CHARS` characters, of anything else the first), fields of any type or absent.
    """

    step: int
    rows: list[dict[str, Any]]


class WatchedRun:
    """A run's folder, which need not exist yet, and whose files grow, vanish, and come again.

    Args:
        path: the folder.
        names: metrics that are kept; of the others only ``validation/…`` and ``thinking_reward/failed/…`` are.

    Attributes:
        steps: metrics by step; a start that goes on from a checkpoint takes the place of what came after it. A value
            that was logged and is no number is NaN.
        newest: step that was logged last; None before the first.
        total: training steps of the run, where it says.
        finished: whether it has come to its end.
        silent_s: seconds since the last step was logged, by the clock of the file system; None before the first.
        group: from the newest dump.
        problems: what can't be read, a sentence each.
    """

    def __init__(self, path: Path, names: Iterable[str]) -> None:
        self.path = path
        self.steps: Steps = {}
        self.newest: int | None = None
        self.total: int | None = None
        self.finished = False
        self.silent_s: float | None = None
        self.group: NewestGroup | None = None
        self.problems: list[str] = []
        self._names = frozenset(names)
        self._logs: dict[Path, _Log] = {}
        self._dump: tuple[Path, int, int] | None = None

    def update(self) -> None:
        """Read what is new."""
        self.problems = []
        try:
            files = sorted(self.path.glob(METRICS_PATTERN))
            self._read_metrics(files)
            self._read_group()
        except OSError as error:  # a file that went between two calls, a file system that went with it
            self.problems.append(f"{error.filename or self.path}: can't be read ({error.strerror})")
        self._read_plan()

    def _read_metrics(self, files: list[Path]) -> None:
        self._logs = {file: self._logs.get(file) or _Log(file, self._names) for file in files}
        for log in self._logs.values():
            log.update()
            self.problems.extend(log.problems)
        started = [log for log in self._logs.values() if log.steps]
        self.steps = _in_order([log.steps for log in started])
        self.newest = max(started[-1].steps) if started else None
        self.silent_s = max(0.0, time.time() - started[-1].path.stat().st_mtime) if started else None

    def _read_plan(self) -> None:
        folder = RunFolder(self.path)
        try:
            record = folder.record() or {}
        except SettingsError as error:
            record = {}
            self.problems.append(str(error))
        except OSError:  # no folder, or a file in its place: said where the metrics are missing
            record = {}
        finished = folder.finished_step() if self.path.is_dir() else None
        total = record.get("total_training_steps") or finished
        self.total = total if isinstance(total, int) else None
        self.finished = finished is not None and finished >= (self.total or 0)

    def _read_group(self) -> None:
        dumps = [(int(file.stem), file) for file in (self.path / ROLLOUTS).glob("*.jsonl") if file.stem.isdecimal()]
        if not dumps:
            self.group = self._dump = None
            return
        step, file = max(dumps)
        state = file.stat()
        seen = (file, state.st_size, state.st_mtime_ns)
        if seen != self._dump:
            rows = list(_first_group(file))
            self.group = NewestGroup(step, rows) if rows else self.group
            self._dump = seen


class _Log:
    """One start's metrics: ``steps`` of what has been read, ``problems`` of what could not."""

    def __init__(self, path: Path, names: frozenset[str]) -> None:
        self.path = path
        self._names = names
        self._begin(inode=0)

    def _begin(self, inode: int) -> None:
        self.steps: Steps = {}
        self.problems: list[str] = []
        self._inode, self._read, self._lines = inode, 0, 0

    def update(self) -> None:
        state = self.path.stat()
        if state.st_ino != self._inode or state.st_size < self._read:  # another file, or the same one begun anew
            self._begin(state.st_ino)
        with self.path.open("rb") as lines:
            lines.seek(self._read)
            for line in lines:
                if not line.endswith(b"\n"):  # still being written
                    return
                self._read += len(line)
                self._lines += 1
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            record = json.loads(line)
            step, data = int(record["step"]), record["data"].items()
        except (ValueError, TypeError, KeyError, AttributeError):
            self.problems = [*self.problems[:2], f"{self.path.name}, line {self._lines}: no metrics of a step"]
            return
        kept = {name: number(value) for name, value in data if self._keeps(name)}
        self.steps.setdefault(step, {}).update(kept)

    def _keeps(self, name: str) -> bool:
        return name in self._names or name.startswith(("validation/", "thinking_reward/failed/"))


def number(value: Any) -> float:
    """A logged value as a float; NaN for whatever is no number, such as the null that stands for NaN in JSON."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _in_order(starts: list[Steps]) -> Steps:
    """The steps of all starts. One that begins at step N has gone on from there: later ones of before don't count."""
    steps: Steps = {}
    for start in starts:
        first = min(start)
        steps = {step: data for step, data in steps.items() if step <= first}
        for step, data in start.items():
            steps[step] = {**steps.get(step, {}), **data}
    return dict(sorted(steps.items()))


def _first_group(file: Path) -> Iterator[dict[str, Any]]:
    """The responses that a dump begins with, up to the first one of another group; verl sorts them by group."""
    group = None
    with file.open("rb") as lines:
        for _ in range(MOST_RESPONSES):
            line = lines.readline(MOST_LINE_BYTES)
            if not line.endswith(b"\n"):  # the end, still being written, or longer than any response
                return
            try:
                row = json.loads(line)
            except ValueError:
                return
            if not isinstance(row, Mapping):
                return
            name = row.get("group", row.get("uid"))
            if group not in (None, name):
                return
            group = name
            yield {field: _cut(field, value) for field, value in row.items()}


def _cut(field: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return value[-MOST_CHARS:] if field == "input" else value[:MOST_CHARS]
