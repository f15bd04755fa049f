"""The raw results of a study, read and checked: a JSONL file a cell, a cell being a variant, a reward model, a seed.

A file has one line of the kind ``cell``, one of the kind ``step`` for each training step, and lines of the kind
``validation``, after the last step one for each mode. ``start.none.0.jsonl`` is the untrained policy's.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, TypeAdapter, ValidationError

from page_kit.text import shown
from recipe.sophiavl.study.grid import START

MODES = ("greedy", "sampled")
UNKNOWN = "unknown"  # a commit that the runner could not tell

_FILE = re.compile(r"(\w+)\.(\w+)\.(\d+)\.jsonl", re.ASCII)
_SEED = re.compile(r"seed=\d+$")
_MOST = 0.75  # of the variants: a setting that so many have is taken for one that all should have
_SLACK = 1e-6  # of a mean of numbers up to 1, in floating point

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+$")]
Share = Annotated[float, Field(ge=0, le=1 + _SLACK)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


class ResultsError(ValueError):
    """A file of results is wrong; the message names it, the line, and the field."""


class CellKey(NamedTuple):
    """What a cell is."""

    variant: str
    reward_model: str
    seed: int

    def __str__(self) -> str:
        return f"{self.variant}.{self.reward_model}.{self.seed}"


class _Line(BaseModel):
    # Fields that this version does not know are no errors: a later runner may write more.
    model_config = ConfigDict(strict=True, allow_inf_nan=False, frozen=True, extra="ignore")


class Checks(_Line):
    """What the runner checked of a cell's run.

    Attributes:
        largest_reward_error: of a response's reward in the dump against what its parts there give (Eq. 1 to 5).
        lowest_rollout_correlation: of the token probabilities of rollout and actor, over the steps.
        missing_scores: that the reward model was asked for and did not give.
    """

    responses: Count
    largest_reward_error: Annotated[float, Field(ge=0)] | None = None
    lowest_rollout_correlation: Annotated[float, Field(ge=-1 - _SLACK, le=1 + _SLACK)] | None = None
    missing_scores: Count | None = None


class CellLine(_Line):
    """How a cell was run; what a file of an earlier runner lacks is None.

    Attributes:
        command: that served the reward model, with ``{port}`` and ``{seed}``; "" where there was none.
        data: fingerprints of the data.
    """

    kind: Literal["cell"]
    variant: Name
    reward_model: Name
    seed: Count
    steps: Count
    commit: str | None
    overrides: tuple[str, ...]
    seconds: Annotated[float, Field(ge=0)]
    checks: Checks | None = None
    command: str | None = None
    judge: str | None = None
    data: Mapping[str, JsonValue] | None = None
    dtype: str | None = None


class StepLine(_Line):
    """Means over the sampled responses of one training step; None: not measured there.

    Attributes:
        gamma: trust weight over all groups; those without a score on one side have 1.
        gamma_mixed: over the groups in which right and wrong responses have a score.
    """

    kind: Literal["step"]
    step: Positive
    outcome: Share
    thinking: Share | None = None
    oracle: Share | None
    hacked: Share | None = None
    gamma: Share | None = None
    gamma_mixed: Share | None = None
    distrusted: Share | None = None
    anneal: Share | None = None
    length: Annotated[float, Field(ge=0)]
    auc_oracle: Share | None = None


class ValidationLine(_Line):
    """One validation: means over its questions, and each question's own.

    Attributes:
        by_type: mean outcome by answer type.
        samples: responses to each question.
        right: a character a question, how many of its responses have an outcome of at least 0.5.
        oracle_scores: a character a question, tenths of the oracle's mean score with ``a`` for 10.
        auc_oracle: AUC of the oracle's score for a right response.
        forms: share of the responses whose thinking has each form that the judge tells apart.
    """

    kind: Literal["validation"]
    step: Count
    mode: Literal["greedy", "sampled"]
    questions: Positive
    samples: Positive = 1
    outcome: Share
    oracle: Share | None
    length: Annotated[float, Field(ge=0)]
    by_type: Mapping[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_ -]+$")], Share]
    right: Annotated[str, StringConstraints(pattern=r"^[0-9]*$")] | None = None
    oracle_scores: Annotated[str, StringConstraints(pattern=r"^[0-9a]*$")] | None = None
    auc_oracle: Share | None = None
    forms: Mapping[Annotated[str, StringConstraints(max_length=40)], Share] | None = None


Line = CellLine | StepLine | ValidationLine
Numbered = tuple[int, Line]
_LINE: TypeAdapter[Line] = TypeAdapter(Annotated[Line, Field(discriminator="kind")])


@dataclass(frozen=True)
class Cell:
    """One finished run.

    Attributes:
        steps: its training steps 1, 2, … in order.
        final: its validation after the last step, by mode.
    """

    key: CellKey
    info: CellLine
    steps: Sequence[StepLine]
    final: Mapping[str, ValidationLine]


@dataclass(frozen=True)
class Results:
    """What a folder of results holds.

    Attributes:
        cells: those that can be compared with each other, by variant, reward model and seed.
        start: the validation of the untrained policy by mode; empty where there is none.
        told: what was left out, and what a reader should know of the rest; Markdown.
    """

    cells: Sequence[Cell]
    start: Mapping[str, ValidationLine]
    told: Sequence[str]


def read_results(folder: Path) -> Results:
    """Read every finished cell of a folder; unfinished and foreign files are told and left out.

    Raises:
        ResultsError: the folder can't be read, or a line of a file is not what its kind must be.
    """
    if not folder.is_dir():
        raise ResultsError(f"{folder}: no such folder of results")
    cells: list[Cell] = []
    start: dict[str, ValidationLine] = {}
    told = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        name = _FILE.fullmatch(path.name)
        if name is None or not path.is_file():
            told.append(f"{code(path.name)} is no file of results (VARIANT.REWARD_MODEL.SEED.jsonl): left out.")
            continue
        lines, cut = _read_lines(path)
        key = CellKey(name[1], name[2], int(name[3]))
        if cut:
            found: Cell | str = "its last line is cut"
        elif key.variant == START:
            start = _final(path, lines, 0)
            continue
        else:
            found = _cell(path, key, lines)
        if isinstance(found, str):
            told.append(f"{code(path.name)} is unfinished ({found}): left out.")
        else:
            cells.append(found)
    if not cells:
        told.append("There is no finished cell.")
    kept, more = _alike(cells)
    return Results(kept, start, [*told, *more])


def code(text: str) -> str:
    """A text of unknown origin as inline code of Markdown, on one line."""
    return f"`{json.dumps(shown(text), ensure_ascii=False)[1:-1].replace('`', chr(39))}`"


def _read_lines(path: Path) -> tuple[list[Numbered], bool]:
    """The lines with their numbers, and whether the last one is cut off."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path}: can't be read ({error})") from error
    texts = text.split("\n")
    lines = []
    for number, line in enumerate(texts, 1):
        if not line.strip():
            continue
        try:
            lines.append((number, _LINE.validate_json(line)))
        except ValidationError as error:
            if number == len(texts) and error.errors()[0]["type"] == "json_invalid":
                return lines, True
            raise ResultsError(f"{path}: line {number}: {_fault(error)}") from error
    return lines, False


def _fault(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    # A field is below the kind of its line.
    field = ".".join(map(str, first["loc"][1:])) or ("kind" if first["loc"] or "union" in first["type"] else "")
    given = "" if first["type"] in ("missing", "json_invalid") else f" (it is {shown(repr(first['input']))[:80]})"
    return f"{field + ': ' if field else ''}{first['msg']}{given}"


def _cell(path: Path, key: CellKey, lines: Sequence[Numbered]) -> Cell | str:
    """The cell of a file, or why it is unfinished."""
    heads = [(number, line) for number, line in lines if isinstance(line, CellLine)]
    if not heads:
        return "it has no line of the kind cell"
    if len(heads) > 1:
        raise ResultsError(f"{path}: line {heads[1][0]}: kind: a second line of the kind cell")
    info = heads[0][1]
    own = CellKey(info.variant, info.reward_model, info.seed)
    if path.name != f"{own}.jsonl":
        twice = ", which is there too" if (path.parent / f"{own}.jsonl").exists() else ""
        raise ResultsError(f"{path}: line {heads[0][0]}: it holds the cell {own}, whose file is {own}.jsonl{twice}")
    steps = [(number, line) for number, line in lines if isinstance(line, StepLine)]
    for place, (number, line) in enumerate(steps, 1):
        if line.step != place:
            raise ResultsError(f"{path}: line {number}: step: {line.step}, where step {place} must come")
    if len(steps) > info.steps:
        raise ResultsError(f"{path}: line {steps[-1][0]}: step: {len(steps)} of a cell of {info.steps} steps")
    if len(steps) < info.steps:
        return f"{len(steps)} of {info.steps} steps"
    if not steps:
        return "no steps"
    final = _final(path, lines, info.steps)
    missing = [mode for mode in MODES if mode not in final]
    if missing:
        return f"no {' and no '.join(missing)} validation after step {info.steps}"
    return Cell(key, info, [line for _, line in steps], final)


def _final(path: Path, lines: Sequence[Numbered], step: int) -> dict[str, ValidationLine]:
    """The validations after a step, by mode; all validations are checked."""
    found: dict[str, ValidationLine] = {}
    for number, line in lines:
        if not isinstance(line, ValidationLine):
            continue
        where = f"{path}: line {number}"
        for name in ("right", "oracle_scores"):
            text = getattr(line, name)
            if name == "right" and text and int(max(text)) > line.samples:
                raise ResultsError(f"{where}: right: {max(text)} of {line.samples} responses to a question")
            if text is not None and len(text) != line.questions:
                raise ResultsError(f"{where}: {name}: {len(text)} characters for {line.questions} questions")
        if line.step == step:
            if line.mode in found:
                raise ResultsError(f"{where}: mode: a second {line.mode} validation after step {step}")
            found[line.mode] = line
    return found


def _alike(cells: Sequence[Cell]) -> tuple[list[Cell], list[str]]:
    """The cells that share their number of steps and questions, and sentences about the others."""
    told = []
    kept = list(cells)
    for what, of in (
        ("training steps", lambda cell: cell.info.steps),
        ("validation questions", lambda cell: cell.final["greedy"].questions),
        ("answer types", lambda cell: ", ".join(sorted(cell.final["greedy"].by_type))),
    ):
        kept, more = _usual(kept, what, of)
        told += more
    commits = Counter(cell.info.commit for cell in kept)
    if len(commits) > 1:
        listed = ", ".join(f"{code(commit or UNKNOWN)} ({count} cells)" for commit, count in commits.most_common())
        told.append(f"The cells were run with {len(commits)} commits: {listed}.")
    return kept, told + _other_settings(kept)


def _usual(cells: Sequence[Cell], what: str, of: Callable[[Cell], object]) -> tuple[list[Cell], list[str]]:
    counts = Counter(map(of, cells))
    if len(counts) < 2:
        return list(cells), []
    usual = counts.most_common(1)[0][0]
    told = [
        f"{code(str(cell.key))} has {of(cell)} {what}, most cells have {usual}: left out."
        for cell in cells
        if of(cell) != usual
    ]
    return [cell for cell in cells if of(cell) == usual], told


def _other_settings(cells: Sequence[Cell]) -> list[str]:
    """Sentences about cells whose settings are not those of their other seeds, or not those that all variants share."""
    told = []
    commands: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        commands[cell.key.reward_model].append(cell)
    for model, group in commands.items():
        told += _unlike(group, "command of its reward model", lambda info: info.command, f" with {code(model)}")
    for what, of in (
        ("judge", lambda info: info.judge),
        ("fingerprint of its data", lambda info: info.data and json.dumps(info.data, sort_keys=True)),
        ("dtype", lambda info: info.dtype),
    ):
        told += _unlike(cells, what, of)
    groups: dict[str, list[tuple[CellKey, frozenset[str]]]] = defaultdict(list)
    for cell in cells:
        settings = frozenset(one for one in cell.info.overrides if not _SEED.search(one))
        groups[cell.key.variant].append((cell.key, settings))
    usual = {}
    for variant, group in groups.items():
        usual[variant], count = Counter(settings for _, settings in group).most_common(1)[0]
        for key, settings in group:
            if other := ", ".join(map(code, sorted(settings ^ usual[variant]))):
                told.append(f"{code(str(key))} has other settings than {count} cells of its variant: {other}.")
    counts = Counter(one for settings in usual.values() for one in settings)
    shared = {one for one, count in counts.items() if len(usual) > count >= max(_MOST * len(usual), 3)}
    for variant, settings in usual.items():
        if other := ", ".join(map(code, sorted(shared - settings))):
            told.append(f"The variant {code(variant)} lacks settings that most variants have: {other}.")
    return told


def _unlike(cells: Iterable[Cell], what: str, of: Callable[[CellLine], str | None], among: str = "") -> list[str]:
    """Sentences about cells with another value than most; a cell of before there was one counts for none."""
    values = [(cell.key, value) for cell in cells if (value := of(cell.info)) is not None]
    if not values:
        return []
    usual, count = Counter(value for _, value in values).most_common(1)[0]
    return [
        f"{code(str(key))} has another {what} than {count} cells{among}: {code(value)}, and they {code(usual)}."
        for key, value in values
        if value != usual
    ]
