"""The parquet schemas that the preprocessors write: verl's RL rows, and scored reasoning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from data_preprocess.core.parquet import IMAGE
from reward_score.option_labels import labelled_options

SYSTEM_PROMPT = (
    "Reason about the question first, then answer. Write the reasoning between <think> and </think> "
    "and after it only the final answer between <answer> and </answer>."
)

_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])

RL_SCHEMA = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", pa.list_(_MESSAGE)),
        ("images", pa.list_(IMAGE)),
        ("ability", pa.string()),
        ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
        (
            "extra_info",
            pa.struct(
                [
                    ("split", pa.string()),
                    ("index", pa.int64()),
                    ("problem_type", pa.string()),
                    ("question", pa.string()),
                    ("options", pa.list_(pa.string())),
                    ("answer", pa.string()),
                ]
            ),
        ),
    ]
)


THINKING_SCHEMA = pa.schema(
    [
        ("data_source", pa.string()),
        ("question", pa.string()),
        ("images", pa.list_(IMAGE)),
        ("thinking", pa.string()),
        ("score", pa.float64()),
        ("split", pa.string()),
        ("index", pa.int64()),
    ]
)
"""Scored reasoning, for the training of a thinking reward model.

The prompt is not part of it: the training side renders these columns with the template that also serves.
"""


def rl_row(
    *,
    data_source: str,
    question: str,
    problem_type: str,
    answer: str,
    split: str,
    index: int,
    images: Sequence[bytes] = (),
    options: Sequence[str] = (),
    ability: str = "vqa",
    system_prompt: str = SYSTEM_PROMPT,
) -> dict[str, Any]:
    """One row of ``RL_SCHEMA``.

    Args:
        images: encoded image files (PNG or JPEG bytes), stored untouched; none for a text-only question.
        question: the question's own text. ``<image>`` marks where an image goes; missing marks are put in front.
        options: the choices of a multiple choice question, appended one a line with their letters.
        answer: the truth: a letter for multiple choice, a number, a text.

    Raises:
        ValueError: more ``<image>`` marks than images.
    """
    lines = [_marked(question, len(images)), *labelled_options(options)]
    return {
        "data_source": data_source,
        "prompt": [
            {"role": "system", "content": system_prompt},
            {"role": "user", "content": "\n".join(lines)},
        ],
        "images": [{"bytes": data, "path": None} for data in images],
        "ability": ability,
        "reward_model": {"style": "rule", "ground_truth": answer},
        "extra_info": {
            "split": split,
            "index": index,
            "problem_type": problem_type,
            "question": question.replace("<image>", "").strip(),
            "options": list(options),
            "answer": answer,
        },
    }


def thinking_row(
    *,
    data_source: str,
    question: str,
    thinking: str,
    score: float,
    split: str,
    index: int,
    images: Sequence[bytes] = (),
) -> dict[str, Any]:
    """One row of ``THINKING_SCHEMA``.

    Args:
        question: may hold ``<image>`` marks; missing ones are put in front.
        thinking: the reasoning to be judged, without the final answer.
        score: its score, in [0, 1].
        images: encoded image files; none for a text-only question.

    Raises:
        ValueError: more ``<image>`` marks than images.
    """
    return {
        "data_source": data_source,
        "question": _marked(question, len(images)),
        "images": [{"bytes": data, "path": None} for data in images],
        "thinking": thinking,
        "score": score,
        "split": split,
        "index": index,
    }


def _marked(question: str, images: int) -> str:
    """The question with one ``<image>`` mark for each image."""
    marks = question.count("<image>")
    if marks > images:
        raise ValueError(f"question has {marks} <image> marks but {images} images")
    return "<image>" * (images - marks) + question.strip()


def with_split(batch: pa.RecordBatch, split: str) -> pa.RecordBatch:
    """The rows with `split` written into their ``extra_info.split``, or into ``split`` where that is a column."""
    names = batch.schema.names
    column = "split" if "split" in names else "extra_info"
    position = names.index(column)
    values = pa.array([split] * batch.num_rows, pa.string())
    if column == "extra_info":
        struct = batch.column(position)
        fields = struct.type.fields
        values = pa.StructArray.from_arrays(
            [values if field.name == "split" else struct.field(field.name) for field in fields], fields=fields
        )
    return batch.set_column(position, batch.schema.field(position), values)
