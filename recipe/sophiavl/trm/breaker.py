"""A circuit breaker: after several failures in a row a server is left alone for a while, then probed once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Literal

State = Literal["closed", "open", "half_open"]


class Permit:
    """Leave to send one request. Exactly one of its methods must be called when the request has ended."""

    def __init__(self, breaker: CircuitBreaker, *, is_probe: bool) -> None:
        self._breaker = breaker
        self._is_probe = is_probe

    def success(self) -> None:
        """The server answered as it should."""
        self._breaker._succeeded()

    def failure(self) -> None:
        """The server failed."""
        self._breaker._failed(is_probe=self._is_probe)

    def release(self) -> None:
        """The request ended without a verdict on the server, for instance because it was cancelled."""
        if self._is_probe:
            self._breaker._end_probe()


class CircuitBreaker:
    """Closed: requests pass. Open: none pass. Half-open: one probe passes, and its outcome closes or opens again.

    Args:
        failures: failures in a row that open it.
        reset_s: seconds from opening until a probe may pass.
        clock: monotonic time in seconds.
    """

    def __init__(self, failures: int, reset_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = failures
        self._reset_s = reset_s
        self._clock = clock
        self._failures = 0
        self._opened_at: float | None = None
        self._probe_over: asyncio.Event | None = None

    @property
    def state(self) -> State:
        """The state now; it turns half-open by the passing of time."""
        if self._opened_at is None:
            return "closed"
        return "half_open" if self._clock() - self._opened_at >= self._reset_s else "open"

    @property
    def probing(self) -> bool:
        """Whether the probe is under way."""
        return self._probe_over is not None

    async def wait_for_probe(self) -> None:
        """Wait until no probe is under way."""
        if self._probe_over is not None:
            await self._probe_over.wait()

    def would_permit(self) -> bool:
        """Whether a request could pass now, without claiming the probe."""
        return self.state == "closed" or (self.state == "half_open" and not self.probing)

    def acquire(self) -> Permit | None:
        """Leave to send a request, or None. In the half-open state the one permit given is the probe."""
        if not self.would_permit():
            return None
        is_probe = self.state == "half_open"
        if is_probe:
            self._probe_over = asyncio.Event()
        return Permit(self, is_probe=is_probe)

    def _succeeded(self) -> None:
        self._failures = 0
        self._opened_at = None
        self._end_probe()

    def _failed(self, *, is_probe: bool) -> None:
        self._failures += 1
        # Requests sent before it opened may still fail afterwards: only the probe's failure starts the wait anew.
        if is_probe or (self._opened_at is None and self._failures >= self._limit):
            self._opened_at = self._clock()
            self._end_probe()

    def _end_probe(self) -> None:
        if self._probe_over is not None:
            self._probe_over.set()
            self._probe_over = None
