"""One server's rule: left alone after a failure, fewer requests under overload, nobody forgotten."""

import asyncio
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.sophiavl.trm.server import Server, backoff_s, choose, rank
from recipe.sophiavl.trm.transport import AttemptError

pytestmark = pytest.mark.asyncio

REST_S = 0.05


def make_server(url="http://a/v1", limit=4, **changes):
    options = {"backoff_base_s": REST_S, "backoff_max_s": 4 * REST_S, "longest_rest_s": 60.0, **changes}
    return Server(url, limit=limit, **options)


async def enter(server, count):
    """As many places as there are, up to this many, without waiting."""
    tasks = [asyncio.create_task(server.enter()) for _ in range(count)]
    await asyncio.sleep(0)
    for task in tasks:
        if not task.done():
            task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    return sum(result is True for result in results)


def now():
    return time.monotonic()


async def test_the_limit_holds_and_places_go_first_come_first_served():
    server, order = make_server(limit=2), []

    async def visit(number):
        assert await server.enter()
        order.append(number)

    tasks = [asyncio.create_task(visit(number)) for number in range(4)]
    await asyncio.sleep(0)
    assert order == [0, 1]
    server.leave()
    server.leave()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3]


async def test_an_outage_costs_one_request_a_rest_and_then_every_answer_makes_room():
    server = make_server(limit=64)
    sent = now()
    assert await enter(server, 64) == 64
    for _ in range(64):
        server.leave()
        server.failed(AttemptError("connect", ""), sent)
    assert server.trouble == "connect"
    first_rest = server.resting_until - now()
    assert 0 < first_rest <= REST_S, "64 failures of one moment are one failure"
    for _ in range(3):
        await asyncio.sleep(max(0.0, server.resting_until - now()) + 0.01)
        sent = now()
        assert await enter(server, 64) == 1
        server.leave()
        server.failed(AttemptError("connect", ""), sent)
    assert server.resting_until - now() > 1.5 * REST_S, "it rests longer after each failure in a row"
    await asyncio.sleep(server.resting_until - now() + 0.01)
    room = []
    for _ in range(7):
        room.append(await enter(server, 64))
        for _ in range(room[-1]):
            server.answered()
            server.leave()
    assert room[0] == 1
    assert room[-1] == 64
    assert all(later == min(2 * earlier, 64) for earlier, later in pairwise(room))
    assert server.trouble is None
    server.failed(AttemptError("connect", ""), now())
    assert server.resting_until - now() <= REST_S, "the next outage begins with a short rest"
    assert not server.asked_to_rest


async def test_overload_halves_the_window_once_and_never_closes_it():
    server = make_server(limit=32)
    sent = now()
    assert await enter(server, 32) == 32
    server.answered()
    for _ in range(20):
        server.leave()
        server.failed(AttemptError("timeout", ""), sent)
    assert server.resting_until <= now(), "a server that answers others does not rest"
    for _ in range(12):
        server.leave()
    assert await enter(server, 32) == 16
    for _ in range(16):
        server.leave()
        server.answered()
    assert await enter(server, 32) in (16, 17), "a window of answers makes room for one more"


async def test_one_bad_request_among_good_ones_slows_nobody():
    server = make_server(limit=8)
    for _ in range(50):
        sent = now()
        server.answered()
        server.failed(AttemptError("http_500", ""), sent)
    assert await enter(server, 8) == 8


async def test_those_who_wait_are_told_when_it_goes_to_rest_and_let_in_afterwards():
    server = make_server(limit=1)
    sent = now()
    assert await server.enter()
    waiting = asyncio.create_task(server.enter())
    await asyncio.sleep(0)
    server.failed(AttemptError("connect", ""), sent)
    server.leave()
    assert await waiting is False
    assert await server.enter()
    assert now() >= server.resting_until


async def test_a_server_is_left_alone_as_long_as_it_asks_within_bounds():
    server = make_server(longest_rest_s=10.0)
    server.failed(AttemptError("http_429", "", retry_after_s=5.0), now())
    assert server.resting_until - now() == pytest.approx(5.0, abs=0.5)
    assert server.asked_to_rest
    server.failed(AttemptError("http_429", "", retry_after_s=3600.0), now())
    assert server.resting_until - now() == pytest.approx(10.0, abs=0.5)


async def test_a_cancelled_wait_takes_no_place():
    server = make_server(limit=1)
    assert await server.enter()
    waiting = asyncio.create_task(server.enter())
    await asyncio.sleep(0)
    server.leave()  # lets the waiting one in ...
    waiting.cancel()  # ... which is cancelled before it can see that
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await enter(server, 3) == 1


async def test_choice_goes_by_rest_then_by_failures_then_by_preference():
    servers = [make_server(f"http://{name}/v1") for name in "abc"]
    ranked = rank(servers, b"question")
    assert rank(servers[::-1], b"question") == ranked
    assert choose(ranked, {}) is ranked[0]
    assert choose(ranked, {ranked[0].url: 1}) is ranked[1]
    ranked[1].failed(AttemptError("connect", ""), now())
    assert choose(ranked, {ranked[0].url: 1}) is ranked[2]
    for server in (ranked[0], ranked[2]):
        server.failed(AttemptError("http_429", "", retry_after_s=30.0), now())
    assert choose(ranked, {ranked[1].url: 5}) is ranked[1], "its rest ends first"


@settings(deadline=None)
@given(st.integers(1, 10_000), st.floats(0.001, 100), st.floats(0.001, 100))
async def test_the_pause_is_in_the_upper_half_of_a_range_that_doubles_up_to_its_limit(failures, base, most):
    longest = min(most, base * 2.0 ** min(failures - 1, 60))
    assert longest / 2 <= backoff_s(failures, base, most) <= longest


async def test_a_bad_request_that_fails_before_the_good_ones_are_answered_slows_nobody():
    server = make_server(limit=8)
    assert await enter(server, 4) == 4
    sent = now()
    server.failed(AttemptError("http_500", ""), sent)
    assert server.resting_until <= now()
    assert await enter(server, 8) == 4
    server.failed(AttemptError("http_500", ""), now())
    assert server.resting_until > now(), "two without an answer between: the server is out"


async def test_nobody_waits_for_a_server_that_is_being_found_out_while_another_answers():
    first, second = rank([make_server(f"http://{name}/v1") for name in "ab"], b"question")
    first.failed(AttemptError("timeout", ""), now())
    await asyncio.sleep(max(0.0, first.resting_until - now()) + 0.01)
    assert choose([first, second], {}) is first, "one request finds out"
    assert await enter(first, 9) == 1
    assert choose([first, second], {}) is second
    assert choose([first], {}) is first
    first.answered()
    assert choose([first, second], {}) is first
