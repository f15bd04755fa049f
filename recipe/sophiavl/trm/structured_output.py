"""Which structured output the servers have: found once, before a run, by asking for a word that is no score."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from recipe.sophiavl.trm.client import ThinkingRewardClient
from recipe.sophiavl.trm.client_settings import ClientSettings
from recipe.sophiavl.trm.parse import parse_score
from recipe.sophiavl.trm.scale import VALUES, StructuredOutput
from recipe.sophiavl.trm.transport import AttemptError
from recipe.sophiavl.validation import SettingsError

KINDS: tuple[StructuredOutput, ...] = ("choice", "json_schema")
_BANANA = json.dumps([{"role": "user", "content": "Write the word banana and nothing else."}]).encode()


class NotEnforcedError(SettingsError):
    """The servers do not hold replies to the allowed values."""


async def settle(config: ClientSettings) -> ClientSettings:
    """The settings with a ``structured_output`` that is neither ``auto`` nor ``on``: one that every server enforces.

    A way that is named is checked. ``auto`` becomes ``off`` where the servers have none in common.

    Raises:
        NotEnforcedError: one is asked for by name or by ``on``, and a server does not enforce it.
        AttemptError: a server fails.
    """
    wish = config.structured_output
    if wish == "off":
        return config
    lacking: list[str] = []
    for kind in KINDS if wish in ("auto", "on") else (wish,):
        lacks = await _lacks(replace(config, structured_output=kind, score_mode="discrete"))
        if not lacks:
            return replace(config, structured_output=kind)
        lacking += lacks
    if wish == "auto":
        return replace(config, structured_output="off")
    raise NotEnforcedError("; ".join(lacking))


async def _lacks(config: ClientSettings) -> Sequence[str]:
    """For each server that does not enforce the structured output of these settings: why not."""
    lacks = []
    async with ThinkingRewardClient(config) as client:
        for url in config.urls:
            try:
                reply = (await client.ask(url, _BANANA)).text
            except AttemptError as error:
                if error.kind not in ("http_400", "http_404", "http_422", "http_501"):
                    raise
                lacks.append(f"{config.structured_output} at {url}: {error}")
                continue
            score = parse_score(reply)
            if score is None or f"{score:.1f}" not in VALUES or score != round(score, 1):
                lacks.append(f"{config.structured_output} at {url}: not enforced, the reply is {reply[:40]!r}")
    return lacks
