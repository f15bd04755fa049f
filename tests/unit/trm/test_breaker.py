"""The circuit breaker, with a clock of our own."""

import asyncio

import pytest

from recipe.sophiavl.trm.breaker import CircuitBreaker


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    return CircuitBreaker(failures=3, reset_s=10.0, clock=clock)


def fail(breaker, times):
    for _ in range(times):
        breaker.acquire().failure()


def test_failures_in_a_row_open_it(breaker):
    fail(breaker, 2)
    assert breaker.state == "closed"
    fail(breaker, 1)
    assert breaker.state == "open"
    assert breaker.acquire() is None


def test_a_success_between_starts_the_count_anew(breaker):
    fail(breaker, 2)
    breaker.acquire().success()
    fail(breaker, 2)
    assert breaker.state == "closed"


def test_one_probe_passes_after_the_reset_time(breaker, clock):
    fail(breaker, 3)
    clock.now += 9.9
    assert breaker.acquire() is None
    clock.now += 0.1
    assert breaker.state == "half_open"
    assert breaker.acquire() is not None
    assert breaker.acquire() is None


def test_the_probe_closes_or_opens_it_again(breaker, clock):
    fail(breaker, 3)
    clock.now += 10
    breaker.acquire().failure()
    assert breaker.state == "open"
    clock.now += 9.9
    assert breaker.acquire() is None
    clock.now += 0.1
    breaker.acquire().success()
    assert breaker.state == "closed"
    fail(breaker, 2)
    assert breaker.state == "closed"


def test_a_released_probe_lets_another_one_pass(breaker, clock):
    fail(breaker, 3)
    clock.now += 10
    breaker.acquire().release()
    assert breaker.acquire() is not None


def test_late_failures_neither_prolong_the_wait_nor_end_the_probe(breaker, clock):
    late = [breaker.acquire(), breaker.acquire()]
    fail(breaker, 3)
    clock.now += 8
    late[0].failure()
    clock.now += 2
    assert breaker.state == "half_open"
    probe = breaker.acquire()
    late[1].failure()
    assert breaker.probing
    assert breaker.acquire() is None
    probe.success()
    assert breaker.state == "closed"


@pytest.mark.asyncio
@pytest.mark.parametrize("verdict", ["success", "failure", "release"])
async def test_those_who_wait_for_the_probe_learn_of_its_end(breaker, clock, verdict):
    fail(breaker, 3)
    clock.now += 10
    probe = breaker.acquire()
    waiting = asyncio.create_task(breaker.wait_for_probe())
    await asyncio.sleep(0)
    assert not waiting.done()
    getattr(probe, verdict)()
    await asyncio.wait_for(waiting, 1)
    await asyncio.wait_for(breaker.wait_for_probe(), 1)
