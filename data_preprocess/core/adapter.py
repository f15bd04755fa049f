"""What a source's script gives the shared core: how one source row becomes one row of the output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from data_preprocess.core import checks
from data_preprocess.core.errors import Fault, RowError
from data_preprocess.core.images import ImageRef
from data_preprocess.schema import RL_SCHEMA, rl_row


@dataclass(frozen=True)
class Draft:
    """A source row whose text is checked and whose images are still to be read.

    Attributes:
        question: decides, for a text-only row, which side it falls on.
        images: the images in the order of their marks; none for a text-only row.
        image_field: the source's name of the image field, for messages.
        kind: problem type, for the summary.
        data_source: for the summary.
        make_row: from the images' bytes and the row's index to a row of the adapter's schema;
            raises `RowError` for a fault that shows only then.
    """

    question: str
    images: Sequence[ImageRef]
    image_field: str
    kind: str
    data_source: str
    make_row: Callable[[Sequence[bytes], int], dict[str, Any]]


@dataclass(frozen=True)
class Adapter(ABC):
    """One per source format. Sent to worker processes, so it must pickle; its `repr` is part of a run's identity.

    Attributes:
        schema: of the output; holds the row's side in ``split`` or ``extra_info.split``.
        images_beside_file: image paths may start from the folder of the row's file, too, and not only from the root.
    """

    schema: ClassVar[pa.Schema] = RL_SCHEMA
    images_beside_file: ClassVar[bool] = False

    @abstractmethod
    def draft(self, fields: Mapping[str, Any], file: str) -> Draft:
        """Check the text of a row.

        Raises:
            RowError: the row cannot be used.
        """


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
