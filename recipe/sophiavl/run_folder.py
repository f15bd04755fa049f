"""The folder of a training run (``run_dir``): the names of what a run leaves there, and what can be told from them."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from recipe.sophiavl.validation import SettingsError

METRICS_PATTERN = "metrics*.jsonl"  # one file a start
ROLLOUTS = "rollouts"
VALIDATION = "validation"
CHECKPOINTS = "checkpoints"
LOG = "train.log"
CONFIG = "config.yaml"  # of the newest start, resolved
RECORD = "run.json"  # what defines the experiment, and each start: when, command, versions
REPORT = "report.html"
COMPARISON = "comparison.html"  # of several runs, in the first one's folder
FINISHED = "finished"  # the step that the run was to reach, once it has
TENSORBOARD = "tensorboard"  # what these loggers leave, unless TENSORBOARD_DIR or WANDB_DIR say otherwise
WANDB = "wandb"

_LOCK = ".lock"
_RECORDED = ("experiment", "total_training_steps", "starts")
_NUMBERED = re.compile(r"metrics-(\d+)\.jsonl")
_LATEST = "latest_checkpointed_iteration.txt"  # verl writes it beside the checkpoints


class RunFolder:
    """A run's folder, which need not exist yet.

    Args:
        path: the folder.
        checkpoints: where the run's checkpoints are, which a setting may put elsewhere; default: in the folder.
    """

    def __init__(self, path: Path, checkpoints: Path | None = None) -> None:
        self.path = path
        self.checkpoints = checkpoints or path / CHECKPOINTS
        self._lock = FileLock(path / _LOCK, timeout=0)

    def holds_run(self) -> bool:
        """Whether a run left anything here that another one could spoil; a start that came to nothing did not."""
        logged = any(file.stat().st_size for file in self.path.glob(METRICS_PATTERN))
        return logged or any(any((self.path / name).glob("*")) for name in (ROLLOUTS, VALIDATION, CHECKPOINTS))

    def latest_step(self) -> int | None:
        """The step of the newest checkpoint that verl would go on from."""
        return _number(self.checkpoints / _LATEST)

    def finished_step(self) -> int | None:
        """The step at which the run came to its end."""
        return _number(self.path / FINISHED)

    def record(self) -> dict[str, Any] | None:
        """What `write_record` wrote; None where nobody did.

        Raises:
            SettingsError: the file is damaged.
        """
        file = self.path / RECORD
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise SettingsError(f"{file}: not the record of a run ({error})") from error
        if missing := [key for key in _RECORDED if key not in record]:
            raise SettingsError(f"{file}: not the record of a run (without {', '.join(missing)})")
        return record

    def write_record(self, record: dict[str, Any]) -> None:
        """Replace the record at once, so that nobody ever reads half of it."""
        _replace(self.path / RECORD, json.dumps(record, indent=1) + "\n")

    def write_config(self, text: str) -> None:
        """Replace the configuration."""
        _replace(self.path / CONFIG, text)

    def write_finished(self, step: int) -> None:
        """Note that the run came to its end."""
        _replace(self.path / FINISHED, f"{step}\n")

    def new_metrics_file(self) -> Path:
        """A path that no start has used; in the order of their names the last is the newest: ``metrics-001.jsonl``."""
        used = [int(match[1]) for file in self.path.glob(METRICS_PATTERN) if (match := _NUMBERED.fullmatch(file.name))]
        return self.path / f"metrics-{max(used, default=0) + 1:03}.jsonl"

    def lock(self) -> None:
        """Keep the folder for this process until it ends.

        Raises:
            SettingsError: another process has it.
        """
        try:
            self._lock.acquire()
        except Timeout as error:
            raise SettingsError(
                f"run_dir={self.path}: another start is at work there. Wait for it, or end it, or give another run_dir"
            ) from error

    def unlock(self) -> None:
        """Let another process have it."""
        self._lock.release()

    def removal(self) -> str:
        """The shell command that removes the run and nothing else."""
        named = {ROLLOUTS, VALIDATION, CHECKPOINTS, LOG, CONFIG, RECORD, FINISHED, _LOCK, "trm.log", "curves.png"}
        named |= {REPORT, COMPARISON}
        named |= {TENSORBOARD, WANDB}
        metrics = {file.name for file in self.path.glob(METRICS_PATTERN)}
        there = sorted(file.name for file in self.path.iterdir())
        own = [name for name in there if name in named | metrics]
        away = [] if self.checkpoints.is_relative_to(self.path) or not self.checkpoints.exists() else [self.checkpoints]
        files = [self.path, *away] if own == there else [*(self.path / name for name in own), *away]
        return shlex.join(["rm", "-r", *map(str, files)])

    def remove(self) -> None:
        """Remove the folder with all that it holds."""
        self._lock.release(force=True)
        shutil.rmtree(self.path)


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (FileNotFoundError, ValueError):  # verl was interrupted while it wrote
        return None


def _replace(file: Path, text: str) -> None:
    new = file.with_name(f"{file.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(file)
