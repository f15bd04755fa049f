"""Backoff and Retry-After."""

from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.sophiavl.trm.retry import backoff_s, retry_after_s

NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize(("retry", "most"), [(0, 0.5), (1, 1.0), (2, 2.0), (4, 8.0), (5, 8.0), (10_000, 8.0)])
def test_the_range_doubles_up_to_its_limit(retry, most):
    assert backoff_s(retry, 0.5, 8.0, uniform=lambda low, high: high) == most
    assert backoff_s(retry, 0.5, 8.0, uniform=lambda low, high: low) == 0.0


@settings(deadline=None)
@given(st.integers(0, 100), st.floats(0, 100), st.floats(0, 100))
def test_the_pause_stays_in_its_range(retry, base, most):
    assert 0.0 <= backoff_s(retry, base, most) <= most


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("7", 7.0),
        (" 0.5 ", 0.5),
        ("-3", 0.0),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0.0),
        ((NOW + timedelta(seconds=90)).strftime("%a, %d %b %Y %H:%M:%S"), 90.0),
        ("Fri, 99 May 2026 12:00:00 GMT", None),
    ],
)
def test_retry_after(header, seconds):
    assert retry_after_s(header, NOW) == seconds
