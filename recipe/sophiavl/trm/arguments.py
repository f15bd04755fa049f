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


def add_client_arguments(parser: argparse.ArgumentParser, **defaults: object) -> None:
    """Add the settings that say which server is asked, and how. As in a run, ``structured_output`` is ``auto``.

    Args:
        defaults: other defaults than `ClientSettings`'s, by its field names.
    """
    defaults = {"structured_output": "auto", **defaults}
    group = parser.add_argument_group("server")
    group.add_argument(
        "--url", action="append", required=True, help="base URL, such as http://localhost:8000/v1; repeatable"
    )
    group.add_argument("--model", required=True, help="name of the served model")
    group.add_argument("--api-key-env", help="environment variable that holds the API key")
    group.add_argument("--prompt-path", help="prompt file; default: the package's own")
    for name, kind, text in (
        ("structured_output", StructuredOutput, "restrict replies to 0.0, 0.1 ... 1.0 on the server"),
        ("score_mode", ScoreMode, "the number in the reply, or its mean under the reply's log-probabilities"),
    ):
        chosen = defaults.get(name, getattr(ClientSettings, name))
        group.add_argument(_flag(name), choices=get_args(kind), default=chosen, help=f"{text} (default: {chosen})")
    for name, kind, text in (
        ("max_thinking_chars", int, "longest reasoning that is sent, in characters"),
        ("max_tokens", int, "longest reply in tokens"),
        ("temperature", float, "sampling temperature"),
        ("max_concurrency", int, "requests under way at once"),
        ("timeout_s", float, "seconds for one attempt"),
    ):
        chosen = defaults.get(name, getattr(ClientSettings, name))
        group.add_argument(_flag(name), type=kind, default=chosen, help=f"{text} (default: {chosen})")


def client_settings(given: argparse.Namespace, **fixed: object) -> ClientSettings:
    """The settings of `add_client_arguments`; all attempts of one score may take three times `timeout_s`.

    Args:
        fixed: further fields of `ClientSettings`.

    Raises:
        ValueError: a setting is out of range.
    """
    settings = {name: getattr(given, name) for name in _SETTINGS} | {"deadline_s": 3 * given.timeout_s} | fixed
    return ClientSettings(urls=given.url, **settings)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
