"""What lmms-eval asks about a row of ``local_data.py``, and its own rule: the bare answer equals the truth.

Copied beside the task files as ``utils.py`` and imported by lmms-eval, in whose environment the project is not
installed (its math libraries exclude each other): scoring by ``reward_score`` is left to ``rescore.py``.
"""

from __future__ import annotations

from typing import Any


def doc_to_messages(doc: dict[str, Any], lmms_eval_specific_kwargs: dict[str, Any] | None = None) -> list[dict]:
    """The user message; lmms-eval puts the system prompt in front of it."""
    parts = [
        {"type": "text", "text": part["value"]} if part["type"] == "text" else {"type": "image", "url": part["value"]}
        for part in doc["content"]
    ]
    return [{"role": "user", "content": parts}]


def doc_to_text(doc: dict[str, Any], lmms_eval_specific_kwargs: dict[str, Any] | None = None) -> str:
    """The message's text."""
    return "".join(part["value"] for part in doc["content"] if part["type"] == "text")


def doc_to_visual(doc: dict[str, Any], lmms_eval_specific_kwargs: dict[str, Any] | None = None) -> list[str]:
    """The images' paths."""
    return [part["value"] for part in doc["content"] if part["type"] == "image"]


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """1 if what ``--reasoning_tags`` left of the response is the truth, in any case; else 0."""
    return {"accuracy": float(results[0].strip().casefold() == doc["answer"].strip().casefold())}
