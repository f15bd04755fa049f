"""What the report shows of a run, as plain data: numbers, text, and thumbnails as data URIs; nothing here computes.

`load.load_run` makes a `RunData` of a run's folder, `load.load_runs` a `Comparison` of several. All text that came from
a model, a data set or a file is as it came: whoever shows it escapes it. Every number is finite; what was not measured
is None, and a sentence says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Cell = float | None


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        label: what the legend says.
        steps: global training steps, ascending.
        values: one a step, finite.
        low, high: a band around the values, as long as they are; None where there is none. The chart's note says what
            the band is.
        run: the place, from 0, of the run (or of the group of seeds) that it belongs to: lines of one run share it.
    """

    label: str
    steps: Sequence[int]
    values: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    run: int = 0


@dataclass(frozen=True)
class Chart:
    """Lines that mean the same thing, on one axis.

    Attributes:
        key: a stable name for anchors, ``[a-z_]+``.
        title: what is drawn.
        unit: of the values: ``tokens``, ``s``, ``share``; empty where they have none.
        note: how the numbers were computed, in a sentence or two.
        limits: ends of the axis where the quantity has them, such as (0, 1); None lets the values decide.
        kind: ``lines``, or ``stack`` where the lines are parts of a whole and may be drawn on top of one another.
        warning: a range of values that calls for attention, to be drawn as a band; None where there is none.
    """

    key: str
    title: str
    unit: str
    lines: Sequence[Line]
    note: str
    limits: tuple[float, float] | None = None
    kind: Literal["lines", "stack"] = "lines"
    warning: tuple[float, float] | None = None


@dataclass(frozen=True)
class ValidationRow:
    """One validation of one variable.

    Attributes:
        mode: way of validation, such as ``greedy``.
        variable: ``outcome_reward``, ``thinking_reward`` or ``format_ok``.
        kind: answer type; None: all of them.
        mean: over questions, each the mean of its responses.
        stderr: standard error of that mean over questions; None where it has none.
        count: number of questions; None where neither the metrics nor a dump tell it.
    """

    step: int
    mode: str
    variable: str
    kind: str | None
    mean: float
    stderr: Cell
    count: int | None


@dataclass(frozen=True)
class TrustPoint:
    """A group of a training step in which both sides have scores.

    Attributes:
        mu_correct, mu_wrong: mean thinking reward of its right and of its wrong responses, in [0, 1].
        gamma: trust weight that was applied, in (0, 1].
        size: responses in the group.
    """

    step: int
    mu_correct: float
    mu_wrong: float
    gamma: float
    size: int


@dataclass(frozen=True)
class Auc:
    """Area under the ROC curve of the thinking reward as a predictor of correctness, in [0, 1]; 0.5 is a coin's.

    Attributes:
        value: None where it is undefined, and `reason` says why.
        low, high: 95 % interval; None where there is none.
    """

    value: Cell
    low: Cell = None
    high: Cell = None
    reason: str | None = None


@dataclass(frozen=True)
class TrustBin:
    """Some training steps in a row, taken together.

    Attributes:
        first, last: its steps, both included.
        right, wrong: number of scored right and wrong responses by thinking reward, each of length
            ``len(Trust.cells)``.
        auc: over all pairs of a right and a wrong response.
        auc_within: over the pairs of the same group only, so that how hard a question is plays no part.
    """

    first: int
    last: int
    right: Sequence[int]
    wrong: Sequence[int]
    auc: Auc
    auc_within: Auc


@dataclass(frozen=True)
class Verdict:
    """What the course of the AUC says.

    Attributes:
        level: ``ok``, ``warning`` (it fell, or is no better than a coin's), or ``unknown``.
        text: a plain sentence with the numbers.
        change: AUC of the last steps less that of the first ones, with its 95 % interval.
    """

    level: Literal["ok", "warning", "unknown"]
    text: str
    change: Auc


@dataclass(frozen=True)
class Trust:
    """Whether the thinking reward can be trusted.

    Attributes:
        points: groups for the plot of mu_correct against mu_wrong, by step; a uniform sample where there are more than
            the plot takes.
        points_of: how many such groups there are in all.
        groups: groups with a thinking term in all.
        distrusted: of these, groups with gamma below 1.
        cells: centres of the cells of the distributions, in [0, 1].
        bins: in the order of steps.
        warning: the range of the AUC that calls for attention.
        verdict: None where the run has no thinking reward.
        notes: how each figure was computed, by ``points``, ``distributions`` and ``auc``.
    """

    points: Sequence[TrustPoint]
    points_of: int
    groups: int
    distrusted: int
    cells: Sequence[float]
    bins: Sequence[TrustBin]
    warning: tuple[float, float]
    verdict: Verdict | None
    notes: dict[str, str]


@dataclass(frozen=True)
class Thumbnail:
    """An image, scaled down and encoded anew.

    Attributes:
        uri: ``data:image/webp;base64,…``.
        width, height: of the thumbnail, in pixels.
        source_width, source_height: of the image, in pixels.
    """

    uri: str
    width: int
    height: int
    source_width: int
    source_height: int


@dataclass(frozen=True)
class Response:
    """A response of a group.

    Attributes:
        text: at most so many characters; `cut` of its middle were left out (0: it is whole), where it says so.
        flags: keys of `Stratum` that this response makes its group one of.
        right: whether its outcome is at the run's threshold of correctness, for its answer type; None: no outcome.
        thinking_reward: None: missing, or not asked for; `thinking_error` tells the first.
    """

    text: str
    cut: int
    outcome: Cell
    thinking_reward: Cell
    reward: Cell
    format_ok: bool | None
    answer: str | None
    thinking_asked: bool | None
    thinking_error: str
    flags: Sequence[str]
    right: bool | None


@dataclass(frozen=True)
class Group:
    """A question with its group of responses at one step.

    Attributes:
        id: unique in its run, ``[0-9a-f]+``: for links.
        strata: keys of `Stratum` that are true of it, at least one.
        question: as the data has it; as the prompt where the data is gone.
        truth: None: unknown.
        row: which row of the data, such as ``easy_vqa, train, 768``.
        images: thumbnails, in order; `image_note` says why some or all are not there.
        gamma, mu_correct, mu_wrong: of the group; None where it has none.
        responses: at most so many; `size` is how many there are.
    """

    id: str
    step: int
    strata: Sequence[str]
    question: str
    options: Sequence[str]
    truth: str | None
    problem_type: str | None
    row: str
    images: Sequence[Thumbnail]
    image_note: str
    gamma: Cell
    mu_correct: Cell
    mu_wrong: Cell
    size: int
    responses: Sequence[Response]


@dataclass(frozen=True)
class Stratum:
    """A kind of group that the gallery has a filter for.

    Attributes:
        key: ``wrong_thinking_right_answer``, ``right_thinking_wrong_answer``, ``distrusted``, ``format_failure``,
            ``missing_score`` or ``ordinary`` (none of the others).
        meaning: what makes a group one of these, in words, with the bounds.
        groups, responses: how many of the run are; the responses are those that make their group one.
    """

    key: str
    label: str
    meaning: str
    groups: int
    responses: int


@dataclass(frozen=True)
class Gallery:
    """A bounded sample of groups, by step: as many of each kind as there are, up to a number."""

    groups: Sequence[Group]
    strata: Sequence[Stratum]
    note: str


@dataclass(frozen=True)
class Sentence:
    """Something that a reader should know after ten seconds.

    Attributes:
        kind: ``what`` was trained on what; ``progress``: how far it came; ``problem``: what went wrong; ``fine``: what
            was looked for and not found; ``missing``: what this report could not read or show, and why.
    """

    kind: Literal["what", "progress", "problem", "fine", "missing"]
    text: str


@dataclass(frozen=True)
class Setting:
    """A setting in words: ``Policy``, ``Qwen2.5-VL-7B-Instruct``, and the key that it was read from."""

    label: str
    value: str
    key: str


@dataclass(frozen=True)
class RunData:
    """All that the report shows of a run.

    Attributes:
        name: of its folder.
        folder: the path as given.
        steps: training steps that were logged; `planned`: how many it is to take, None: unknown.
        finished: whether it came to its end.
        responses, groups: read from the rollout dumps.
        sentences: the ten-seconds list, in order.
        settings: model, data, algorithm.
        curves: each metric that was logged (and ``gamma/q05`` … from the dumps), as steps and values, for tables and
            exports; `charts` draws the ones that matter.
        charts: in order.
        validation: by step, way, variable and answer type.
        trust: None where nothing was dumped, or the run has no thinking reward.
        gallery: None where nothing was dumped.
    """

    name: str
    folder: str
    steps: int
    planned: int | None
    finished: bool
    responses: int
    groups: int
    sentences: Sequence[Sentence]
    settings: Sequence[Setting]
    curves: dict[str, tuple[Sequence[int], Sequence[float]]]
    charts: Sequence[Chart]
    validation: Sequence[ValidationRow]
    trust: Trust | None
    gallery: Gallery | None


@dataclass(frozen=True)
class SeedGroup:
    """Runs that differ in nothing but their seeds, or a single run.

    Attributes:
        label: what the legends call it.
        runs: places in `Comparison.runs`.
        differs: settings by which it differs from the other groups, as ``key=value``.
    """

    label: str
    runs: Sequence[int]
    differs: Sequence[str]


@dataclass(frozen=True)
class Comparison:
    """Several runs.

    Attributes:
        runs: in the order given.
        groups: the lines of the charts; `Line.run` is a place in here.
        charts: overlaid; of several seeds the mean, with the lowest and the highest as a band.
        sentences: what was taken together, and what could not be compared.
    """

    runs: Sequence[RunData]
    groups: Sequence[SeedGroup]
    charts: Sequence[Chart]
    sentences: Sequence[Sentence] = field(default_factory=tuple)


@dataclass(frozen=True)
class Bounds:
    """How much a report holds at most, so that the page stays small whatever the run's size.

    Attributes:
        groups: of the gallery.
        responses: of a group.
        text_chars: of a response or a question.
        images: of a group.
        image_pixels: of a thumbnail.
        points: of the plot of trust.
        line_points: of a line; more steps than that are averaged in blocks.
    """

    groups: int = 120
    responses: int = 16
    text_chars: int = 4000
    images: int = 4
    image_pixels: int = 320 * 240
    points: int = 4000
    line_points: int = 1500
