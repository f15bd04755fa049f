"""What a study says as JSON, all of it, and as Markdown for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from page_kit.text import number, with_interval
from recipe.sophiavl.study.claims import pooled_verdict, verdict
from recipe.sophiavl.study.comparisons import (
    MAIN_MODELS,
    MAIN_PAIRS,
    MAIN_SEEDS,
    Comparison,
    Measure,
    Pair,
    in_order,
    unfinished_main,
)
from recipe.sophiavl.study.findings import Findings
from recipe.sophiavl.study.results import UNKNOWN, Cell, ValidationLine, code
from recipe.sophiavl.study.statistics import LEVEL, POWER, Estimate, estimate

FORMAT = "sophiavl-study/1"
_DIGITS = 6  # as many as the raw results have
_OPEN = ("sampled", "thinking")  # measures whose differences are not folded away
_HIGHER, _LOWER = "higher", "lower"
_HOW = f"""\
How to read this. The seed is the unit: cells of one seed see the same questions in the same order, so differences are
paired by seed. Each interval above is Student's t over seeds, corrected (Bonferroni) for the *k* comparisons of its
measure and kind: the planned ones, the interactions, the detections, or the other variants, each either under the
main reward models ({", ".join(MAIN_MODELS)}) or under the others, of which there is a first look. *k* counts all that
are planned, whatever has run yet; the {LEVEL:.0%} holds for one such family, not for this page as a whole. A verdict
follows from that interval alone: where it does not exclude 0, or with fewer than three seeds, the question is
undecided. *Detectable*: the smallest true difference that such an interval would tell from 0 in {POWER:.0%} of studies,
with these seeds' spread, which is itself a guess from few seeds. *Pooled error*: the same interval with the error of
all main cells together (below) in place of these seeds' spread: narrower, and right where all cells have about the
same error. It is given beside the verdict, never in its place; *below x either way* says that it leaves no difference
of x or more. *p of the spread* in the tables of all differences: by the pooled error, the probability of seeds that lie
as close together as these. Near 0 the interval is too narrow by chance, near 1 too wide."""


def as_json(found: Findings) -> dict[str, Any]:
    """Everything, as JSON values without NaN."""
    cells = _by_pair(found.results.cells)
    return _rounded(
        {
            "format": FORMAT,
            "settings": {"level": LEVEL, "power": POWER, "steps_to_accuracy": found.accuracy},
            "measures": {
                one.name: {"title": one.title, "note": one.note, "better": one.better} for one in found.measures
            },
            "interim": unfinished_main(found.values) > 0,
            "runs": _runs(found.results.cells),
            "told": list(found.results.told),
            "missing": list(found.missing),
            "start": {mode: _validated([line]) for mode, line in found.results.start.items()},
            "cells": [
                {
                    "variant": pair[0],
                    "reward_model": pair[1],
                    "seeds": [cell.key.seed for cell in cells[pair]],
                    "final": {
                        mode: _validated([cell.final[mode] for cell in cells[pair]]) for mode in ("greedy", "sampled")
                    },
                    "measures": {name: _measured(by_seed) for name, by_seed in measured.items()},
                    "not_reached": _not_reached(found, pair),
                }
                for pair, measured in found.values.items()
            ],
            "pooled_errors": {name: asdict(error) for name, error in found.errors.items()},
            "pooled_errors_by_model": {
                model: {name: asdict(error) for name, error in errors.items()}
                for model, errors in found.errors_by_model.items()
            },
            "differences": [_difference(one) for one in found.comparisons],
            "claims": [
                {
                    "key": answer.claim.key,
                    "claim": answer.claim.text,
                    "measure": answer.claim.measures[0],
                    "verdicts": {one.contrast.reward_model: verdict(one) for one in answer.comparisons},
                    "sentence": answer.sentence,
                }
                for answer in found.answers
            ],
        }
    )


def as_markdown(found: Findings, figures: Mapping[str, str]) -> str:
    """The page of results.

    Args:
        figures: their files' names, each with its description.
    """
    parts = ["# What the study says", _interim(found), _ran(found)]
    if told := [*found.results.told, *found.missing]:
        parts += ["Left out, not there yet, or unlike the others:", "\n".join(f"- {one}" for one in told)]
    parts += ["## The paper's claims", _claims(found), "\n".join(f"- {one.sentence}" for one in found.answers), _HOW]
    parts += ["## Accuracy by answer type", _by_type(found)]
    parts += ["## Cells", _cells(found), _notes(found.measures)]
    parts += ["## What a seed's chance does", _errors(found)] * bool(found.errors)
    parts += ["## Figures"] * bool(figures)
    parts += [f"![{text.partition(':')[0]}]({name})\n\n*{text}*" for name, text in figures.items()]
    if differences := _differences(found):
        parts += ["## All differences", *differences]
    return "\n\n".join(part for part in parts if part) + "\n"


def _interim(found: Findings) -> str:
    lacking = unfinished_main(found.values)
    if not lacking:
        return ""
    return (
        f"**This is an interim table**: {lacking} of the {len(MAIN_PAIRS)} main pairs of a variant and a reward model "
        f"have fewer than the {MAIN_SEEDS} seeds planned. Looking again as seeds come in is not corrected for, so no "
        f"verdict here is the last word."
    )


def _claims(found: Findings) -> str:
    """The verdicts with the main reward models, by each claim's first measure."""
    measured = {measure.name: measure for measure in found.measures}
    rows = []
    for answer in found.answers:
        shown = {}
        for one in answer.comparisons:
            test, measure = one.test, measured[one.measure]
            told = with_interval(test.estimate.mean, test.low, test.high, measure.digits, "+")
            pooled = pooled_verdict(one, measure)
            beside = f"<br/>pooled error: {pooled}" if pooled else ""
            shown[one.contrast.reward_model] = f"**{verdict(one)}**<br/>{told}{beside}"
        rows.append([answer.claim.text, *(shown.get(model, "–") for model in MAIN_MODELS)])
    return table(["claim", *MAIN_MODELS], rows, texts=len(MAIN_MODELS) + 1)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 2) -> str:
    """A table of GitHub's Markdown.

    Args:
        texts: columns from the left that hold texts; the others are aligned as numbers.
    """
    rule = ["---"] * texts + ["--:"] * (len(columns) - texts)
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, rule, *rows))


def _by_pair(cells: Iterable[Cell]) -> dict[Pair, list[Cell]]:
    found: dict[Pair, list[Cell]] = {}
    for cell in sorted(cells, key=lambda cell: cell.key):
        found.setdefault(cell.key[:2], []).append(cell)
    return {pair: found[pair] for pair in in_order(found)}


def _runs(cells: Sequence[Cell]) -> dict[str, Any]:
    """How the cells were run, and the worst that the checks found."""
    if not cells:
        return {"cells": 0}
    checks = [cell.info.checks for cell in cells if cell.info.checks is not None]
    errors = [one.largest_reward_error for one in checks if one.largest_reward_error is not None]
    correlations = [one.lowest_rollout_correlation for one in checks if one.lowest_rollout_correlation is not None]
    first = [auc for cell in cells if (auc := cell.steps[0].auc_oracle) is not None]
    return {
        "cells": len(cells),
        "missing_scores": {
            str(cell.key): cell.info.checks.missing_scores
            for cell in cells
            if cell.info.checks is not None and cell.info.checks.missing_scores
        },
        "unchecked": [str(cell.key) for cell in cells if cell.info.checks is None],
        "seeds": sorted({cell.key.seed for cell in cells}),
        "steps": cells[0].info.steps,
        "questions": cells[0].final["greedy"].questions,
        "commits": sorted({cell.info.commit or UNKNOWN for cell in cells}),
        "hours": sum(cell.info.seconds for cell in cells) / 3600,
        "responses": sum(one.responses for one in checks),
        "largest_reward_error": max(errors, default=None),
        "lowest_rollout_correlation": min(correlations, default=None),
        "oracle_auc_at_step_1": {"mean": float(np.mean(first)), "lowest": min(first)} if first else None,
    }


def _ran(found: Findings) -> str:
    runs = _runs(found.results.cells)
    if not runs["cells"]:
        return ""
    listed = ", ".join(map(code, runs["commits"]))
    text = (
        f"{runs['cells']} cell{'s' * (runs['cells'] > 1)} of {runs['steps']} training steps, "
        f"seed{'s' * (len(runs['seeds']) > 1)} {', '.join(map(str, runs['seeds']))}, "
        f"{runs['hours']:.1f} hours of runs, commit{'s' * (len(runs['commits']) > 1)} {listed}; validation on "
        f"{runs['questions']} questions."
    )
    if runs["largest_reward_error"] is not None:
        text += (
            f" Rewards of {runs['responses']:,} responses recomputed: largest error {runs['largest_reward_error']:.1e}."
        )
    if runs["lowest_rollout_correlation"] is not None:
        lowest = runs["lowest_rollout_correlation"]
        text += f" Rollout against actor: lowest correlation of token probabilities {lowest:.5f}."
    if runs["missing_scores"]:
        listed = ", ".join(f"{count} of {code(name)}" for name, count in runs["missing_scores"].items())
        text += f" Scores that the reward model was asked for and did not give: {listed}."
    if runs["unchecked"]:
        text += f" Without checks: {', '.join(map(code, runs['unchecked']))}."
    if auc := runs["oracle_auc_at_step_1"]:
        text += f" AUC of the oracle's thinking score for right answers at step 1: {auc['mean']:.2f}"
        text += f" (lowest {auc['lowest']:.2f})"
        start = found.results.start.get("sampled")
        of = start.auc_oracle if start else None
        text += f", in the untrained policy's sampled validation {of:.2f}." if of is not None else "."
    return text


def _validated(lines: Sequence[ValidationLine]) -> dict[str, Any]:
    """Means over the validations of a cell's seeds."""
    thinking = [line.oracle for line in lines if line.oracle is not None]
    return {
        "accuracy": float(np.mean([line.outcome for line in lines])),
        "thinking": float(np.mean(thinking)) if thinking else None,
        "by_type": {kind: float(np.mean([line.by_type[kind] for line in lines])) for kind in lines[0].by_type},
    }


def _measured(by_seed: Mapping[int, float]) -> dict[str, Any] | None:
    if not by_seed:
        return None
    return {
        **asdict(estimate(list(by_seed.values()))),
        "by_seed": {str(seed): value for seed, value in by_seed.items()},
    }


def _not_reached(found: Findings, pair: Pair) -> list[int]:
    """The seeds that never reached the accuracy of `steps_to`."""
    (most,) = (measure.most for measure in found.measures if measure.name == "steps_to")
    return [seed for seed, value in found.values[pair]["steps_to"].items() if value > most]


def _difference(one: Comparison) -> dict[str, Any]:
    test = asdict(one.test)
    return {
        "measure": one.measure,
        "kind": one.contrast.kind,
        "label": one.contrast.label,
        "reward_model": one.contrast.reward_model,
        "terms": [[sign, *pair] for sign, pair in one.contrast.terms],
        "family": one.contrast.family,
        "by_seed": {str(seed): value for seed, value in one.by_seed.items()},
        **test.pop("estimate"),
        "corrected": {name: test[name] for name in ("comparisons", "low", "high", "detectable", "pooled", "spread_p")},
        "p": test["p"],
        "verdict": one.test.verdict(_HIGHER, _LOWER),
        "reason": test["reason"] or None,
    }


def _by_type(found: Findings) -> str:
    """The form of the paper's Table 3: accuracy by answer type and over all questions."""
    cells = _by_pair(found.results.cells)
    if not cells:
        return ""
    kinds = sorted(next(iter(cells.values()))[0].final["sampled"].by_type)
    rows = []
    start = found.results.start
    if "sampled" in start and "greedy" in start:
        row = [start["sampled"].by_type.get(kind) for kind in kinds]
        overall = [start["sampled"].outcome, start["greedy"].outcome]
        rows.append(["", "untrained policy", "", *map(number, [*row, *overall])])
    for (variant, model), own in cells.items():
        by_type = _validated([cell.final["sampled"] for cell in own])["by_type"]
        overall = [
            _plus_minus(estimate([cell.final[mode].outcome for cell in own]), 3) for mode in ("sampled", "greedy")
        ]
        rows.append([model, variant, str(len(own)), *(number(by_type[kind]) for kind in kinds), *overall])
    note = (
        "After the last step, mean over seeds; ± half of the 95 % interval. By type: sampled answers. Reward model "
        "none: outcome rewards alone."
    )
    return f"{table(['reward model', 'variant', 'seeds', *kinds, 'all, sampled', 'all, greedy'], rows)}\n\n{note}"


def _plus_minus(one: Estimate, digits: int) -> str:
    half = "" if one.high is None else f" ± {one.high - one.mean:.{digits}f}"
    return f"{number(one.mean, digits)}{half}"


def _cells(found: Findings) -> str:
    rows = []
    for pair, measured in found.values.items():
        row = [pair[1], pair[0], str(len(measured["greedy"]))]
        for measure in found.measures:
            values = list(measured[measure.name].values())
            text = _plus_minus(estimate(values), measure.digits) if values else "–"
            censored = measure.name == "steps_to" and _not_reached(found, pair)
            row.append(f"≥ {number(estimate(values).mean, measure.digits)}" if censored else text)
        rows.append(row)
    return table(["reward model", "variant", "seeds", *(one.title for one in found.measures)], rows) if rows else ""


def _notes(measured: Sequence[Measure]) -> str:
    return "\n".join(f"- *{one.title}*: {one.note}." for one in measured)


def _differences(found: Findings) -> list[str]:
    parts = []
    for measure in found.measures:
        own = [one for one in found.comparisons if one.measure == measure.name]
        if not own:
            continue
        columns = ["comparison", "reward model", "seeds", "difference [95 %]", "corrected", "k", "detectable"]
        columns += ["verdict", "by the pooled error", "p of the spread"]
        shown = table(columns, [_difference_row(one, measure) for one in own])
        title = measure.title[0].upper() + measure.title[1:]
        folded = f"<details><summary>{title}</summary>\n\n{shown}\n\n</details>"
        parts.append(f"### {title}\n\n{shown}" if measure.name in _OPEN else folded)
    return parts


def _difference_row(one: Comparison, measure: Measure) -> list[str]:
    test, found = one.test, one.test.estimate
    word = test.verdict(_HIGHER, _LOWER)
    low, high = (number(end, measure.digits, "+") for end in (test.low, test.high))
    return [
        one.contrast.label,
        one.contrast.reward_model,
        str(found.n),
        with_interval(found.mean, found.low, found.high, measure.digits, "+"),
        f"[{low}, {high}]" if test.low is not None else test.reason,
        str(test.comparisons or "–"),
        number(test.detectable, measure.digits),
        f"**{word}**" if test.sign else word,
        pooled_verdict(one, measure, _HIGHER, _LOWER) or "–",
        "–" if test.spread_p is None else f"{test.spread_p:.2g}",
    ]


def _errors(found: Findings) -> str:
    rows = []
    for measure in found.measures:
        if error := found.errors.get(measure.name):
            equal = "–" if error.equal_p is None else f"{error.equal_p:.2g}"
            spread = [number(value, measure.digits + 1) for value in (error.sd, error.seeds_sd)]
            of = [found.errors_by_model[model].get(measure.name) for model in MAIN_MODELS]
            by_model = [number(one and one.sd, measure.digits + 1) for one in of]
            rows.append([measure.title, *spread, str(error.df), equal, *by_model])
    columns = ["measure", "error of a cell", "seeds", "degrees of freedom", "p of equal errors"]
    columns += [f"with {model}" for model in MAIN_MODELS]
    note = (
        "Standard deviations over the main cells, by least squares: what is left of a cell's value once the effects of "
        "its variant with its reward model, and of its seed, are taken out (*error of a cell*), and that of the seeds' "
        "effects, which pairing takes out (*seeds*). Where *p of equal errors* (Brown and Forsythe) is small, the "
        "pooled error is not to be trusted for that measure; with so few seeds it often misses what is there. *With* a "
        "reward model: the error of a cell by the cells of that model alone (seeds' effects are its own then)."
    )
    sampling = _sampling_error(found.results.cells)
    if sampling is not None:
        note += (
            f" Of the error of the sampled accuracy, {sampling:.4f} is that of drawing few answers to each of the same "
            f"questions; no interval here covers the choice of the questions."
        )
    return f"{table(columns, rows, texts=1)}\n\n{note}"


def _sampling_error(cells: Sequence[Cell]) -> float | None:
    """Standard error of a cell's sampled accuracy given its policy and its questions, root mean square over cells."""
    found = []
    for cell in cells:
        line = cell.final["sampled"]
        if line.right is not None and line.samples > 1:
            share = np.array([int(count) for count in line.right]) / line.samples
            found.append(float(np.mean(share * (1 - share))) / (line.samples - 1) / line.questions)
    return float(np.sqrt(np.mean(found))) if found else None


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list | tuple) else value
