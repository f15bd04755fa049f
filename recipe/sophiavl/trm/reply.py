"""From a model's reply to a score, or to the reason why there is none."""

from __future__ import annotations

from recipe.sophiavl.trm.client_settings import ClientSettings
from recipe.sophiavl.trm.expected import expected_score
from recipe.sophiavl.trm.parse import find_score
from recipe.sophiavl.trm.scale import VALUES
from recipe.sophiavl.trm.transport import Reply


def read_score(reply: Reply, config: ClientSettings, *, restricted: bool) -> tuple[float | None, str | None]:
    """The score in [0, 1], or None and one of "unparsable", "no_logprobs", "no_mass".

    Args:
        reply: a well-formed reply.
        config: `score_mode` and `expected_min_mass` are used.
        restricted: the server was told to write nothing but allowed values.
    """
    found = find_score(reply.text)
    if found is None:
        return None, "unparsable"
    whole = restricted and reply.text.strip() in VALUES
    if reply.cut and not whole and not reply.text[found.end :].strip():
        return None, "unparsable"  # cut at max_tokens right after the number: more digits may have followed
    if config.score_mode == "discrete":
        return found.value, None
    if reply.tokens is None or not "".join(token.text for token in reply.tokens).startswith(reply.text):
        return None, "no_logprobs"
    value = expected_score(reply.tokens, found.start, config.expected_min_mass)
    return (value, None) if value is not None else (None, "no_mass")
