"""One evaluation from the file to its results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_preprocess.core.files import replacing
from recipe.sophiavl.trm.client import ThinkingRewardClient
from recipe.sophiavl.trm.client_settings import ClientSettings
from recipe.sophiavl.trm_training.annotate import asked_with
from recipe.sophiavl.trm_training.asking import Request
from recipe.sophiavl.trm_training.evaluate import figures, sensitivity
from recipe.sophiavl.trm_training.evaluate.blind import TextOnlyScorer
from recipe.sophiavl.trm_training.evaluate.edits import Edit
from recipe.sophiavl.trm_training.evaluate.outputs import (
    FORMAT,
    Evaluation,
    compared_with,
    figure_of,
    load_evaluation,
    save_json,
    summary_of,
)
from recipe.sophiavl.trm_training.evaluate.page import render_page
from recipe.sophiavl.trm_training.evaluate.rows import OPTIONAL, EvaluationSet, stream_rows
from recipe.sophiavl.trm_training.evaluate.scoring import Scored, score_all, settled, values_of
from recipe.sophiavl.trm_training.evaluate.sensitivity import EditedScore, score_edits
from recipe.sophiavl.trm_training.evaluate.statistics import Floats, Statistic, difference_of, intervals
from recipe.sophiavl.trm_training.pairs import read_pairs, write_pairs

WORST = 12
_TEXT, _NUMBER = pa.string(), pa.float64()
# text_only is the score of the text-only baseline.
SCORES_SCHEMA = pa.schema(
    {"pair_id": _TEXT, "row": pa.int64()}
    | dict.fromkeys(("reference", "score", "text_only"), _NUMBER)
    | dict.fromkeys(("error", "reply"), _TEXT)
)
# kind says how an edit was made, or why it could not be.
EDITS_SCHEMA = pa.schema(
    {"pair_id": _TEXT, "row": pa.int64()}
    | dict.fromkeys(("edit", "kind", "detail", "thinking", "error", "reply", "judge_error", "judge_reply"), _TEXT)
    | dict.fromkeys(("before", "score", "judge_score", "text_only_drop"), _NUMBER)
)

_COLUMN_USES = {
    "outcome": "AUC, picks and trust weights are left out",
    "group": "picks, pairs and trust weights are left out",
    "question_id": "questions are told apart by their text and images",
    "response": "the most frequent answer is not known",
}


@dataclass(frozen=True)
class Options:
    """What to evaluate beside the scores.

    Attributes:
        edits_limit: most rows to edit, 0 for none.
        judge: how to ask the judge about edited texts; None leaves it out.
        blind: the text-only baseline; None leaves it out.
        compare: an ``evaluation.json`` to put beside this one.
    """

    limit: int | None = None
    seed: int = 0
    resamples: int = 1000
    edits_limit: int = 500
    judge: ClientSettings | None = None
    blind: TextOnlyScorer | None = None
    compare: Other | None = None


@dataclass(frozen=True)
class Other:
    """Another evaluation, with its scores by row number and its edits where they lie beside it."""

    evaluation: Evaluation
    scores: Mapping[int, Scored] | None
    edits: Sequence[Mapping[str, Any]] | None


@dataclass(frozen=True)
class Results:
    """Everything that an evaluation found; `edited` is None where no edits were asked for."""

    data: EvaluationSet
    scores: Sequence[Scored]
    blind: Floats | None
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
    blind = None if options.blind is None else options.blind.score(_texts(data))
    config = await settled(config)
    judge = None if options.judge is None else await settled(options.judge)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(ThinkingRewardClient(config))
        asked = await score_all(client, _requests(data), len(data.rows), "scoring")
        scores = [asked[place] for place in range(len(data.rows))]
        if options.edits_limit:
            asks = None if judge is None else await stack.enter_async_context(ThinkingRewardClient(judge))
            limit, seed = options.edits_limit, options.seed
            edited = await score_edits(client, data, scores, limit, seed, judge=asks, blind=options.blind)
    return Results(data, scores, blind, edited, evaluation_of(data, scores, blind, edited, config, options))


def save(results: Results, folder: Path) -> None:
    """Write all files of an evaluation into `folder`."""
    data, scores = results.data, results.scores
    write_pairs(folder / "scores.parquet", _score_rows(results), SCORES_SCHEMA)
    if results.edited is not None:
        write_pairs(folder / "edits.parquet", _edit_rows(data, scores, results.edited), EDITS_SCHEMA)
    page = render_page(results.evaluation, data, values_of(scores), _worst(data, scores))
    for name, text in (("evaluation.html", page), ("summary.md", summary_of(results.evaluation))):
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    # Last: where it is, everything is.
    save_json(folder / "evaluation.json", results.evaluation)


def load_other(file: Path) -> Other:
    """Another evaluation to compare with, and its rows' scores where they lie beside it.

    Raises:
        EvaluationError: it is no evaluation of this command.
        PairsError: the files beside it cannot be used.
    """
    scores = edits = None
    evaluation = load_evaluation(file)
    if (beside := file.parent / "scores.parquet").is_file():
        columns = ("row", "score", "error")
        scores = {row["row"]: Scored(row["score"], row["error"], None) for row in read_pairs(beside, columns, columns)}
    if evaluation["sensitivity"] is not None and (beside := file.parent / "edits.parquet").is_file():
        columns = ("row", "edit", "kind", "score", "error")
        edits = list(read_pairs(beside, columns, columns))
    return Other(evaluation, scores, edits)


def _requests(data: EvaluationSet) -> Iterator[Request[int]]:
    for place, (_, row) in enumerate(stream_rows(data.file, [row.number for row in data.rows])):
        yield Request(place, row["question"], row["images"] or [], row["thinking"])


def _texts(data: EvaluationSet) -> Iterator[tuple[str, str]]:
    for _, row in stream_rows(data.file, [row.number for row in data.rows], ("question", "thinking")):
        yield row["question"], row["thinking"]


def evaluation_of(
    data: EvaluationSet,
    scores: Sequence[Scored],
    blind: Floats | None,
    edited: Sequence[EditedScore] | None,
    config: ClientSettings,
    options: Options,
) -> dict[str, Any]:
    """All figures of an evaluation, with their intervals, as it is written to ``evaluation.json``."""
    trm = values_of(scores)
    shown = figures.statistics_of(data, scores, blind)
    bins = figures.reliability(data.reference, trm)
    drops = {} if edited is None else sensitivity.statistics_of(edited, scores, data.reference)
    theirs = _statistics_of_other(data, options.compare)
    differences = {
        f"difference {name}": difference_of(statistic, theirs[name])
        for name, statistic in (shown | drops).items()
        if name in theirs
    }
    everything = {**shown, **bins, **drops, **differences}
    spans = intervals(everything, data.cluster, options.resamples, options.seed)
    done = {name: figure_of(one, spans[name], data.counts(one.rows)) for name, one in everything.items()}
    edges = [k / figures.INTERVALS for k in range(figures.INTERVALS + 1)]
    mean_scores = figures.reliability_scores(data.reference, trm)
    return {
        "format": FORMAT,
        "settings": _settings(data, config, options),
        "rows_digest": data.digest,
        "counts": figures.counts_of(data, scores),
        "notes": _notes(data, scores, done, options.compare),
        "figures": {name: done[name] for name in shown},
        "confusion": {"edges": edges, "counts": figures.confusion(data.reference, trm)},
        "reliability": [
            {"from": edges[k], "to": edges[k + 1], "mean_score": mean_scores[k], **done[name]}
            for k, name in enumerate(bins)
        ],
        "sensitivity": None if edited is None else _sensitivity(edited, done),
        "worst_rows": [data.rows[place].number for place in figures.worst_rows(data.reference, trm, WORST)],
        "compared": None
        if options.compare is None
        else compared_with(
            options.compare.evaluation, {name.removeprefix("difference "): done[name] for name in differences}
        ),
    }


def _sensitivity(edited: Sequence[EditedScore], done: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        entry: {
            **{name: done[f"{entry}.{name}"] for name in sensitivity.MEASURES if f"{entry}.{name}" in done},
            **sensitivity.counts_of(mine),
        }
        for entry, mine in sensitivity.entries_of(edited).items()
    }


def _statistics_of_other(data: EvaluationSet, other: Other | None) -> dict[str, Statistic]:
    """The other evaluation's figures over the same rows, from its scores; none where it is of other rows."""
    numbers = [row.number for row in data.rows]
    if other is None or other.scores is None or other.evaluation["rows_digest"] != data.digest:
        return {}
    if not set(numbers) <= other.scores.keys():
        return {}
    scores = [other.scores[number] for number in numbers]
    statistics = figures.statistics_of(data, scores)
    own = {name for name in statistics if not name.endswith("_reference")}
    if other.edits is None:
        return {name: statistics[name] for name in own}
    places = {number: place for place, number in enumerate(numbers)}
    # What has neither a score nor a reason was never asked.
    edited = [
        EditedScore(places[row["row"]], row["edit"], Edit(None, row["kind"]), Scored(row["score"], row["error"], None))
        for row in other.edits
        if row["score"] is not None or row["error"] is not None
    ]
    drops = sensitivity.statistics_of(edited, scores, np.full(len(numbers), np.nan))
    return {name: statistics[name] for name in own} | drops


def _settings(data: EvaluationSet, config: ClientSettings, options: Options) -> dict[str, Any]:
    return {
        "file": str(data.file),
        "limit": options.limit,
        "seed": options.seed,
        "bootstrap": options.resamples,
        "edits_limit": options.edits_limit,
        "urls": list(config.urls),
        **asked_with(config),
        "judge": None if options.judge is None else asked_with(options.judge),
        "text_only_rows": None if options.blind is None else options.blind.rows,
    }


def _notes(
    data: EvaluationSet, scores: Sequence[Scored], done: Mapping[str, Mapping[str, Any]], other: Other | None
) -> list[str]:
    """What a reader of the figures must know."""
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
    unreferenced = int(np.isnan(data.reference).sum())
    if 0 < unreferenced < len(scores):
        notes.append(f"{unreferenced} rows have no reference score: the figures leave them out")
    moved = done.get("unchanged.share_dropped", {}).get("value"), done.get("unchanged.share_rose", {}).get("value")
    if any(moved):
        notes.append("the unchanged text does not always get its score again: drops of the edits hold that noise too")
    if other is not None:
        settings = other.evaluation["settings"]
        notes.append(f"compared with {settings['model']}, evaluated on {settings['file']}")
        if other.evaluation["rows_digest"] != data.digest:
            notes.append("the compared evaluation is of other rows: differences are no comparison of the models alone")
        elif not any(name.startswith("difference ") for name in done):
            notes.append("no scores.parquet of the same rows lies beside the compared evaluation: no differences")
    return notes


def _score_rows(results: Results) -> Iterator[dict[str, Any]]:
    blind = [None] * len(results.scores) if results.blind is None else results.blind.tolist()
    for row, score, text_only in zip(results.data.rows, results.scores, blind, strict=True):
        yield {
            "pair_id": row.pair_id,
            "row": row.number,
            "reference": row.reference,
            "score": score.value,
            "text_only": text_only,
            "error": score.error,
            "reply": score.reply,
        }


def _edit_rows(
    data: EvaluationSet, scores: Sequence[Scored], edited: Sequence[EditedScore]
) -> Iterator[dict[str, Any]]:
    nothing = Scored(None, None, None)
    for one in edited:
        row, scored, judged = data.rows[one.place], one.scored or nothing, one.judged or nothing
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
            "judge_score": judged.value,
            "judge_error": judged.error,
            "judge_reply": judged.reply,
            "text_only_drop": None if np.isnan(one.blind_drop) else one.blind_drop,
        }


def _worst(data: EvaluationSet, scores: Sequence[Scored]) -> list[dict[str, Any]]:
    """The rows with the largest disagreement, with texts and images, the worst first."""
    places = figures.worst_rows(data.reference, values_of(scores), WORST)
    read = dict(stream_rows(data.file, sorted(data.rows[place].number for place in places)))
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
