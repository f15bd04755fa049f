"""What Hydra says of a wrong command line, followed by what was probably meant."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from recipe.sophiavl.validation import did_you_mean

T = TypeVar("T")
_GROUPS = [path.name for path in sorted((Path(__file__).parent / "config").iterdir()) if path.is_dir()]
_HOW_TO_WRITE = (
    "an argument is KEY=VALUE without blanks, a list 'KEY=[VALUE,VALUE]' in quotes, and a text with = , or brackets in "
    "it \"KEY='VALUE'\""
)


def explained(main: Callable[..., T]) -> Callable[..., T]:
    """A function that `hydra.main` made, with advice as the last line where Hydra refuses the command line."""

    @wraps(main)
    def run(*args: Any, **values: Any) -> T:
        try:
            return main(*args, **values)
        except SystemExit as end:  # Hydra has printed its own error, and leaves with it as the context
            if told := advice(end.__context__):
                print(f"\nerror: {told}", file=sys.stderr)
            raise

    return run


def advice(error: BaseException | None) -> str:
    """What was probably meant by a command line that Hydra refuses; empty for any other error."""
    if isinstance(error, MissingConfigException) and error.options:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        known = ", ".join(error.options)
        return f"{group}={name}: no such option{did_you_mean(name, error.options)}; there are {known}"
    cause = None if error is None else error.__cause__
    if (
        isinstance(error, ConfigCompositionException)
        and isinstance(cause, OmegaConfBaseException)
        and isinstance(cause.parent_node, DictConfig)
    ):
        return _no_such_key(str(cause.full_key), cause.parent_node)
    if isinstance(error, OverrideParseException) or str(error).startswith("Ambiguous value"):
        return _HOW_TO_WRITE
    return ""


def _no_such_key(path: str, parent: DictConfig) -> str:
    above, _, name = path.rpartition(".")
    known = {str(key) for key in parent} | (set() if above else set(_GROUPS))
    # A key of a group without the group, as in alpha=1.
    places = [] if above else [f"{group}.{name}" for group in _GROUPS if name in (parent.get(group) or {})]
    near = f" (did you mean {' or '.join(places)}?)" if places else did_you_mean(name, known)
    return f"{path}: no such key" + (near or f"; there are {', '.join(sorted(known)) or 'none'}")
