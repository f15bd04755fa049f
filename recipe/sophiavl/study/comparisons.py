"""What is measured of a cell, which cells are compared with which, and how comparisons are corrected together.

The comparisons are fixed here, before any result: those that the paper's claims need (planned), those that ask whether
trust is worth more with a bad reward model (interaction), whether the trust weight tells a bad reward model from a
good one (detection), and every other variant against the default (other). A family that is corrected together is one
measure, one of these kinds, and either the main reward models or the others, of which there is a first look only. Its
size is that of the whole plan, whatever has run yet.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recipe.sophiavl.study.grid import NO_REWARD_MODEL
from recipe.sophiavl.study.results import Cell
from recipe.sophiavl.study.statistics import PairedTest, PooledError, area, corrected_tests, pooled_error, steps_to

DEFAULT, OUTCOME_ONLY = "default", "outcome_only"
NO_TRUST, NEITHER = "no_trust", "no_trust_no_annealing"
ORACLE = "oracle"
TWICE = "twice"  # a form of thinking that examples.study.oracle knows
MAIN_VARIANTS = (DEFAULT, NO_TRUST, NEITHER, OUTCOME_ONLY)
MAIN_MODELS = (ORACLE, "noisy", "hackable")
PLANNED = ((DEFAULT, OUTCOME_ONLY), (DEFAULT, NO_TRUST), (NO_TRUST, NEITHER), (DEFAULT, NEITHER))
MAIN_SEEDS = 6
SMALL = 0.03  # of an accuracy: a tenth of what the training gains
_OTHER_VARIANTS = ("published_code", "uniform_outcome_only", "trust_estimator", "gdpo", "process_aware")
_BAD_MODELS = ("contrarian", "confident")
_OTHER_MODELS = (*_BAD_MODELS, "length", "tiny_trm")
_MODELS = (*MAIN_MODELS, *_OTHER_MODELS, NO_REWARD_MODEL)
_LAST_STEPS = 3

Pair = tuple[str, str]
"""A variant and a reward model."""
Values = Mapping[Pair, Mapping[str, Mapping[int, float]]]
"""By pair, measure and seed."""

# The grid of examples/study/study.yaml.
MAIN_PAIRS: tuple[Pair, ...] = (
    (OUTCOME_ONLY, NO_REWARD_MODEL),
    *((variant, model) for variant in MAIN_VARIANTS if variant != OUTCOME_ONLY for model in MAIN_MODELS),
)
PLAN: tuple[Pair, ...] = (
    *MAIN_PAIRS,
    *((DEFAULT, model) for model in _OTHER_MODELS),
    *((NO_TRUST, model) for model in _BAD_MODELS),
    *((variant, model) for variant in _OTHER_VARIANTS for model in (ORACLE, "hackable")),
    ("uniform_outcome_only", "confident"),  # after a first look at confident
)


@dataclass(frozen=True)
class Measure:
    """A figure of a cell.

    Attributes:
        of: its value; None where the cell has none.
        digits: decimals that people need.
        better: +1 where more is better, -1 where less is, 0 where neither.
        most: a value above it is a lower bound (censored).
        small: a difference below it matters to nobody; None where that is not said.
    """

    name: str
    title: str
    note: str
    of: Callable[[Cell], float | None]
    digits: int = 3
    better: int = 0
    most: float = math.inf
    small: float | None = None


@dataclass(frozen=True)
class Contrast:
    """Cells that are added and subtracted, seed by seed.

    Attributes:
        kind: planned, interaction, detection or other.
        terms: each with its sign.
        reward_model: the one that it is listed under.
        measures: the only ones that it is for; empty: all.
    """

    kind: str
    label: str
    reward_model: str
    terms: Sequence[tuple[int, Pair]]
    measures: Sequence[str] = ()

    @property
    def main(self) -> bool:
        """Whether it is under the main reward models."""
        return self.reward_model in MAIN_MODELS

    @property
    def family(self) -> str:
        """What it is corrected together with, measure by measure."""
        return f"{self.kind}, {'main' if self.main else 'other'} reward models"


@dataclass(frozen=True)
class Comparison:
    """A contrast in one measure: its differences by seed, and what they say."""

    contrast: Contrast
    measure: str
    by_seed: Mapping[int, float]
    test: PairedTest


def measures(accuracy: float, cells: Sequence[Cell] = ()) -> tuple[Measure, ...]:
    """What is measured of a cell.

    Args:
        accuracy: that `steps_to` counts to.
        cells: all of a study, which share their number of steps.
    """
    return (
        Measure(
            "greedy",
            "accuracy, greedy",
            "mean outcome reward over the validation questions after the last step, one greedy answer each",
            lambda cell: cell.final["greedy"].outcome,
            better=1,
            small=SMALL,
        ),
        Measure(
            "sampled",
            "accuracy, sampled",
            "the same, of answers sampled as in training",
            lambda cell: cell.final["sampled"].outcome,
            better=1,
            small=SMALL,
        ),
        Measure(
            "area",
            "area under the accuracy curve",
            "mean height of the training batches' mean outcome reward over the steps (trapezoid rule)",
            lambda cell: area([step.outcome for step in cell.steps]),
            better=1,
            small=SMALL,
        ),
        Measure(
            "steps_to",
            f"steps to {accuracy:g}",
            f"first step at which the training batches' mean outcome reward, averaged over it and the two before, is "
            f"at least {accuracy:g}; a seed that never gets there counts as one step more than there were: a mean with "
            f"≥ is a lower bound, and a difference with such a seed is censored: given without interval and verdict",
            lambda cell: float(steps_to([step.outcome for step in cell.steps], accuracy)[0]),
            digits=1,
            better=-1,
            most=len(cells[0].steps) if cells else math.inf,
        ),
        Measure(
            "thinking",
            "thinking by the oracle",
            "mean score of the rule that knows the image, over the sampled answers after the last step, whatever "
            "reward model trained the cell",
            lambda cell: cell.final["sampled"].oracle,
            better=1,
        ),
        *_forms(cells),
        _gamma(cells),
        Measure(
            "hacked",
            "hacked share",
            "share of the responses that the reward model was asked about whose score from it is above the oracle's "
            "by 0.5 or more, mean over the last three training steps: with a noisy reward model that is noise",
            lambda cell: _mean(cell, "hacked", -_LAST_STEPS),
            better=-1,
        ),
        Measure(
            "length",
            "length",
            "words of the sampled answers after the last step",
            lambda cell: cell.final["sampled"].length,
            digits=1,
        ),
    )


def _forms(cells: Iterable[Cell]) -> list[Measure]:
    """What the judge of easy-VQA tells beside its score, where that judge was used."""
    if not any(TWICE in (cell.final["sampled"].forms or ()) for cell in cells):
        return []
    note = (
        "share of the sampled answers after the last step whose thinking looks at a picture twice, which costs 0.2 of "
        "the oracle's score"
    )
    return [Measure(TWICE, "looks twice", note, lambda cell: (cell.final["sampled"].forms or {}).get(TWICE, 0.0))]


def mixed(cells: Iterable[Cell]) -> bool:
    """Whether trust weights are known of the mixed groups alone; files of earlier runners have none."""
    return any(step.gamma_mixed is not None for cell in cells for step in cell.steps)


def _gamma(cells: Iterable[Cell]) -> Measure:
    """Of mixed groups in all cells, or of all groups in all cells: the two do not compare."""
    if mixed(cells):
        note = (
            "trust weight of the groups with a scored response on both sides, right and wrong (mixed): the others "
            "have 1 whatever the scores are, and there are more of them the higher the accuracy is; mean over the "
            "training steps that have a mixed group"
        )
        return Measure("gamma", "gamma, mixed groups", note, lambda cell: _mean_gamma(cell, "gamma_mixed"))
    note = (
        "trust weight, mean over the training steps; the groups without a scored response on both sides count as 1, "
        "so it rises with the accuracy too"
    )
    return Measure("gamma", "gamma, all groups", note, lambda cell: _mean_gamma(cell, "gamma"))


def _mean_gamma(cell: Cell, field: str) -> float | None:
    """None of a variant that has no trust weight, which is logged as 1."""
    return None if cell.key.variant in (NO_TRUST, NEITHER) else _mean(cell, field, 0)


def _mean(cell: Cell, field: str, first: int) -> float | None:
    values = [value for step in cell.steps[first:] if (value := getattr(step, field)) is not None]
    return float(np.mean(values)) if values else None


def in_order(pairs: Iterable[Pair]) -> list[Pair]:
    """Pairs as tables list them: by reward model, the main ones first, then by variant."""
    return sorted(
        set(pairs), key=lambda pair: (_place(pair[1], _MODELS), _place(pair[0], (*MAIN_VARIANTS, *_OTHER_VARIANTS)))
    )


def _place(name: str, known: Sequence[str]) -> tuple[int, str]:
    return (known.index(name) if name in known else len(known), name)


def values_of(cells: Iterable[Cell], measured: Sequence[Measure]) -> Values:
    """Every measure of every cell that has it."""
    found: dict[Pair, dict[str, dict[int, float]]] = defaultdict(lambda: {one.name: {} for one in measured})
    for cell in cells:
        for measure in measured:
            if (value := measure.of(cell)) is not None:
                found[cell.key[:2]][measure.name][cell.key.seed] = value
    return {pair: found[pair] for pair in in_order(found)}


def contrasts(pairs: Sequence[Pair]) -> list[Contrast]:
    """The comparisons that are made where there are cells of these pairs, whether or not both sides have some."""
    models = [model for model in dict.fromkeys(model for _, model in pairs) if model != NO_REWARD_MODEL]
    variants = dict.fromkeys(variant for variant, _ in in_order(pairs))
    found = [_between(one, other, model, "planned") for one, other in PLANNED for model in models]
    bad = [model for model in models if model != ORACLE]
    for model in bad:
        terms = ((1, (DEFAULT, model)), (-1, (NO_TRUST, model)), (-1, (DEFAULT, ORACLE)), (1, (NO_TRUST, ORACLE)))
        label = f"({DEFAULT} − {NO_TRUST}), {model} less {ORACLE}"
        found.append(Contrast("interaction", label, model, terms))
    for model in bad:
        terms = ((1, (DEFAULT, ORACLE)), (-1, (DEFAULT, model)))
        found.append(Contrast("detection", f"{DEFAULT}: {ORACLE} − {model}", model, terms, ("gamma",)))
    others = [variant for variant in variants if variant not in MAIN_VARIANTS]
    found += [
        _between(variant, DEFAULT, model, "other")
        for variant in others
        for model in models
        if (variant, model) in pairs
    ]
    return found


def _between(one: str, other: str, model: str, kind: str) -> Contrast:
    of = NO_REWARD_MODEL if other == OUTCOME_ONLY else model
    return Contrast(kind, f"{one} − {other}", model, ((1, (one, model)), (-1, (other, of))))


def compare(values: Values, measured: Sequence[Measure]) -> tuple[list[Comparison], list[Contrast]]:
    """Every comparison that has a seed on both sides, and the contrasts that have none.

    A comparison without a test, for example with one seed, is in the list with its reason.
    """
    found: list[Comparison] = []
    empty = []
    made = contrasts(list(values))
    planned = _family_sizes(values)
    errors = errors_of(values, measured)
    for measure in measured:
        families: dict[str, list[tuple[Contrast, dict[int, float]]]] = defaultdict(list)
        for contrast in made:
            if contrast.measures and measure.name not in contrast.measures:
                continue
            by_seed = _differences(contrast, values, measure.name)
            if by_seed:
                families[contrast.family].append((contrast, by_seed))
            elif measure is measured[0]:
                empty.append(contrast)
        for family, members in families.items():
            censored = {
                place
                for place, (contrast, by_seed) in enumerate(members)
                if _censored(contrast, by_seed, values, measure)
            }
            differences = [list(by_seed.values()) for _, by_seed in members]
            cells = [len(contrast.terms) for contrast, _ in members]
            error = errors.get(measure.name)
            tests = corrected_tests(differences, planned[family], censored, error, cells)
            for (contrast, by_seed), test in zip(members, tests, strict=True):
                found.append(Comparison(contrast, measure.name, by_seed, test))
    return found, empty


def errors_of(
    values: Values, measured: Sequence[Measure], pairs: Sequence[Pair] = MAIN_PAIRS
) -> dict[str, PooledError]:
    """The pooled error of each measure over the cells of these pairs, where there are enough of them."""
    own = [values[pair] for pair in pairs if pair in values]
    found = {measure.name: pooled_error([of[measure.name] for of in own if of[measure.name]]) for measure in measured}
    return {name: error for name, error in found.items() if error is not None}


def errors_by_model(values: Values, measured: Sequence[Measure]) -> dict[str, dict[str, PooledError]]:
    """The same by main reward model, each over its own cells."""
    return {
        model: errors_of(values, measured, [pair for pair in MAIN_PAIRS if pair[1] == model]) for model in MAIN_MODELS
    }


def _family_sizes(pairs: Iterable[Pair]) -> Counter[str]:
    """Comparisons of each family, of all that is planned and of what there is beyond the plan."""
    known = in_order([*PLAN, *pairs])
    made = contrasts(known)
    return Counter(one.family for one in made if {pair for _, pair in one.terms} <= set(known))


def _censored(contrast: Contrast, seeds: Iterable[int], values: Values, measure: Measure) -> bool:
    return any(values[pair][measure.name][seed] > measure.most for _, pair in contrast.terms for seed in seeds)


def _differences(contrast: Contrast, values: Values, measure: str) -> dict[int, float]:
    sides = [values.get(pair, {}).get(measure, {}) for _, pair in contrast.terms]
    seeds = sorted(set.intersection(*(set(side) for side in sides)))
    signs = [sign for sign, _ in contrast.terms]
    return {seed: float(sum(sign * side[seed] for sign, side in zip(signs, sides, strict=True))) for seed in seeds}


def unfinished_main(values: Values) -> int:
    """How many of the main pairs have fewer seeds than planned."""
    return sum(len(values.get(pair, {}).get("sampled", {})) < MAIN_SEEDS for pair in MAIN_PAIRS)


def missing_of(values: Values, empty: Sequence[Contrast]) -> list[str]:
    """Sentences about what a reader would expect of the main cells and is not there, and comparisons without a seed."""
    told = []
    wanted = dict.fromkeys(MAIN_VARIANTS[:-1], MAIN_MODELS) | {OUTCOME_ONLY: (NO_REWARD_MODEL,)}
    seeds = {pair: set(of["sampled"]) for pair, of in values.items()}
    most = set().union(*(seeds.get((variant, model), set()) for variant, models in wanted.items() for model in models))
    for variant, models in wanted.items():
        if absent := [model for model in models if (variant, model) not in seeds]:
            told.append(f"No cell of {variant} with {', '.join(absent)}.")
        for model in models:
            if (variant, model) in seeds and (lacking := sorted(most - seeds[variant, model])):
                told.append(f"{variant} with {model} lacks seed {', '.join(map(str, lacking))}.")
    unpaired: dict[str, list[str]] = defaultdict(list)
    for one in empty:
        if one.kind == "planned" and {pair for _, pair in one.terms} <= set(PLAN):
            unpaired[one.label].append(one.reward_model)
    told += [f"No seed on both sides of {label} with {', '.join(models)}." for label, models in unpaired.items()]
    return told
