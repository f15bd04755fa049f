"""The values that a thinking score may take, and the request fields that hold a server to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

VALUES = tuple(f"{tenth / 10:.1f}" for tenth in range(11))
"""``0.0``, ``0.1`` … ``1.0``."""

StructuredOutput = Literal["auto", "on", "choice", "json_schema", "off"]
"""How replies are held to the values: by vLLM's own field (``choice``), by the portable ``response_format``
(``json_schema``), or not at all (``off``). ``auto`` and ``on`` are wishes: the best that the servers have, or nothing;
and the best that they have, or an error. `structured_output.settle` finds out which it is."""

_SCHEMA = {
    "type": "object",
    "properties": {"score": {"type": "number", "enum": [float(value) for value in VALUES]}},
    "required": ["score"],
    "additionalProperties": False,
}

REQUEST_FIELDS: Mapping[StructuredOutput, Mapping[str, Any]] = {
    "choice": {"structured_outputs": {"choice": list(VALUES)}},
    "json_schema": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "thinking_score", "strict": True, "schema": _SCHEMA},
        }
    },
    "off": {},
}
"""The fields that a request carries."""
