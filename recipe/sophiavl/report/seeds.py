"""Which of several runs differ in nothing but their seeds, and by what the others differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from recipe.sophiavl.experiment import NOT_SET, counts, differences
from recipe.sophiavl.report import charts
from recipe.sophiavl.report.problems import Problems, excerpt
from recipe.sophiavl.report.run_data import Comparison, RunData, SeedGroup, Sentence
from recipe.sophiavl.report.settings_words import RunConfig

_STEPS = "trainer.total_training_steps"


def compare(runs: Sequence[RunData], run_dirs: Sequence[Path], points: int) -> Comparison:
    """The runs with their groups of seeds and the charts that overlay them."""
    names = _names(run_dirs)
    found = [_definition(RunConfig(run_dir, Problems())) for run_dir in run_dirs]
    unknown = [names[place] for place, definition in enumerate(found) if definition is None]
    members: list[list[int]] = []
    for place, definition in enumerate(found):
        same = (group for group in members if definition is not None and _same(found[group[0]], definition))
        group = next(same, None)
        if group is None:
            members.append([place])
        else:
            group.append(place)
    groups = [SeedGroup(_label(names, group), group, _differs(found, group, members)) for group in members]
    told = [_told(names, group) for group in members if len(group) > 1]
    told += [
        Sentence("missing", f"{name} left no record and no configuration: it counts as an experiment of its own.")
        for name in unknown
    ]
    return Comparison(runs, groups, charts.compared(runs, groups, points), told)


def _names(run_dirs: Sequence[Path]) -> list[str]:
    """The folders' names, with as many of the folders above as tell them apart."""
    parts = [run_dir.resolve().parts for run_dir in run_dirs]
    depth = 1
    while len({names[-depth:] for names in parts}) < len(set(parts)):
        depth += 1
    return ["/".join(names[-depth:]) for names in parts]


def _definition(config: RunConfig) -> dict[str, Any] | None:
    """What defines the experiment but its seeds; None where the run left neither record nor configuration."""
    recorded = config.record.get("experiment")
    steps = config.record.get("total_training_steps", config.get(_STEPS))
    if not isinstance(recorded, Mapping) or not recorded:
        recorded = dict(_leaves(OmegaConf.to_container(config.tree), ""))
    if not recorded:
        return None
    return {**{key: value for key, value in recorded.items() if not _is_seed(key)}, _STEPS: steps}


def _leaves(tree: Mapping[Any, Any], above: str) -> list[tuple[str, Any]]:
    leaves = []
    for name, value in tree.items():
        key = f"{above}{name}"
        if isinstance(value, Mapping) and value:
            leaves += _leaves(value, f"{key}.")
        elif counts(key):
            leaves.append((key, value))
    return leaves


def _is_seed(key: str) -> bool:
    name = key.rsplit(".", 1)[-1]
    return name == "seed" or name.endswith("_seed")


def _same(one: dict[str, Any] | None, other: dict[str, Any]) -> bool:
    return one is not None and one[_STEPS] == other[_STEPS] and not differences(one, other, one[_STEPS])


def _label(names: Sequence[str], group: Sequence[int]) -> str:
    return names[group[0]] if len(group) == 1 else f"{names[group[0]]} and {len(group) - 1} more seeds"


def _told(names: Sequence[str], group: Sequence[int]) -> Sentence:
    listed = ", ".join(names[place] for place in group)
    return Sentence("what", f"{listed} differ in nothing but their seeds, and are drawn as one line with a band.")


def _differs(
    found: Sequence[dict[str, Any] | None], group: Sequence[int], members: Sequence[Sequence[int]]
) -> list[str]:
    """The settings of a group that are not those of every other group."""
    own = found[group[0]]
    if own is None:
        return []
    others = [found[other[0]] for other in members if other is not group]
    keys = {key for other in others if other for key, _, _ in differences(own, other, own[_STEPS])}
    keys |= {_STEPS for other in others if other and other[_STEPS] != own[_STEPS]}
    return [f"{key}={excerpt_json(own.get(key, NOT_SET))}" for key in sorted(keys)]


def excerpt_json(value: Any) -> str:
    """A setting's value for a legend."""
    return value if isinstance(value, str) and len(value) <= 60 else excerpt(json.loads(json.dumps(value, default=str)))
