"""Does the TRM see what went wrong? Reasoning that the reference rates high is edited, and asked about again.

A drop alone says little: a planted error can also break the form that a judge insists on. So each kind of edit stands
by itself, beside what the judge makes of the same texts, what a scorer without eyes does, and an unchanged control.
"""

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
from recipe.sophiavl.trm_training.asking import Request
from recipe.sophiavl.trm_training.evaluate.blind import TextOnlyScorer
from recipe.sophiavl.trm_training.evaluate.edits import Edit, mix_languages, plant_errors, repeat_steps
from recipe.sophiavl.trm_training.evaluate.rows import EvaluationSet, Row, stream_rows
from recipe.sophiavl.trm_training.evaluate.scoring import Scored, score_all
from recipe.sophiavl.trm_training.evaluate.statistics import Floats, Statistic, mean_at, undefined

HIGH = 0.7
DONORS = 32
# Of a very long reasoning only both ends are sent.
HIDDEN = "the edit lies outside what the prompt shows"
WRONG_STEP = "wrong_step"
TITLES = {
    "unchanged": "unchanged, asked again",
    WRONG_STEP: "a wrong step planted",
    "languages_mixed": "languages mixed",
    "steps_repeated": "steps repeated",
    "other_image": "other image",
}
"""The edits, in the order in which they are made and shown; the first is a control that must change nothing."""
MEASURES = {
    "mean_drop": "mean drop",
    "judge_drop": "the judge's",
    "blind_drop": "text only",
    "share_dropped": "share that dropped",
    "share_rose": "share that rose",
}

# Scores differ by less than this through rounding only.
_ROUNDING = 1e-9
_UNKNOWN = "no row with a score before and after"


@dataclass(frozen=True)
class EditedScore:
    """One edit of the row at `place` among the chosen rows.

    Attributes:
        scored: the TRM's score of the edited text; None where the edit did not apply.
        judged: the judge's; None where it was not asked.
        blind_drop: how much the text-only score dropped; NaN without such a scorer.
    """

    place: int
    name: str
    edit: Edit
    scored: Scored | None
    judged: Scored | None = None
    blind_drop: float = float("nan")


@dataclass(frozen=True)
class Donor:
    """A row that lends its images and its words to the edits of others."""

    row: Row
    thinking: str
    images: Sequence[Any]


@dataclass
class _Made:
    """An edit on its way: the question and the text before, for the text-only scorer."""

    place: int
    name: str
    edit: Edit
    question: str
    before: str


async def score_edits(
    client: ThinkingRewardClient,
    data: EvaluationSet,
    scores: Sequence[Scored],
    limit: int,
    seed: int,
    *,
    judge: ThinkingRewardClient | None = None,
    blind: TextOnlyScorer | None = None,
) -> list[EditedScore]:
    """Edit the rows that the reference rates high and that have a score, and ask about each edited text.

    Args:
        limit: most rows to edit, drawn by `seed`.
        judge: asked about the same edited texts.
        blind: scores the same edited texts without their images.

    Raises:
        ServerError: more than half of the requests failed because of the server or the way to it.
    """
    high = [
        place
        for place, (row, score) in enumerate(zip(data.rows, scores, strict=True))
        if row.reference is not None and row.reference >= HIGH - _ROUNDING and score.value is not None
    ]
    places = sorted(random.Random(seed).sample(high, min(limit, len(high))))
    edits: list[_Made] = []
    if not places:
        return []
    requests = _requests(client.config, data, places, seed, edits)
    # Of planted errors there can be several in a row, so the total is a guess.
    found = await score_all(client, requests, len(places) * len(TITLES), "edited texts")
    judged: dict[int, Scored] = {}
    if judge is not None:
        judged = await score_all(judge, _requests(client.config, data, places, seed, []), len(found), "judge")
    drops = _blind_drops(edits, blind)
    return [
        EditedScore(made.place, made.name, made.edit, found.get(key), judged.get(key), drops[key])
        for key, made in enumerate(edits)
    ]


def _blind_drops(edits: Sequence[_Made], blind: TextOnlyScorer | None) -> Floats:
    drops = np.full(len(edits), np.nan)
    made = [key for key, one in enumerate(edits) if one.edit.text is not None]
    if blind is not None and made:
        before = blind.score((edits[key].question, edits[key].before) for key in made)
        drops[made] = before - blind.score((edits[key].question, edits[key].edit.text or "") for key in made)
    return drops


def _requests(
    config: ClientSettings, data: EvaluationSet, places: Sequence[int], seed: int, edits: list[_Made]
) -> Iterator[Request[int]]:
    """A request for each edit that applies, the same at every call; `edits` takes all of them, in the order of keys."""
    donors = _donors(data, seed)
    template = load_template(config.prompt_path)
    place_of = {data.rows[place].number: place for place in places}
    for number, row in stream_rows(data.file, sorted(place_of)):
        shown = clean_thinking(template, row["thinking"], config.max_thinking_chars)
        for name, edit, images in _edits_of(data.rows[place_of[number]], row, donors, seed):
            edited = edit.text is not None and edit.text != row["thinking"]
            if edited and clean_thinking(template, edit.text, config.max_thinking_chars) == shown:
                edit = Edit(None, HIDDEN)
            edits.append(_Made(place_of[number], name, edit, row["question"], row["thinking"]))
            if edit.text is not None:
                yield Request(len(edits) - 1, row["question"], images, edit.text)


def _edits_of(
    mine: Row, row: Mapping[str, Any], donors: Sequence[Donor], seed: int
) -> Iterator[tuple[str, Edit, Sequence[Any]]]:
    """Each edit of a row, with its name and the images that it is asked about."""
    chooser = random.Random(f"{seed} {mine.digest.hex()}")
    text, question, images = row["thinking"], row["question"], row["images"] or []
    strangers = [donor for donor in donors if donor.row.question_id != mine.question_id]
    other = chooser.choice(strangers).thinking if strangers else None
    swapped, lent = _other_image(mine, text, strangers, chooser)
    yield "unchanged", Edit(text, "none"), images
    for edit in plant_errors(text, question, other, chooser):
        yield WRONG_STEP, edit, images
    yield "languages_mixed", mix_languages(text, chooser), images
    yield "steps_repeated", repeat_steps(text, chooser), images
    yield "other_image", swapped, lent


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
        Donor(chosen[number], row["thinking"], row["images"] or [])
        for number, row in stream_rows(data.file, sorted(chosen))
    ]


def entries_of(edited: Iterable[EditedScore]) -> dict[str, list[EditedScore]]:
    """The edits by name, and after them the planted errors by kind, as ``wrong_step/<kind>``."""
    edited = list(edited)
    entries: dict[str, list[EditedScore]] = {}
    for name in TITLES:
        mine = entries[name] = [one for one in edited if one.name == name]
        if name == WRONG_STEP:
            kinds = dict.fromkeys(one.edit.kind for one in mine if one.scored is not None)
            entries |= {f"{name}/{kind}": [one for one in mine if one.edit.kind == kind] for kind in sorted(kinds)}
    return entries


def title_of(entry: str) -> str:
    """Title of an entry of `entries_of`."""
    name, _, kind = entry.partition("/")
    return f"– by {kind}" if kind else TITLES[name]


def statistics_of(edited: Sequence[EditedScore], scores: Sequence[Scored], reference: Floats) -> dict[str, Statistic]:
    """For each entry its `MEASURES`, as ``<entry>.<measure>``; the judge's only where it was asked, and so the others.

    Args:
        reference: the judge's scores of the texts before, shape (rows,).
    """
    statistics: dict[str, Statistic] = {}
    before = np.array([np.nan if score.value is None else score.value for score in scores])
    for name, mine in entries_of(edited).items():
        places = np.array([one.place for one in mine], dtype=np.intp)
        drops = before[places] - _values(one.scored for one in mine)
        parts = {"mean_drop": drops, "share_dropped": drops > _ROUNDING, "share_rose": drops < -_ROUNDING}
        known = dict.fromkeys(parts, ~np.isnan(drops))
        others = {
            "judge_drop": reference[places] - _values(one.judged for one in mine),
            "blind_drop": np.array([one.blind_drop for one in mine]),
        }
        for measure, values in others.items():
            # Over texts that the TRM scored too, so that the two compare.
            both = ~np.isnan(values) & ~np.isnan(drops)
            if both.any():
                parts[measure], known[measure] = values, both
        for measure, values in parts.items():
            rows = known[measure]
            statistics[f"{name}.{measure}"] = (
                mean_at(values[rows].astype(float), places[rows]) if rows.any() else undefined(_UNKNOWN)
            )
    return statistics


def _values(scores: Iterable[Scored | None]) -> Floats:
    return np.array([np.nan if score is None or score.value is None else score.value for score in scores], dtype=float)


def counts_of(mine: Sequence[EditedScore]) -> dict[str, Any]:
    """How often the edits of an entry applied, how they were made, why not, and which of their scores are missing."""
    asked = [one.scored for one in mine if one.scored is not None]
    return {
        "rows": len({one.place for one in mine}),
        "asked": len(asked),
        "scored": sum(score.value is not None for score in asked),
        "made_by": _counted(one.edit.kind for one in mine if one.scored is not None),
        "not_applied": _counted(one.edit.kind for one in mine if one.scored is None),
        "missing": _counted(score.error for score in asked if score.error is not None),
    }


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))
