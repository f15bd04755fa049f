"""When to try again: full-jitter exponential backoff, and what a Retry-After header says."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime


def backoff_s(
    retry: int, base_s: float, max_s: float, uniform: Callable[[float, float], float] = random.uniform
) -> float:
    """Seconds to wait before retry `retry` (the first is 0): uniform in [0, min(max_s, base_s * 2**retry)]."""
    return uniform(0.0, min(max_s, base_s * 2.0 ** min(retry, 60)))


def retry_after_s(header: str | None, now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After header, in seconds or as an HTTP date, asks to wait; None where it says nothing."""
    if header is None:
        return None
    text = header.strip()
    try:
        seconds = float(text)
    except ValueError:
        return _until(text, now or datetime.now(timezone.utc))
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _until(text: str, now: datetime) -> float | None:
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=timezone.utc)
    return max(0.0, (when - now).total_seconds())
