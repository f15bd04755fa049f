"""The outcome reward of one response: format first, then the rule of its answer type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reward_score.format import parse_response
from reward_score.multiple_choice import score_multiple_choice
from reward_score.numerical import score_numerical
from reward_score.ocr import score_ocr
from reward_score.settings import DEFAULT_SETTINGS, OutcomeSettings
from reward_score.text import clean_truth

# The names of SophiaVL-R1-130k.
PROBLEM_TYPES = ("numerical", "multiple choice", "OCR", "free-form")
_KNOWN = {name.lower() for name in PROBLEM_TYPES}
# OCR and free-form answers that are longer by far than the truth earn next to nothing, and take seconds to compare.
_TIMES_AS_LONG, _CHARS_MORE = 10, 2_000


@dataclass(frozen=True)
class OutcomeScore:
    """Outcome of one response.

    Attributes:
        reward: in [0, 1]; 0 without the format.
        format_ok: whether the response is ``<think>...</think><answer>...</answer>``.
        answer: text inside ``<answer>``, without surrounding white space; None without the format.
    """

    reward: float
    format_ok: bool
    answer: str | None


def score_outcome(
    problem_type: str,
    response: str,
    ground_truth: str,
    options: Sequence[str] | None = None,
    *,
    settings: OutcomeSettings = DEFAULT_SETTINGS,
) -> OutcomeScore:
    """Score one response by rules. Thread-safe.

    Args:
        problem_type: one of ``PROBLEM_TYPES``, in any case.
        response: the model's whole output.
        ground_truth: the true answer; ``<answer>`` tags or ``$`` around it are taken off.
        options: options of a multiple choice question, in order, with or without their letter; None or empty where
            they are not known. Other types ignore them.
        settings: what counts as right, see :class:`reward_score.settings.OutcomeSettings`.

    Returns:
        The score; ``reward`` is 0 without the format, whatever the answer.

    Raises:
        TypeError: ``ground_truth`` is not a string.
        ValueError: the problem type is unknown, or the ground truth is empty or none of the options.
    """
    kind = str(problem_type).strip().lower()
    if kind not in _KNOWN:
        raise ValueError(f"problem_type={problem_type!r} is unknown: use one of {', '.join(PROBLEM_TYPES)}")
    truth = clean_truth(ground_truth)
    parsed = parse_response(response, require_thinking=settings.require_thinking)
    if parsed is None:
        return OutcomeScore(reward=0.0, format_ok=False, answer=None)
    if kind == "numerical":
        reward = score_numerical(parsed.answer, truth, settings)
    elif kind == "multiple choice":
        reward = score_multiple_choice(parsed.answer, truth, options)
    elif len(parsed.answer) > _TIMES_AS_LONG * len(truth) + _CHARS_MORE:
        reward = 0.0
    elif kind == "ocr":
        reward = score_ocr(parsed.answer, truth, settings.ocr_reward)
    else:
        # Here and not at the top: it imports nltk, seconds and 150 MiB that preprocessing's workers do without.
        from reward_score.free_form import score_free_form

        reward = score_free_form(parsed.answer, truth)
    return OutcomeScore(reward=reward, format_ok=True, answer=parsed.answer)


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    **_: Any,
) -> dict[str, Any]:
    """:func:`score_outcome` through verl's ``custom_reward_function``.

    Args:
        data_source: named in error messages only.
        solution_str: the model's whole output.
        ground_truth: the true answer.
        extra_info: the row's extra fields: ``problem_type`` (needed) and ``options``.
        settings: fields of :class:`OutcomeSettings`, from ``reward_kwargs``; None: the defaults.
        **_: what else verl passes to a reward function (the reward router's address and such).

    Returns:
        ``score`` (the reward), ``format_ok`` and ``answer`` of :class:`OutcomeScore`. No key ``reward``: verl's
        validation collects the scores under that name beside these keys, and would count each twice.

    Raises:
        ValueError: ``extra_info`` has no ``problem_type``, or a setting is wrong; or as :func:`score_outcome`.
        TypeError: as :func:`score_outcome`.
    """
    extra_info = extra_info or {}
    if extra_info.get("problem_type") is None:
        raise ValueError(
            f"extra_info['problem_type'] is missing in a row of data_source={data_source!r}; "
            f"it has {sorted(extra_info)}. It must be one of {', '.join(PROBLEM_TYPES)}"
        )
    outcome = score_outcome(
        extra_info["problem_type"],
        solution_str,
        ground_truth,
        extra_info.get("options"),
        settings=OutcomeSettings(**(settings or {})),
    )
    return {"score": outcome.reward, "format_ok": outcome.format_ok, "answer": outcome.answer}
