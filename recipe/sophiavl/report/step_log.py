"""verl's metrics by step as far as they can be read: a bad line or value costs itself, and is told."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from recipe.sophiavl.report.dumps import number, read_rows
from recipe.sophiavl.report.logs import Steps
from recipe.sophiavl.report.problems import Problems, excerpt


def read_metrics(files: Iterable[Path], problems: Problems) -> Steps:
    """Finite metrics by global step, later files over earlier ones (a resumed run has several)."""
    steps: Steps = {}
    for file in files:
        for line, _, row in read_rows(file, problems):
            step, data = row.get("step"), row.get("data")
            if isinstance(step, bool) or not isinstance(step, int) or not isinstance(data, dict):
                problems.add("A line of the metrics holds no step and is left out", f"{file.name}, line {line}")
                continue
            own = steps.setdefault(step, {})
            for name, value in data.items():
                found = number(value)
                if np.isfinite(found):
                    own[name] = found
                else:
                    own.pop(name, None)
                    told = "null" if value is None else excerpt(value)
                    problems.add(f"{name} is no finite number and not drawn", f"step {step}: {told}")
    return dict(sorted(steps.items()))
