"""Settings that are checked when they are made: frozen pydantic dataclasses whose errors name the setting.

Every group of settings in this package is one: ``@settings_group("thinking_reward")`` above a plain class with types,
ranges (``Annotated[float, Field(ge=0)]``) and, where two settings depend on each other, a ``__post_init__`` that raises
`SettingsError`. Types are strict (no text for a number, no number for true or false), and no number may be NaN or
infinite.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, TypeVar, dataclass_transform

from omegaconf import DictConfig, OmegaConf
from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass

T = TypeVar("T")
FLAGS = "--"
_STRICT = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid", hide_input_in_errors=True)


class SettingsError(ValueError):
    """A setting is wrong; the message names it, its value, and what to change."""


@dataclass_transform(frozen_default=True)
def settings_group(name: str) -> Callable[[type[T]], type[T]]:
    """Make a class a frozen dataclass that raises `SettingsError` for a value of the wrong type or out of range.

    Args:
        name: the Hydra group that the fields stand in, for the messages: ``thinking_reward.alpha=-1: …``; `FLAGS` where
            they are flags of a command: ``--test-fraction=2: …``.
    """

    def decorate(cls: type[T]) -> type[T]:
        made = dataclass(frozen=True, config=_STRICT)(cls)
        init = made.__init__

        def __init__(self: Any, *args: Any, **values: Any) -> None:
            try:
                init(self, *args, **values)
            except ValidationError as error:
                raise SettingsError(_message(name, made, error)) from error

        made.__init__ = __init__
        return made

    return decorate


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` (did you mean …?)`` with the known name most like `name`, whatever its case; empty where none is."""
    by_small = {one.lower(): one for one in known}
    found = difflib.get_close_matches(name.lower(), by_small, n=1)
    return f" (did you mean {by_small[found[0]]}?)" if found else ""


def no_such_setting(name: str, known: Iterable[str]) -> str:
    """What to say of the name of a setting that there is not."""
    known = sorted(known)
    return f"no such setting{did_you_mean(name, known)}; known are {', '.join(known)}"


def _message(group: str, kind: type, error: ValidationError) -> str:
    lines = []
    for fault in error.errors(include_url=False):
        setting = ".".join([group, *map(str, fault["loc"][:1])])
        if group == FLAGS:
            setting = FLAGS + "".join(map(str, fault["loc"][:1])).replace("_", "-")
        given, told = fault["input"], fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "unexpected_keyword_argument":
            lines.append(f"{setting}: {no_such_setting(str(fault['loc'][0]), (field.name for field in fields(kind)))}")
        elif fault["type"] == "missing":
            lines.append(f"{setting}: must be set")
        elif isinstance(own := fault.get("ctx", {}).get("error"), SettingsError):
            lines.append(str(own))
        elif fault["type"] in ("literal_error", "bool_type"):
            choices = re.findall(r"'([^']*)'", fault.get("ctx", {}).get("expected", "'true' 'false'"))
            lines.append(f"{setting}={given!r}: {told}{did_you_mean(str(given), choices)}")
        else:
            lines.append(f"{setting}={given!r}: {'must be set. ' if given is None else ''}{told}")
    return "\n".join(dict.fromkeys(lines))


def make(group: str, kind: type[T], values: Mapping[str, Any]) -> T:
    """A pydantic dataclass of another package, with errors that name the setting of this group.

    Raises:
        SettingsError: an unknown key, or a value of the wrong type or out of range.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        raise SettingsError(_message(group, kind, error)) from error


def read_group(kind: type[T], group: DictConfig | Mapping[str, Any]) -> T:
    """A Hydra group as settings of this kind.

    Raises:
        SettingsError: an unknown key, or a value of the wrong type or out of range.
    """
    return kind(**plain(group))


def plain(group: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """A Hydra group as a dictionary, with its references resolved."""
    return OmegaConf.to_container(group, resolve=True) if isinstance(group, DictConfig) else dict(group)
