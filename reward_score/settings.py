"""What counts as right, where more than one answer to that is sensible."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, config=ConfigDict(strict=True, allow_inf_nan=False, extra="forbid"))
class OutcomeSettings:
    """Settings of the outcome rewards. A wrong value raises pydantic's ``ValidationError`` (a ``ValueError``).

    Attributes:
        ocr_reward: ``exp`` = exp(-WER); ``linear`` = 1 - WER, clipped at 0.
        strict_percent: a percent sign is a factor of 1/100 and nothing else. False: a sign on one side only may also be
            a unit, so that ``5%`` is right for the truths 5 and 0.05 alike.
        require_unit: an answer without the truth's unit, or with one that the truth lacks, is wrong. False: a unit
            counts only where both sides have one, so that ``5`` is right for the truths ``5 cm`` and ``5 m`` alike.
        unevaluated_work: ``37*48`` is right for the truth 1776. False: where the truth is a plain number, so is the
            answer (fractions are; a chain ``37*48 = 1776`` is, too).
        tolerance: a number within this share of the truth is right, as 0.05 for values read off a chart, 0.01 for
            rounded truths; in [0, 1). 0: equal to 6 decimals (6 digits below 1).
        require_thinking: a response with nothing inside ``<think>`` does not have the format.
    """

    ocr_reward: Literal["exp", "linear"] = "exp"
    strict_percent: bool = False
    require_unit: bool = False
    unevaluated_work: bool = True
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.0
    require_thinking: bool = False


DEFAULT_SETTINGS = OutcomeSettings()
