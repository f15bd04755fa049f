"""Each validation of a run as rows: means with standard errors from the metrics, questions counted in the dumps."""

from __future__ import annotations

from pathlib import Path

from recipe.sophiavl.metrics import slug
from recipe.sophiavl.report.dumps import dump_files, group_name, read_rows
from recipe.sophiavl.report.logs import Steps, series, validation_modes, validation_parts
from recipe.sophiavl.report.problems import Problems
from recipe.sophiavl.report.run_data import ValidationRow
from recipe.sophiavl.validation_modes import VARIABLES

Counts = dict[int, dict[str, int]]


def validation_rows(steps: Steps, folder: Path, problems: Problems) -> list[ValidationRow]:
    """By step, way, variable and answer type; what was not measured is left out.

    Args:
        folder: validation's dumps; they tell how many questions there are of each type.
    """
    rows = []
    for mode in validation_modes(steps):
        counts = _questions_by_type(folder / mode if (folder / mode).is_dir() else folder, problems)
        questions = series(steps, f"validation/{mode}/questions")
        for variable in VARIABLES:
            for part in validation_parts(steps, mode, variable):
                kind = part.partition("/")[2] or None
                name = f"validation/{mode}/{part}"
                errors = series(steps, f"{name}/stderr")
                for step, mean in series(steps, f"{name}/mean").items():
                    count = questions.get(step) if kind is None else counts.get(step, {}).get(kind)
                    whole = None if count is None else int(count)
                    rows.append(ValidationRow(step, mode, variable, kind, mean, errors.get(step), whole))
    return sorted(rows, key=lambda row: (row.step, row.mode, row.variable, row.kind or ""))


def _questions_by_type(folder: Path, problems: Problems) -> Counts:
    counts: Counts = {}
    for step, file in dump_files(folder).items():
        groups: dict[str, set[str]] = {}
        for _, _, row in read_rows(file, problems):
            groups.setdefault(slug(str(row.get("problem_type"))), set()).add(group_name(row))
        counts[step] = {kind: len(found) for kind, found in groups.items()}
    return counts
