"""The errors of preprocessing, and the names of the faults that a row can have."""

from __future__ import annotations

from enum import StrEnum


class Fault(StrEnum):
    """Why a row cannot be used; the value is the ``fault`` of its line in ``rejected.jsonl``."""

    BAD_FIELD = "bad_field"
    BAD_ROW = "bad_row"  # not a row at all: broken JSON, or other cells than its table has columns
    BAD_SCORE = "bad_score"
    DECOMPRESSION_BOMB = "decompression_bomb"
    EMPTY_TRUTH = "empty_truth"
    IMAGE_MARKS = "image_marks"
    MISSING_IMAGE = "missing_image"
    OUTSIDE_ROOT = "outside_image_root"
    PROMPT_TOO_LONG = "prompt_too_long"
    TRUTH_NOT_IN_OPTIONS = "truth_not_in_options"
    UNKNOWN_TYPE = "unknown_type"
    UNREADABLE_IMAGE = "unreadable_image"


class RowError(ValueError):
    """A row that cannot be used.

    Attributes:
        fault: the kind of fault.
        field: the source's name of the field at fault.
        reason: one sentence for a person.
    """

    def __init__(self, fault: Fault, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.fault = fault
        self.field = field
        self.reason = reason


class PreprocessError(RuntimeError):
    """The run cannot go on; the message says what to change."""


class SourceError(PreprocessError):
    """A source that cannot be found or read."""


class WorkError(PreprocessError):
    """An output folder that cannot be used, or a worker process that died."""


class StrictError(PreprocessError):
    """A bad row met under ``--strict``."""
