"""The values that a thinking score may take, and the request fields that hold a server to them."""

from __future__ import annotations

from typing import Any, Literal, get_args

VALUES = tuple(f"{tenth / 10:.1f}" for tenth in range(11))
"""``0.0``, ``0.1`` … ``1.0``."""

Restriction = Literal["choice", "json_schema", "free"]
"""How a reply is restricted: vLLM's own field, the portable ``response_format``, or not at all."""
RESTRICTIONS: tuple[Restriction, ...] = get_args(Restriction)

_SCHEMA = {
    "type": "object",
    "properties": {"score": {"type": "number", "enum": [float(value) for value in VALUES]}},
    "required": ["score"],
    "additionalProperties": False,
}

_FIELDS: dict[Restriction, dict[str, Any]] = {
    "choice": {"structured_outputs": {"choice": list(VALUES)}},
    "json_schema": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "thinking_score", "strict": True, "schema": _SCHEMA},
        }
    },
    "free": {},
}

# Words by which servers say that they do not know, or cannot serve, the fields above.
_REFUSALS = (
    "structured_output",
    "structured output",
    "response_format",
    "json_schema",
    "guided",
    "grammar",
    "unrecognized",
    "unknown field",
    "unknown parameter",
    "unexpected keyword",
    "extra inputs",
    "extra_forbidden",
)


def restriction_fields(restriction: Restriction) -> dict[str, Any]:
    """The fields that a request carries for this restriction."""
    return _FIELDS[restriction]


def is_refusal(kind: str, detail: str) -> bool:
    """Whether a failed attempt says that the server does not support the restriction."""
    return kind in ("http_400", "http_422", "http_501") and any(word in detail.lower() for word in _REFUSALS)
