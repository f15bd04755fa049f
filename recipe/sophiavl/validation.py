"""Settings that are checked when they are made: frozen pydantic dataclasses whose errors name the setting.

Every group of settings in this package is one: ``@settings_group("thinking_reward")`` above a plain class with types,
ranges (``Annotated[float, Field(ge=0)]``) and, where two settings depend on each other, a ``__post_init__`` that raises
`SettingsError`. Types are strict (no text for a number, no number for true or false), and no number may be NaN or
infinite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


def _message(group: str, kind: type, error: ValidationError) -> str:
    lines = []
    for fault in error.errors(include_url=False):
        setting = ".".join([group, *map(str, fault["loc"][:1])])
        if group == FLAGS:
            setting = FLAGS + "".join(map(str, fault["loc"][:1])).replace("_", "-")
        if fault["type"] in ("unexpected_keyword_argument", "missing"):
            known = ", ".join(sorted(field.name for field in fields(kind)))
            problem = "must be set" if fault["type"] == "missing" else f"no such setting; known are {known}"
            lines.append(f"{setting}: {problem}")
        elif isinstance(own := fault.get("ctx", {}).get("error"), SettingsError):
            lines.append(str(own))
        else:
            lines.append(f"{setting}={fault['input']!r}: {fault['msg'].removeprefix('Value error, ')}")
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
