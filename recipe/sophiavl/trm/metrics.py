"""Counts and latencies of the thinking reward client."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

# Percentiles are over this many of the latest scores that were really asked for.
LATENCY_WINDOW = 4096


class ClientMetrics:
    """Running counts. At any moment requests = scores + missing + in_flight."""

    def __init__(self) -> None:
        self.requests = 0
        self.scores = 0
        self.in_flight = 0
        self.attempts = 0
        self.retries = 0
        self.cache_hits = 0
        self.joined = 0
        self.failures: Counter[str] = Counter()
        self.attempt_failures: Counter[str] = Counter()
        self._latencies: deque[float] = deque(maxlen=LATENCY_WINDOW)

    def start(self) -> None:
        """A score is asked for."""
        self.requests += 1
        self.in_flight += 1

    def finish(self, error: str | None, latency_s: float, *, asked: bool) -> None:
        """It has ended: with a score where `error` is None; `asked` tells whether a server was asked for it."""
        self.in_flight -= 1
        if error is None:
            self.scores += 1
        else:
            self.failures[error] += 1
        if asked:
            self._latencies.append(latency_s)

    def snapshot(self) -> dict[str, Any]:
        """All counts and the latency percentiles in seconds (None before the first score)."""
        latencies = sorted(self._latencies)
        return {
            "requests": self.requests,
            "scores": self.scores,
            "missing": sum(self.failures.values()),
            "in_flight": self.in_flight,
            "attempts": self.attempts,
            "retries": self.retries,
            "failures": dict(self.failures),
            "attempt_failures": dict(self.attempt_failures),
            "cache_hits": self.cache_hits,
            "joined": self.joined,
            "latency_p50_s": percentile(latencies, 0.50),
            "latency_p95_s": percentile(latencies, 0.95),
        }


def percentile(ordered: Sequence[float], fraction: float) -> float | None:
    """The nearest-rank percentile of ascending values; None where there are none."""
    if not ordered:
        return None
    rank = max(1, math.ceil(fraction * len(ordered)))
    return ordered[rank - 1]
