"""Rollout dumps for tests, a few responses each, and the folders that hold them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recipe.sophiavl.report.dumps import StepDump, read_step
from recipe.sophiavl.report.problems import Problems


def response(group: str = "g", outcome: Any = 1.0, thinking: Any = 0.8, **fields: Any) -> dict[str, Any]:
    """A line of a dump, as the trainer writes it."""
    row = {
        "input": "user\nHow many?\nassistant\n",
        "output": "<think>two</think><answer>2</answer>",
        "gts": "2",
        "score": outcome,
        "step": 1,
        "uid": f"{group}_0_0",
        "group": group,
        "data_source": "s",
        "split": "train",
        "index": sum(group.encode()),
        "outcome_reward": outcome,
        "format_ok": True,
        "answer": "2",
        "problem_type": "numerical",
        "thinking_reward": thinking,
        "thinking_asked": True,
        "thinking_error": "",
        "gamma": 1.0,
        "mu_correct": 0.8,
        "mu_wrong": 0.4,
        "thinking_used": True,
    }
    return row | fields


def write_dump(file: Path, rows: Iterable[dict[str, Any] | str]) -> Path:
    """Write a dump; text is written as it is."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows]
    file.write_text("".join(lines), encoding="utf-8")
    return file


def read(folder: Path, rows: Iterable[dict[str, Any] | str], step: int = 1) -> tuple[StepDump | None, Problems]:
    """The dump as the report reads it, and what it found wrong."""
    problems = Problems()
    return read_step(step, write_dump(folder / "rollouts" / f"{step}.jsonl", rows), problems), problems
