"""One evaluation from the file to its results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from recipe.sophiavl.trm.client import ThinkingRewardClient
from recipe.sophiavl.trm.client_settings import ClientSettings
from recipe.sophiavl.trm.prompt import load_template
from recipe.sophiavl.trm_training.evaluate import figures, sensitivity
from recipe.sophiavl.trm_training.evaluate.bootstrap import Interval, intervals
from recipe.sophiavl.trm_training.evaluate.outputs import FORMAT, Evaluation, save_evaluation
from recipe.sophiavl.trm_training.evaluate.page import render_page
from recipe.sophiavl.trm_training.evaluate.rows import (
    OPTIONAL,
    EvaluationSet,
    stream_rows,
)
from recipe.sophiavl.trm_training.evaluate.scoring import Request, Scored, score_all, values_of
from recipe.sophiavl.trm_training.evaluate.sensitivity import EditedScore, score_edits
from recipe.sophiavl.trm_training.evaluate.statistics import Statistic
from recipe.sophiavl.trm_training.pairs import replacing, write_pairs

WORST = 12
SCORES_SCHEMA = pa.schema(
    [
        ("pair_id", pa.string()),
        ("row", pa.int64()),
        ("reference", pa.float64()),
        ("score", pa.float64()),
        ("error", pa.string()),
        ("reply", pa.string()),
    ]
)
EDITS_SCHEMA = pa.schema(
    [
        ("pair_id", pa.string()),
        ("row", pa.int64()),
        ("edit", pa.string()),
        # how it was made, or why it could not be
        ("kind", pa.string()),
        ("detail", pa.string()),
        ("thinking", pa.string()),
        ("before", pa.float64()),
        ("score", pa.float64()),
        ("error", pa.string()),
        ("reply", pa.string()),
    ]
)

_COLUMN_USES = {
    "outcome": "AUC and trust weights are left out",
    "group": "trust weights are left out",
    "question_id": "questions are told apart by their text and images",
}


@dataclass(frozen=True)
class Options:
    """What to evaluate beside the scores: `edits_limit` is the number of edited rows, 0 for none."""

    limit: int | None
    seed: int
    resamples: int
    edits_limit: int


@dataclass(frozen=True)
class Results:
    """Everything that an evaluation found; `edited` is None where no edits were asked for."""

    data: EvaluationSet
    scores: Sequence[Scored]
    edited: Sequence[EditedScore] | None
    evaluation: Evaluation


async def evaluate(data: EvaluationSet, config: ClientSettings, options: Options) -> Results:
    """Ask for all scores and compute all figures.

    Raises:
        ServerError: more than half of the requests failed because of the server or the way to it.
        ValueError: the API key's environment variable is not set.
        PromptError: the prompt file cannot be used.
    """
    edited = None
    async with ThinkingRewardClient(config) as client:
        asked = await score_all(client, _requests(data), len(data.rows), "scoring")
        scores = [asked[place] for place in range(len(data.rows))]
        if options.edits_limit:
            edited = await score_edits(client, data, scores, options.edits_limit, options.seed)
    return Results(data, scores, edited, _evaluation(data, scores, edited, config, options))


def save(results: Results, folder: Path, other: Evaluation | None) -> None:
    """Write all files of an evaluation into `folder`."""
    data, scores = results.data, results.scores
    write_pairs(folder / "scores.parquet", _score_rows(data, scores), SCORES_SCHEMA)
    if results.edited is not None:
        write_pairs(folder / "edits.parquet", _edit_rows(data, scores, results.edited), EDITS_SCHEMA)
    page = render_page(results.evaluation, other, data, values_of(scores), _worst(data, scores))
    with replacing(folder / "evaluation.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    # Last: where it is, everything is.
    save_evaluation(folder / "evaluation.json", results.evaluation)


def _requests(data: EvaluationSet) -> Iterator[Request]:
    place_of = {row.number: place for place, row in enumerate(data.rows)}
    for number, row in stream_rows(data.file, place_of):
        yield Request(place_of[number], row["question"], row["images"] or [], row["thinking"])


def _evaluation(
    data: EvaluationSet,
    scores: Sequence[Scored],
    edited: Sequence[EditedScore] | None,
    config: ClientSettings,
    options: Options,
) -> dict[str, Any]:
    trm = values_of(scores)
    shown = figures.statistics_of(data, scores)
    bins = figures.reliability(data.reference, trm)
    mean_scores = figures.reliability_scores(data.reference, trm)
    drops = sensitivity.statistics_of(edited, scores) if edited is not None else {}
    everything = {**shown, **bins, **drops}
    spans = intervals(everything, data.question, options.resamples, options.seed)
    done = {name: _figure(statistic, spans[name]) for name, statistic in everything.items()}
    edges = [k / figures.INTERVALS for k in range(figures.INTERVALS + 1)]
    return {
        "format": FORMAT,
        "settings": _settings(data, config, options),
        "rows_digest": data.digest,
        "counts": figures.counts_of(data, scores),
        "notes": _notes(data, scores, done),
        "figures": {name: done[name] for name in shown},
        "confusion": {"edges": edges, "counts": figures.confusion(data.reference, trm)},
        "reliability": [
            {"from": edges[k], "to": edges[k + 1], "mean_score": mean_scores[k], **done[name]}
            for k, name in enumerate(bins)
        ],
        "sensitivity": None
        if edited is None
        else {
            name: {
                **{measure: done[f"{name}.{measure}"] for measure in sensitivity.MEASURES},
                **sensitivity.counts_of(edited, name),
            }
            for name in sensitivity.TITLES
        },
        "worst_rows": [data.rows[place].number for place in figures.worst_rows(data.reference, trm, WORST)],
    }


def _figure(statistic: Statistic, span: Interval) -> dict[str, Any]:
    """Value, interval, number of rows (or groups); ``reason`` where the value or its interval is null."""
    figure = {"value": statistic.value(), "low": span.low, "high": span.high, "n": statistic.n}
    return figure if span.reason is None else {**figure, "reason": span.reason}


def _settings(data: EvaluationSet, config: ClientSettings, options: Options) -> dict[str, Any]:
    names = (
        "model",
        "score_mode",
        "structured_output",
        "temperature",
        "max_tokens",
        "max_thinking_chars",
        "prompt_path",
    )
    return {
        "file": str(data.file),
        "limit": options.limit,
        "seed": options.seed,
        "bootstrap": options.resamples,
        "edits_limit": options.edits_limit,
        "urls": list(config.urls),
        **{name: getattr(config, name) for name in names},
        "prompt_digest": load_template(config.prompt_path).digest.hex(),
    }


def _notes(data: EvaluationSet, scores: Sequence[Scored], done: Mapping[str, Mapping[str, Any]]) -> list[str]:
    notes = [
        f"the file has no column {name}: {use}"
        for name, use in _COLUMN_USES.items()
        if name in OPTIONAL and name not in data.columns
    ]
    if len(data.rows) < data.total:
        notes.append(f"{len(data.rows)} of the file's {data.total} rows were drawn")
    missing = sum(score.value is None for score in scores)
    if missing:
        notes.append(f"{missing} of {len(scores)} rows have no TRM score: figures of agreement leave them out")
    unreferenced = figures.counts_of(data, scores)["without_reference"]
    if unreferenced:
        notes.append(f"{unreferenced} rows have no reference score")
    moved = done.get("unchanged.share_dropped", {}).get("value"), done.get("unchanged.share_rose", {}).get("value")
    if any(moved):
        notes.append("the unchanged text does not always get its score again: drops of the edits hold that noise too")
    return notes


def _score_rows(data: EvaluationSet, scores: Sequence[Scored]) -> Iterator[dict[str, Any]]:
    for row, score in zip(data.rows, scores, strict=True):
        yield {
            "pair_id": row.pair_id,
            "row": row.number,
            "reference": row.reference,
            "score": score.value,
            "error": score.error,
            "reply": score.reply,
        }


def _edit_rows(
    data: EvaluationSet, scores: Sequence[Scored], edited: Sequence[EditedScore]
) -> Iterator[dict[str, Any]]:
    for one in edited:
        row, scored = data.rows[one.place], one.scored or Scored(None, None, None)
        yield {
            "pair_id": row.pair_id,
            "row": row.number,
            "edit": one.name,
            "kind": one.edit.kind,
            "detail": one.edit.detail,
            "thinking": one.edit.text,
            "before": scores[one.place].value,
            "score": scored.value,
            "error": scored.error,
            "reply": scored.reply,
        }


def _worst(data: EvaluationSet, scores: Sequence[Scored]) -> list[dict[str, Any]]:
    """The rows with the largest disagreement, with texts and images, the worst first."""
    places = figures.worst_rows(data.reference, values_of(scores), WORST)
    read = dict(stream_rows(data.file, [data.rows[place].number for place in places]))
    return [
        {
            **read[data.rows[place].number],
            "number": data.rows[place].number,
            "reference": data.rows[place].reference,
            "score": scores[place].value,
            "reply": scores[place].reply,
        }
        for place in places
    ]
