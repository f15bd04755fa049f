"""Command line settings of the client, shared by the commands that ask a server (preflight, annotate, evaluate)."""

from __future__ import annotations

import argparse
from typing import get_args

from recipe.sophiavl.trm.client_settings import ClientSettings, ScoreMode
from recipe.sophiavl.trm.scale import StructuredOutput

_SETTINGS = (
    "model",
    "api_key_env",
    "prompt_path",
    "structured_output",
    "score_mode",
    "max_thinking_chars",
    "max_tokens",
    "temperature",
    "max_concurrency",
    "timeout_s",
)


def add_client_arguments(parser: argparse.ArgumentParser, prefix: str = "", **defaults: object) -> None:
    """Add the settings that say which server is asked, and how. As in a run, ``structured_output`` is ``auto``.

    Args:
        prefix: of every flag, such as ``trm-`` for a command that can do without this server; none of them is
            required then.
        defaults: other defaults than `ClientSettings`'s, by its field names.
    """
    defaults = {"structured_output": "auto", **defaults}
    group = parser.add_argument_group("thinking reward model" if prefix else "server")
    needed = not prefix
    url_help = "base URL, such as http://localhost:8000/v1; repeatable"
    group.add_argument(_flag("url", prefix), action="append", required=needed, help=url_help)
    group.add_argument(_flag("model", prefix), required=needed, help="name of the served model")
    group.add_argument(_flag("api_key_env", prefix), help="environment variable that holds the API key")
    group.add_argument(_flag("prompt_path", prefix), help="prompt file; default: the package's own")
    for name, kind, text in (
        ("structured_output", StructuredOutput, "restrict replies to 0.0, 0.1 ... 1.0 on the server"),
        ("score_mode", ScoreMode, "the number in the reply, or its mean under the reply's log-probabilities"),
    ):
        chosen = defaults.get(name, getattr(ClientSettings, name))
        group.add_argument(
            _flag(name, prefix), choices=get_args(kind), default=chosen, help=f"{text} (default: {chosen})"
        )
    for name, kind, text in (
        ("max_thinking_chars", int, "longest reasoning that is sent, in characters"),
        ("max_tokens", int, "longest reply in tokens"),
        ("temperature", float, "sampling temperature"),
        ("max_concurrency", int, "requests under way at once"),
        ("timeout_s", float, "seconds for one attempt"),
    ):
        chosen = defaults.get(name, getattr(ClientSettings, name))
        group.add_argument(_flag(name, prefix), type=kind, default=chosen, help=f"{text} (default: {chosen})")


def client_settings(given: argparse.Namespace, prefix: str = "", **fixed: object) -> ClientSettings:
    """The settings of `add_client_arguments`; all attempts of one score may take three times `timeout_s`.

    Args:
        prefix: as there.
        fixed: further fields of `ClientSettings`.

    Raises:
        ValueError: a setting is out of range.
    """
    start = prefix.replace("-", "_")
    settings = {name: getattr(given, start + name) for name in _SETTINGS}
    return ClientSettings(
        urls=getattr(given, f"{start}url"), **settings | {"deadline_s": 3 * settings["timeout_s"]} | fixed
    )


def _flag(name: str, prefix: str = "") -> str:
    return f"--{prefix}{name.replace('_', '-')}"
