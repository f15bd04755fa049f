"""The rollout dumps of a GRPO run (``trainer.rollout_data_dir``): one JSON line for each response of a step."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from recipe.sophiavl.trm_training.pairs import PairsError

logger = logging.getLogger(__name__)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_reward(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


# What a dump line must hold (recipe/sophiavl/trainer.py writes it), what each must be, and how that is said.
_DUMP_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "output": (_is_text, "a text"),
    "gts": (lambda value: True, "a truth"),
    "step": (_is_whole, "a whole number"),
    "outcome_reward": (_is_reward, "a number in [0, 1]"),
    "group": (_is_text, "a text"),
    "data_source": (_is_text, "a text"),
    "split": (_is_text, "a text"),
    "index": (_is_whole, "a whole number"),
}

# Those that the trainer adds to verl's.
_OWN_FIELDS = ("outcome_reward", "group", "data_source", "split", "index")


def dump_files(folder: Path) -> list[Path]:
    """The dumps of a run, by step; `folder` is the run's folder or its ``rollouts``.

    Raises:
        PairsError: there are none.
    """
    inside = folder / "rollouts" if (folder / "rollouts").is_dir() else folder
    files = sorted((file for file in inside.glob("*.jsonl") if file.stem.isdigit()), key=lambda file: int(file.stem))
    if not files:
        raise PairsError(f"{inside}: no rollout dumps (STEP.jsonl); train with trainer.rollout_data_dir set")
    return files


def read_dump(file: Path, *, newest: bool) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """The lines of a dump with their numbers, from 1, and their offsets in bytes.

    Args:
        newest: the last dump of a run may end in a torn line where the run was killed; that line is left out.

    Raises:
        PairsError: a line that is no JSON object.
    """
    offset = 0
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
            except ValueError as error:
                if newest and not line.endswith(b"\n"):
                    logger.warning("%s:%d: torn line left out: the run was killed while it wrote", file, number)
                    return
                raise PairsError(f"{file}:{number}: no JSON: {error}") from error
            if not isinstance(row, dict):
                raise PairsError(f"{file}:{number}: no JSON object but {type(row).__name__}")
            yield number, offset, row
            offset += len(line)


def is_final(row: Mapping[str, Any]) -> bool:
    """Not so for verl's padding rows, and for all outputs of a trajectory but its last: nothing of ours is known."""
    return any(name not in row or row[name] is not None for name in _OWN_FIELDS)


def check_dumped(row: Mapping[str, Any], where: str) -> None:
    """Check one line of a dump.

    Args:
        where: file and line, for the message.

    Raises:
        PairsError: a field is missing or has a value that it can't have.
    """
    missing = [name for name in _DUMP_FIELDS if row.get(name) is None]
    if missing:
        raise PairsError(
            f"{where}: lacks {', '.join(missing)}; dumps of older versions can't be joined with their data"
        )
    for name, (fits, what) in _DUMP_FIELDS.items():
        if not fits(row[name]):
            raise PairsError(f"{where}, field {name}: {row[name]!r} is not {what}")
