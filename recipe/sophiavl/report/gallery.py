"""The sampled groups with their texts: fetched from the dumps by offset, and joined with the rows of the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from recipe.sophiavl.report.data_rows import DataRow, Key, find_data_rows
from recipe.sophiavl.report.dumps import Row, decode, group_name, number
from recipe.sophiavl.report.problems import Problems
from recipe.sophiavl.report.run_data import Bounds, Cell, Gallery, Group, Response
from recipe.sophiavl.report.strata import GroupRef, StrataCollector
from recipe.sophiavl.report.texts import readable, shorten

_NO_DATA = "its row was found in no data file of the run"
_OTHER_TRUTH = "the data file has another truth for this row: it is not the one that the run was trained on"


def gallery(
    collector: StrataCollector, files: Sequence[Path], image_key: str, bounds: Bounds, problems: Problems
) -> Gallery:
    """The sample, with what the data says of its questions.

    Args:
        files: the data that the run was trained on.
        image_key: the data's column of images.
    """
    fetched = list(_fetch(collector.chosen(), problems))
    rows = find_data_rows(files, {key for _, rows in fetched if (key := _key(rows[0]))}, bounds, problems, image_key)
    groups = [_group(ref, members, rows, bounds) for ref, members in fetched]
    strata = collector.counts()
    note = (
        f"{len(groups)} groups, drawn at random: the kinds take turns until {bounds.groups} are taken. A group may be "
        "of several kinds. The counts are of the whole run."
        if len(groups) < collector.groups
        else "All groups of the run."
    )
    return Gallery(groups, strata, note)


def _fetch(refs: Sequence[GroupRef], problems: Problems) -> Iterator[tuple[GroupRef, list[Row]]]:
    """The lines of each group, unless the run has written them anew since they were found."""
    for ref in refs:
        try:
            with ref.file.open("rb") as lines:
                rows = [_row_at(lines, offset) for offset in ref.offsets]
        except (OSError, ValueError):
            rows = []
        if rows and all(isinstance(row, dict) and group_name(row) == ref.name for row in rows):
            yield ref, rows
        else:
            problems.add("A dump was written anew while it was read: some groups are not shown", ref.file.name)


def _row_at(lines: BinaryIO, offset: int) -> Any:
    lines.seek(offset)
    return decode(lines.readline())


def _key(row: Row) -> Key | None:
    index = row.get("index")
    if isinstance(index, bool) or not isinstance(index, int) or not -(2**63) <= index < 2**63:
        return None
    return str(row.get("data_source")), str(row.get("split")), index


def _group(ref: GroupRef, members: Sequence[Row], data: Mapping[Key, DataRow], bounds: Bounds) -> Group:
    first = members[0]
    key = _key(first)
    row = data.get(key) if key else None
    truth = None if first.get("gts") is None else str(first["gts"])
    note = row.image_note if row else _NO_DATA
    if row and truth is not None and row.truth != truth:
        row, note = None, _OTHER_TRUTH
    question = row.question if row and row.question is not None else _text(first.get("input"))
    shown = _most_telling(ref, bounds.responses)
    return Group(
        id=blake2b(repr((ref.step, ref.name)).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest(),
        step=ref.step,
        strata=list(ref.strata),
        question=shorten(readable(question), bounds.text_chars)[0],
        options=[shorten(readable(option), bounds.text_chars)[0] for option in row.options] if row else [],
        truth=None if truth is None else shorten(readable(truth), bounds.text_chars)[0],
        problem_type=_optional(first.get("problem_type"), bounds),
        row=", ".join(shorten(readable(str(part)), 100)[0] for part in key) if key else "",
        images=row.images if row else [],
        image_note=note,
        gamma=_share(first.get("gamma")),
        mu_correct=_share(first.get("mu_correct")),
        mu_wrong=_share(first.get("mu_wrong")),
        size=len(members),
        responses=[_response(members[place], ref.flags[place], ref.right[place], bounds) for place in shown],
    )


def _most_telling(ref: GroupRef, most: int) -> list[int]:
    """Which responses to show, in their order: where there are too many, first those that make the group what it is."""
    places = range(len(ref.offsets))
    return sorted(sorted(places, key=lambda place: -len(ref.flags[place]))[:most])


def _response(row: Row, flags: Sequence[str], right: bool, bounds: Bounds) -> Response:
    text, cut = shorten(readable(_text(row.get("output"))), bounds.text_chars)
    error = row.get("thinking_error")
    outcome = _share(row.get("outcome_reward"))
    return Response(
        text=text,
        cut=cut,
        outcome=outcome,
        thinking_reward=_share(row.get("thinking_reward")),
        reward=_finite(row.get("score")),
        format_ok=_truth(row.get("format_ok")),
        answer=_optional(row.get("answer"), bounds),
        thinking_asked=_truth(row.get("thinking_asked")),
        thinking_error=shorten(readable(error), 300)[0] if isinstance(error, str) else "",
        flags=list(flags),
        right=None if outcome is None else right,
    )


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _optional(value: object, bounds: Bounds) -> str | None:
    return None if value is None else shorten(readable(str(value)), bounds.text_chars)[0]


def _truth(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _finite(value: object) -> Cell:
    found = number(value)
    return found if np.isfinite(found) else None


def _share(value: object) -> Cell:
    found = number(value)
    return found if 0 <= found <= 1 else None
