"""Does the TRM see what went wrong? Reasoning that the reference rates high is edited, and asked about again."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recipe.sophiavl.trm.client import ThinkingRewardClient
from recipe.sophiavl.trm.client_settings import ClientSettings
from recipe.sophiavl.trm.prompt import clean_thinking, load_template
from recipe.sophiavl.trm_training.evaluate.edits import Edit, mix_languages, plant_error, repeat_steps
from recipe.sophiavl.trm_training.evaluate.rows import EvaluationSet, Row, stream_rows
from recipe.sophiavl.trm_training.evaluate.scoring import Request, Scored, score_all
from recipe.sophiavl.trm_training.evaluate.statistics import Statistic, mean_of, undefined

HIGH = 0.7
DONORS = 32
# Of a very long reasoning only both ends are sent.
HIDDEN = "the edit lies outside what the prompt shows"
MEASURES = {"mean_drop": "mean drop", "share_dropped": "share that dropped", "share_rose": "share that rose"}
TITLES = {
    "unchanged": "unchanged, asked again",
    "wrong_step": "a wrong step planted",
    "languages_mixed": "languages mixed",
    "steps_repeated": "steps repeated",
    "other_image": "other image",
}
"""The edits, in the order in which they are made and shown; the first is a control that must change nothing."""

# Scores differ by less than this through rounding only.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class EditedScore:
    """One edit of the row at `place` among the chosen rows; `scored` is None where the edit did not apply."""

    place: int
    name: str
    edit: Edit
    scored: Scored | None


@dataclass(frozen=True)
class Donor:
    """A row that lends its images and its words to the edits of others."""

    row: Row
    thinking: str
    images: Sequence[Any]


async def score_edits(
    client: ThinkingRewardClient, data: EvaluationSet, scores: Sequence[Scored], limit: int, seed: int
) -> list[EditedScore]:
    """Edit the rows that the reference rates high and that have a score, and ask about each edited text.

    Args:
        limit: most rows to edit, drawn by `seed`.

    Raises:
        ServerError: more than half of the requests failed because of the server or the way to it.
    """
    high = [
        place
        for place, (row, score) in enumerate(zip(data.rows, scores, strict=True))
        if row.reference is not None and row.reference >= HIGH - _ROUNDING and score.value is not None
    ]
    places = sorted(random.Random(seed).sample(high, min(limit, len(high))))
    edits: dict[int, tuple[int, str, Edit]] = {}
    requests = _requests(client.config, data, places, seed, edits)
    found = await score_all(client, requests, len(places) * len(TITLES), "edited texts") if places else {}
    return [EditedScore(*edits[key], found.get(key)) for key in sorted(edits)]


def _requests(
    config: ClientSettings,
    data: EvaluationSet,
    places: Sequence[int],
    seed: int,
    edits: dict[int, tuple[int, str, Edit]],
) -> Iterator[Request]:
    """A request for each edit that applies; `edits` takes all of them, by key."""
    donors = _donors(data, seed)
    template = load_template(config.prompt_path)
    place_of = {data.rows[place].number: place for place in places}
    for number, row in stream_rows(data.file, place_of):
        mine = data.rows[place_of[number]]
        shown = clean_thinking(template, row["thinking"], config.max_thinking_chars)
        for name, (edit, images) in _edits_of(mine, row, donors, seed).items():
            edited = edit.text is not None and edit.text != row["thinking"]
            if edited and clean_thinking(template, edit.text, config.max_thinking_chars) == shown:
                edit = Edit(None, HIDDEN)
            key = len(edits)
            edits[key] = (place_of[number], name, edit)
            if edit.text is not None:
                yield Request(key, row["question"], images, edit.text)


def _edits_of(
    mine: Row, row: Mapping[str, Any], donors: Sequence[Donor], seed: int
) -> dict[str, tuple[Edit, Sequence[Any]]]:
    """Each edit of a row, with the images that it is asked about."""
    chooser = random.Random(f"{seed} {mine.digest.hex()}")
    text, question, images = row["thinking"], row["question"], row["images"] or []
    strangers = [donor for donor in donors if donor.row.question_id != mine.question_id]
    other = chooser.choice(strangers).thinking if strangers else None
    swapped, lent = _other_image(mine, text, strangers, chooser)
    return {
        "unchanged": (Edit(text, "none"), images),
        "wrong_step": (plant_error(text, question, other, chooser), images),
        "languages_mixed": (mix_languages(text, chooser), images),
        "steps_repeated": (repeat_steps(text, chooser), images),
        "other_image": (swapped, lent),
    }


def _other_image(
    mine: Row, text: str, strangers: Sequence[Donor], chooser: random.Random
) -> tuple[Edit, Sequence[Any]]:
    if not mine.image_count:
        return Edit(None, "no image to replace"), []
    others = [donor for donor in strangers if donor.row.image_count and donor.row.images != mine.images]
    # As many images as the question has where that can be: a different number would give the swap away.
    alike = [donor for donor in others if donor.row.image_count == mine.image_count]
    if not others:
        return Edit(None, "no other question with other images"), []
    donor = chooser.choice(alike or others)
    return Edit(text, "images", f"images of row {donor.row.number}"), donor.images


def _donors(data: EvaluationSet, seed: int) -> list[Donor]:
    """Rows of different images and of different questions, read whole; few, since they stay in memory."""
    by_images = {row.images: row for row in reversed(data.rows) if row.image_count}
    by_question = {row.question_id: row for row in reversed(data.rows)}
    chooser = random.Random(seed)
    chosen: dict[int, Row] = {}
    for candidates in (by_images, by_question):
        rows = sorted(candidates.values(), key=lambda row: row.number)
        chosen |= {row.number: row for row in chooser.sample(rows, min(DONORS, len(rows)))}
    return [
        Donor(chosen[number], row["thinking"], row["images"] or []) for number, row in stream_rows(data.file, chosen)
    ]


def drops_of(edited: Sequence[EditedScore], scores: Sequence[Scored], name: str) -> np.ndarray:
    """How much each row's score dropped under the edit `name`, NaN where it was not asked or has no score."""
    drops = np.full(len(scores), np.nan)
    for one in edited:
        before = scores[one.place].value
        if one.name == name and one.scored is not None and one.scored.value is not None and before is not None:
            drops[one.place] = before - one.scored.value
    return drops


def statistics_of(edited: Sequence[EditedScore], scores: Sequence[Scored]) -> dict[str, Statistic]:
    """For each edit its `MEASURES`, as ``<edit>.<measure>``."""
    statistics: dict[str, Statistic] = {}
    for name in TITLES:
        drops = drops_of(edited, scores, name)
        known = ~np.isnan(drops)
        parts = {"mean_drop": drops, "share_dropped": drops > _ROUNDING, "share_rose": drops < -_ROUNDING}
        for measure, values in parts.items():
            statistics[f"{name}.{measure}"] = (
                mean_of(values.astype(float), known)
                if known.any()
                else undefined("no row with a score before and after")
            )
    return statistics


def counts_of(edited: Sequence[EditedScore], name: str) -> dict[str, Any]:
    """How often the edit applied, how it was made, why it did not apply, and which of its scores are missing."""
    mine = [one for one in edited if one.name == name]
    asked = [one.scored for one in mine if one.scored is not None]
    return {
        "rows": len(mine),
        "asked": len(asked),
        "scored": sum(score.value is not None for score in asked),
        "made_by": _counted(one.edit.kind for one in mine if one.scored is not None),
        "not_applied": _counted(one.edit.kind for one in mine if one.scored is None),
        "missing": _counted(score.error for score in asked if score.error is not None),
    }


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))
