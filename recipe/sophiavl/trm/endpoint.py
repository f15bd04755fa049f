"""The servers of one client: which of them a question goes to, and what is known of each."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence

from recipe.sophiavl.trm.breaker import CircuitBreaker, Permit
from recipe.sophiavl.trm.scale import Restriction

logger = logging.getLogger(__name__)

_NEXT: Mapping[Restriction, Restriction] = {"choice": "json_schema", "json_schema": "free"}


class Endpoint:
    """A server, its circuit breaker, and the way of restricting replies that it is known to take."""

    def __init__(self, url: str, breaker: CircuitBreaker, restriction: Restriction, *, may_be_free: bool) -> None:
        self.url = url
        self.breaker = breaker
        self.restriction: Restriction = restriction
        self._may_be_free = may_be_free

    def refused(self, restriction: Restriction) -> bool:
        """Note that the server refused `restriction`; return whether there is another one to try."""
        if self.restriction != restriction:
            return True  # a request beside this one found out first
        following = _NEXT.get(restriction)
        if following is None or (following == "free" and not self._may_be_free):
            return False
        logger.warning("%s does not support %s for structured output; using %s", self.url, restriction, following)
        self.restriction = following
        return True


def rank(endpoints: Sequence[Endpoint], key: bytes) -> list[Endpoint]:
    """The endpoints in a fixed order of preference for `key` (rendezvous hashing).

    Each key prefers one endpoint, keys spread evenly, and one endpoint more or less moves only the keys that it wins
    or held.
    """
    if len(endpoints) == 1:
        return list(endpoints)
    return sorted(endpoints, key=lambda endpoint: _weight(endpoint.url, key), reverse=True)


def _weight(url: str, key: bytes) -> bytes:
    return hashlib.blake2b(url.encode() + b"\0" + key, digest_size=8).digest()


def choose(ranked: Sequence[Endpoint], failed: Mapping[str, int]) -> Endpoint | None:
    """The endpoint for the next attempt: the most preferred one among those that failed this score least often."""
    open_to_us = [endpoint for endpoint in ranked if endpoint.breaker.would_permit()]
    return min(open_to_us, key=lambda endpoint: failed.get(endpoint.url, 0), default=None)


async def wait_for_probe(ranked: Sequence[Endpoint]) -> None:
    """Where no endpoint takes requests but one is being probed, wait for the outcome.

    A probe costs its own score no less time, and a server that has recovered then loses nobody.
    """
    if choose(ranked, {}) is None:
        for endpoint in ranked:
            if endpoint.breaker.probing:
                await endpoint.breaker.wait_for_probe()
                return


def acquire(ranked: Sequence[Endpoint], failed: Mapping[str, int]) -> tuple[Endpoint, Permit] | None:
    """Choose an endpoint and take leave to send it a request; None where every breaker is open."""
    endpoint = choose(ranked, failed)
    permit = endpoint.breaker.acquire() if endpoint else None
    return (endpoint, permit) if endpoint and permit else None
