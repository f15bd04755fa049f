"""Other evaluations beside this one: paired differences over the questions that both answered."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recipe.sophiavl.evaluate.evaluation import SCORED
from recipe.sophiavl.evaluate.figures import Floats, figures_of
from recipe.sophiavl.evaluate.questions import Question
from recipe.sophiavl.validation import SettingsError

FORMAT = "sophiavl-evaluation/1"
RESULTS = "results.json"
# Measures of one answer, by the field of its line.
_FIELDS = {"accuracy": "correct", "reward": "reward", "format": "format_ok", "thinking": "thinking_reward"}


@dataclass(frozen=True)
class Other:
    """Another evaluation: its results, and its measures by question."""

    results: Mapping[str, Any]
    measures: Mapping[str, Mapping[str, float]]

    @property
    def name(self) -> str:
        """What its tables call it."""
        return str(self.results["name"])


def load_other(path: Path) -> Other:
    """Read an evaluation of this command.

    Args:
        path: its folder, or the ``results.json`` in it.

    Raises:
        SettingsError: it is missing or damaged.
    """
    file = path / RESULTS if path.is_dir() else path
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(results, dict) or results.get("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        for name in ("name", "scoring", "settings"):
            results[name]
        with (file.parent / SCORED).open(encoding="utf-8") as lines:
            measures = _measures(map(json.loads, lines))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"--compare {path}: no evaluation of this command ({error})") from error
    return Other(results, measures)


def _measures(lines: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Means over the answers of each question, by measure; what has no value is left out."""
    found: dict[str, defaultdict[str, list[float]]] = {name: defaultdict(list) for name in _FIELDS}
    for line in lines:
        for name, field in _FIELDS.items():
            if line[field] is not None:
                found[name][line["id"]].append(float(line[field]))
    return {name: {key: float(np.mean(some)) for key, some in values.items()} for name, values in found.items()}


def _how(results: Mapping[str, Any]) -> dict[str, Any]:
    """How an evaluation asked and scored, flat; without the model and the names of files."""
    scoring = {**results["scoring"], **results["scoring"]["outcome"]}
    settings = {name: value for name, value in results["settings"].items() if name not in ("model", "served_from")}
    return {name: value for name, value in {**settings, **scoring}.items() if name not in ("outcome", "data")}


def otherwise(results: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What a compared evaluation asked or scored otherwise than `results`: a difference is of that, too."""
    here, there = _how(results), other["asked_and_scored"]
    return [
        f"{name} {json.dumps(there.get(name))} there, {json.dumps(here.get(name))} here"
        for name in sorted(here.keys() | there.keys())
        if here.get(name) != there.get(name)
    ]


def compared_with(
    other: Other, questions: Sequence[Question], values: Mapping[str, Floats], resamples: int, seed: int
) -> dict[str, Any]:
    """The differences, this evaluation less the other, by group and measure; paired, over the questions of both.

    Args:
        values: this evaluation's measures, each of shape (questions,), NaN where missing.
    """
    differences = {}
    for name in _FIELDS:
        theirs = np.array([other.measures[name].get(question.id, np.nan) for question in questions])
        differences[name] = values[name] - theirs
    known = ~np.isnan(differences["accuracy"])
    return {
        "name": other.name,
        "asked_and_scored": _how(other.results),
        "both": int(known.sum()),
        "only_here": int(np.sum(~np.isnan(values["accuracy"]) & ~known)),
        "only_there": len(other.measures["accuracy"]) - int(known.sum()),
        "differences": figures_of(questions, differences, resamples, seed, differences=True) if known.any() else {},
    }
