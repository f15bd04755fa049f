"""The part of an adapter that all sources of RL rows share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from data_preprocess.core import checks
from data_preprocess.core.adapter import Draft
from data_preprocess.core.errors import Fault, RowError
from data_preprocess.core.images import ImageRef
from data_preprocess.schema import rl_row


@dataclass(frozen=True)
class FieldNames:
    """The source's names for what an RL row is made of."""

    question: str = "problem"
    answer: str = "solution"
    problem_type: str = "problem_type"
    options: str = "options"
    images: str = "path"
    data_source: str = "data_source"


def rl_draft(
    names: FieldNames,
    *,
    question: Any,
    answer: Any,
    problem_type: Any,
    options: Any,
    images: Sequence[ImageRef],
    data_source: str,
    ability: str,
    max_prompt_chars: int | None,
) -> Draft:
    """Check a row's text as it came from the source, and say how to make its RL row.

    Args:
        names: for the messages.
        images: the images to read; none for a text-only question.
        max_prompt_chars: longest prompt, system and user message together, in characters; None for no limit.

    Raises:
        RowError: the row cannot be used.
    """
    asked = checks.question_field(question, names.question)
    kind = checks.problem_type_field(problem_type, names.problem_type)
    truth = checks.truth_field(answer, names.answer)
    choices = checks.options_field(options, names.options)
    if kind == checks.MULTIPLE_CHOICE:
        truth = checks.choice_truth(truth, choices, asked, names.answer)
    elif kind == checks.NUMERICAL:
        truth = checks.numerical_truth(truth, names.answer)

    def make_row(data: Sequence[bytes], index: int) -> dict[str, Any]:
        try:
            row = rl_row(
                data_source=data_source,
                question=asked,
                problem_type=kind,
                answer=truth,
                split="",
                index=index,
                images=data,
                options=choices,
                ability=ability,
            )
        except ValueError as error:
            raise RowError(Fault.IMAGE_MARKS, names.question, str(error)) from error
        contents = [message["content"] for message in row["prompt"]]
        checks.check_image_marks("".join(contents), len(data), names.question)
        checks.check_length(sum(map(len, contents)), max_prompt_chars, names.question)
        return row

    return Draft(asked, images, names.images, kind, data_source, make_row)
