"""Run folders to be watched, written a piece at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def logged(step: int, **metrics: Any) -> str:
    """A line of verl's metrics; ``__`` stands for the slash."""
    return (
        json.dumps({"step": step, "data": {name.replace("__", "/"): value for name, value in metrics.items()}}) + "\n"
    )


def trained(step: int, outcome: float = 0.5, **metrics: Any) -> str:
    """A line of a training step."""
    return logged(step, outcome_reward__mean=outcome, timing_s__step=2.0, **metrics)


def append(file: Path, *lines: str) -> Path:
    """Add lines to a file of a run's folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as opened:
        opened.write("".join(lines))
    return file


def plan(folder: Path, steps: int) -> None:
    """run.json of a run of so many steps."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"experiment": {}, "total_training_steps": steps, "starts": []}))


def response(group: str, output: str, /, **fields: Any) -> str:
    """A line of a dump."""
    row = {"input": "system\nBe brief.\nuser\nHow many?\nassistant\n", "output": output, "gts": "2", "group": group}
    return json.dumps(row | {"outcome_reward": 1.0, "thinking_reward": 0.5, "gamma": 0.9} | fields) + "\n"
