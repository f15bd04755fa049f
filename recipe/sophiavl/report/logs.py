"""Reads what a run has logged and dumped so far, whether it has ended, goes on or was killed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Steps = dict[int, dict[str, float]]


def read_lines(file: Path, keys: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file. A last line without an end is still being written, and left for later.

    Args:
        keys: what each object must have.

    Raises:
        ValueError: a line is not JSON, or no object with these keys; names the file and the line.
    """
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith("\n"):
                return
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{file}, line {number}: not JSON ({error})") from error
            if not isinstance(record, dict) or (missing := set(keys) - record.keys()):
                what = f"no field {sorted(missing)[0]!r}" if isinstance(record, dict) else "no object"
                raise ValueError(f"{file}, line {number}: {what}")
            yield record


def load_metrics(files: Iterable[Path]) -> Steps:
    """Metrics by global step from verl's JSON-lines logs, later files over earlier ones.

    verl's file logger starts a new file each time, so a resumed run has several. It writes NaN as null: such a value
    is left out.

    Raises:
        ValueError: a line (other than an unfinished last one) is not one of verl's; names the file and the line.
    """
    steps: Steps = {}
    for file in files:
        for record in read_lines(file, ("step", "data")):
            known = {name: value for name, value in record["data"].items() if value is not None}
            steps.setdefault(record["step"], {}).update(known)
    return dict(sorted(steps.items()))


def series(steps: Steps, name: str) -> dict[int, float]:
    """A metric by step."""
    return {step: data[name] for step, data in steps.items() if name in data}


def validation_modes(steps: Steps) -> list[str]:
    """Names of the ways in which the run was validated (``sophiavl.validation_modes``), the first one first."""
    sections = (name.split("/") for data in steps.values() for name in data)
    return list(dict.fromkeys(parts[1] for parts in sections if parts[0] == "validation"))


def validation_parts(steps: Steps, mode: str, variable: str) -> list[str]:
    """The variable and, where several answer types are mixed, its parts: ``outcome_reward``, ``outcome_reward/ocr``."""
    names = (name.split("/") for data in steps.values() for name in data)
    parts = {"/".join(name[2:-1]) for name in names if name[:3] == ["validation", mode, variable]}
    return sorted(parts)
