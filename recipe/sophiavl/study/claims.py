"""The paper's claims that a study can test, and by rule what its comparisons say of each, in one sentence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from page_kit.text import number, with_interval
from recipe.sophiavl.study.comparisons import (
    DEFAULT,
    NEITHER,
    NO_TRUST,
    OUTCOME_ONLY,
    Comparison,
    Measure,
)
from recipe.sophiavl.study.results import Cell
from recipe.sophiavl.study.statistics import UNDECIDED

SUPPORTED, AGAINST = "supported", "against"
_WORDS = {1: SUPPORTED, -1: AGAINST, 0: UNDECIDED}
# Sampled first: in a pilot of one seed, before any comparison, all greedy answers were near the ceiling.
_ACCURACY = ("sampled", "area", "greedy")


@dataclass(frozen=True)
class Claim:
    """A claim that holds where a difference is above 0.

    Attributes:
        label: of the contrasts that test it, in each reward model; empty: all of the kind.
        measures: the first decides, the others are told beside it.
        note: what a reader must know to read it right.
        dosed: whether to tell how much the trust weight took away.
    """

    key: str
    text: str
    kind: str
    label: str
    measures: Sequence[str]
    note: str = ""
    dosed: bool = False


CLAIMS = (
    Claim(
        "1",
        "A thinking reward raises accuracy over outcome rewards alone",
        "planned",
        f"{DEFAULT} − {OUTCOME_ONLY}",
        _ACCURACY,
    ),
    Claim(
        "2a",
        "Trust weights raise accuracy",
        "planned",
        f"{DEFAULT} − {NO_TRUST}",
        _ACCURACY,
        "With a reward model that tells right from wrong, such as the oracle, trust weights stay near 1: the two are "
        "nearly the same treatment there, and a difference of 0 says little.",
        dosed=True,
    ),
    Claim(
        "2b",
        "Trust weights raise accuracy more with a bad reward model than with the oracle",
        "interaction",
        "",
        _ACCURACY,
    ),
    Claim(
        "3a",
        "Annealing raises accuracy where there are no trust weights",
        "planned",
        f"{NO_TRUST} − {NEITHER}",
        _ACCURACY,
        "Annealing also makes the thinking term smaller, to about 0.6 of its weight on average over a run: this cannot "
        "tell its schedule from a smaller weight.",
    ),
    Claim("3b", "Trust weights and annealing together raise accuracy", "planned", f"{DEFAULT} − {NEITHER}", _ACCURACY),
    Claim(
        "4", "A thinking reward improves the thinking itself", "planned", f"{DEFAULT} − {OUTCOME_ONLY}", ("thinking",)
    ),
    Claim("5", "The trust weight is lower with a bad reward model than with the oracle", "detection", "", ("gamma",)),
)


@dataclass(frozen=True)
class Answer:
    """What a study says of a claim.

    Attributes:
        comparisons: those of the claim's first measure.
        sentence: Markdown.
    """

    claim: Claim
    comparisons: Sequence[Comparison]
    sentence: str


def verdict(comparison: Comparison) -> str:
    """Of a claim that the difference is above 0: supported or against where the corrected interval excludes 0."""
    return comparison.test.verdict(SUPPORTED, AGAINST)


def pooled_verdict(comparison: Comparison, measure: Measure, above: str = SUPPORTED, below: str = AGAINST) -> str:
    """The same by the pooled error, with its interval; "" where there is none."""
    word = comparison.test.pooled_verdict(above, below, measure.small)
    if not word:
        return ""
    low, high = comparison.test.pooled
    return f"{word} [{number(low, measure.digits, '+')}, {number(high, measure.digits, '+')}]"


def answers(comparisons: Sequence[Comparison], measured: Sequence[Measure], cells: Sequence[Cell]) -> list[Answer]:
    """Each claim with its sentence."""
    named = {measure.name: measure for measure in measured}
    dose = _dose(cells)
    return [_answer(claim, comparisons, named, dose) for claim in CLAIMS]


def _dose(cells: Sequence[Cell]) -> str:
    """How much of the thinking term the trust weight took away, in the cells that have both, by reward model."""
    lost: dict[str, list[float]] = defaultdict(list)
    for cell in cells:
        terms = [(step.anneal, step.gamma) for step in cell.steps if None not in (step.anneal, step.gamma)]
        if cell.key.variant == DEFAULT and terms:
            lost[cell.key.reward_model].append(1 - sum(a * g for a, g in terms) / sum(a for a, _ in terms))
    listed = ", ".join(f"{100 * sum(of) / len(of):.1f} % with {model}" for model, of in lost.items())
    return f"Of the thinking term's weight, trust took away {listed} ({DEFAULT}, all groups)." if listed else ""


def _answer(claim: Claim, comparisons: Sequence[Comparison], measured: Mapping[str, Measure], dose: str) -> Answer:
    def of(name: str) -> list[Comparison]:
        return [one for one in comparisons if one.measure == name and _tests(claim, one)]

    first, *others = claim.measures
    own = of(first)
    main = [one for one in own if one.contrast.main]
    more = [one for one in own if not one.contrast.main]
    parts = [f"{_listed(main, measured[first])}." if main else "not tested with the main reward models yet."]
    if more:
        parts.append(f"First look at other reward models: {_listed(more, measured[first])}.")
    for name in others:
        if found := of(name):
            parts.append(f"By {measured[name].title}: {_short(found)}.")
    parts += [text for text in (claim.note, dose if claim.dosed else "") if text]
    return Answer(claim, own, f"**{claim.text}** ({measured[first].title}): {' '.join(parts)}")


def _tests(claim: Claim, comparison: Comparison) -> bool:
    contrast = comparison.contrast
    return contrast.kind == claim.kind and claim.label in ("", contrast.label)


def _by_verdict(comparisons: Sequence[Comparison]) -> list[tuple[str, list[Comparison]]]:
    groups = [(word, [one for one in comparisons if one.test.sign == sign]) for sign, word in _WORDS.items()]
    return [(word, members) for word, members in groups if members]


def _listed(comparisons: Sequence[Comparison], measure: Measure) -> str:
    """Verdicts with the intervals behind them."""
    return "; ".join(
        f"{word} with {', '.join(_in_full(one, measure) for one in members)}"
        for word, members in _by_verdict(comparisons)
    )


def _short(comparisons: Sequence[Comparison]) -> str:
    return "; ".join(
        f"{word} with {', '.join(one.contrast.reward_model for one in members)}"
        for word, members in _by_verdict(comparisons)
    )


def _in_full(comparison: Comparison, measure: Measure) -> str:
    test = comparison.test
    seeds = f"{test.estimate.n} seed{'s' * (test.estimate.n > 1)}"
    told = [with_interval(test.estimate.mean, test.low, test.high, measure.digits, "+"), seeds]
    if test.reason and test.estimate.n > 1:
        told.append(test.reason)
    if test.sign == 0 and test.detectable is not None:
        told.append(f"detectable {test.detectable:.{measure.digits}f}")
    if test.pooled is not None:
        told.append(f"by the pooled error {pooled_verdict(comparison, measure)}")
    return f"{comparison.contrast.reward_model} ({', '.join(told)})"
