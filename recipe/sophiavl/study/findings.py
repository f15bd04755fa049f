"""What the raw results of a study say, as plain data: all that its tables and figures show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recipe.sophiavl.study.claims import Answer
from recipe.sophiavl.study.comparisons import Comparison, Measure, Values
from recipe.sophiavl.study.results import Results
from recipe.sophiavl.study.statistics import PooledError


@dataclass(frozen=True)
class Findings:
    """All findings.

    Attributes:
        errors: pooled error of each measure over the main cells, where there are enough of them.
        errors_by_model: the same over the cells of each main reward model.
        missing: sentences about cells and comparisons that are not there; Markdown.
        accuracy: that `steps_to` counts to.
    """

    results: Results
    measures: Sequence[Measure]
    values: Values
    comparisons: Sequence[Comparison]
    errors: Mapping[str, PooledError]
    errors_by_model: Mapping[str, Mapping[str, PooledError]]
    answers: Sequence[Answer]
    missing: Sequence[str]
    accuracy: float
