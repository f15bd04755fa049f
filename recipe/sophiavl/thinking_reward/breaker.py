"""A circuit breaker: after several failures in a row a server is left alone for a while, then probed once."""

from __future__ import annotations

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
        self._probing = False

    @property
    def state(self) -> State:
        """The state now; it turns half-open by the passing of time."""
        if self._opened_at is None:
            return "closed"
        return "half_open" if self._clock() - self._opened_at >= self._reset_s else "open"

    def would_permit(self) -> bool:
        """Whether a request could pass now, without claiming the probe."""
        return self.state == "closed" or (self.state == "half_open" and not self._probing)

    def acquire(self) -> Permit | None:
        """Leave to send a request, or None. In the half-open state the one permit given is the probe."""
        if not self.would_permit():
            return None
        self._probing = self.state == "half_open"
        return Permit(self, is_probe=self._probing)

    def _succeeded(self) -> None:
        self._failures = 0
        self._opened_at = None
        self._probing = False

    def _failed(self, *, is_probe: bool) -> None:
        self._failures += 1
        # Requests sent before it opened may still fail afterwards: only the probe's failure starts the wait anew.
        if is_probe or (self._opened_at is None and self._failures >= self._limit):
            self._opened_at = self._clock()
            self._probing = False

    def _end_probe(self) -> None:
        self._probing = False
