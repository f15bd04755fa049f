"""What the commands of this package share: settings as flags, and what an error tells the shell."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from dataclasses import fields
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from docstring_parser import parse

T = TypeVar("T")
DONE, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130


def add_settings(parser: argparse._ActionsContainer, kind: type, **readers: Callable[[str], Any]) -> None:
    """One flag for each field of a settings class, with its default; what the class's docstring says is its help.

    Args:
        readers: what reads a flag's text, by its field, where that is more than the field's type.
    """
    told = {name: part.description for part in parse(kind.__doc__ or "").params for name in part.arg_name.split(", ")}
    hints = get_type_hints(kind)
    for field in fields(kind):
        flag, hint = f"--{field.name.replace('_', '-')}", hints[field.name]
        text = f"{told[field.name].rstrip('.')} (default: {field.default})".replace("%", "%%")
        if hint is bool:
            parser.add_argument(flag, action="store_true", help=text)
        elif get_origin(hint) is Literal:
            parser.add_argument(flag, choices=get_args(hint), default=field.default, help=text)
        else:
            plain = next(one for one in (*get_args(hint), hint) if one is not NoneType)
            parser.add_argument(flag, type=readers.get(field.name, plain), default=field.default, help=text)


def at_least(least: int) -> Callable[[str], int]:
    """A reader of whole numbers for argparse, which refuses smaller ones."""

    def whole(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value}: give {least} or more")
        return value

    return whole


def read_settings(given: argparse.Namespace, kind: type[T]) -> T:
    """The settings of `add_settings`.

    Raises:
        SettingsError: a value is out of range.
    """
    return kind(**{field.name: getattr(given, field.name) for field in fields(kind)})


def exit_status(run: Callable[[], int], advice: str = "") -> int:
    """What `run` returns; where it fails, 2 for wrong settings or files, 1 for files that cannot be read or written.

    Args:
        advice: what else to do after a failure to read or write, or after Ctrl-C (130).
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        return run()
    except ValueError as error:
        print(error, file=sys.stderr)
        return WRONG_INPUT
    except OSError as error:
        print(f"{error}; {advice}" if advice else error, file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print(f"\ninterrupted; {advice}" if advice else "\ninterrupted", file=sys.stderr)
        return INTERRUPTED
