"""One attempt: how its failures are told apart, and what a Retry-After header says."""

import json
import pickle
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from recipe.sophiavl.trm.transport import AttemptError, parse_reply, retry_after_s

NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)


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


@pytest.mark.parametrize(
    ("kind", "overload", "the_request"),
    [
        ("timeout", True, False),
        ("http_429", True, False),
        ("http_503", True, False),
        ("connect", False, False),
        ("http_502", False, False),
        ("http_500", False, True),
        ("disconnected", False, True),
        ("bad_reply", False, True),
    ],
)
def test_what_a_failure_says_about_the_server(kind, overload, the_request):
    error = AttemptError(kind, "why")
    assert (error.is_overload, error.may_be_the_request, str(error)) == (overload, the_request, f"{kind}: why")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("where", ["1 May 99999999999999999999 12:00:00 GMT", "1 May 2026 12:00:00 +99999999999999"])
def test_a_date_that_no_clock_shows_says_nothing(where):
    assert retry_after_s(f"Fri, {where}", NOW) is None


def test_a_reply_with_numbers_beyond_floating_point_and_odd_usage_is_read():
    entry = {"token": "0", "logprob": -(10**400), "top_logprobs": []}
    choice = {"message": {"content": "0.5"}, "logprobs": {"content": [entry]}}
    reply = parse_reply(json.dumps({"choices": [choice], "usage": 5}).encode())
    assert (reply.text, reply.tokens, reply.usage) == ("0.5", None, {})
