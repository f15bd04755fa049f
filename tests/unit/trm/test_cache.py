"""The bounded cache, and computations that are shared."""

import asyncio

import pytest

from recipe.sophiavl.trm.cache import SharedComputations


class Computation:
    """Counts its runs, and ends when told to."""

    def __init__(self, value=7) -> None:
        self.runs = 0
        self.go = asyncio.Event()
        self.value = value

    async def __call__(self):
        self.runs += 1
        await self.go.wait()
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


@pytest.mark.asyncio
async def test_calls_for_one_key_share_one_computation():
    shared, compute = SharedComputations(4), Computation()
    calls = [asyncio.create_task(shared.get("k", compute)) for _ in range(3)]
    await asyncio.sleep(0)
    compute.go.set()
    assert await asyncio.gather(*calls) == [(7, True), (7, False), (7, False)]
    assert await shared.get("k", compute) == (7, False)
    assert compute.runs == 1


@pytest.mark.asyncio
async def test_a_cancelled_caller_takes_nothing_from_the_others():
    shared, compute = SharedComputations(4), Computation()
    first, second = (asyncio.create_task(shared.get("k", compute)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    compute.go.set()
    assert await second == (7, False)
    assert first.cancelled()


@pytest.mark.asyncio
async def test_what_is_not_kept_is_computed_again():
    shared = SharedComputations(4, keep=lambda value: value != 7)
    compute = Computation()
    compute.go.set()
    for _ in range(2):
        assert await shared.get("k", compute) == (7, True)


@pytest.mark.asyncio
async def test_an_error_reaches_all_and_is_not_kept():
    shared, compute = SharedComputations(4), Computation(OSError("x"))
    compute.go.set()
    outcomes = await asyncio.gather(*(shared.get("k", compute) for _ in range(2)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [OSError, OSError]
    compute.value = 3
    assert await shared.get("k", compute) == (3, True)


@pytest.mark.asyncio
async def test_cancel_ends_what_is_under_way():
    shared, compute = SharedComputations(4), Computation()
    call = asyncio.create_task(shared.get("k", compute))
    await asyncio.sleep(0)
    await shared.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


@pytest.mark.asyncio
async def test_the_least_recently_used_result_goes_first_and_none_is_kept_that_does_not_fit():
    shared = SharedComputations(10, weigh=len)

    async def get(key, value="12345"):
        compute = Computation(value)
        compute.go.set()
        return await shared.get(key, compute)

    assert await get("a") == await get("b") == ("12345", True)
    assert await get("a") == ("12345", False)
    assert await get("c") == ("12345", True)
    assert [(await get(key))[1] for key in ("a", "c")] == [False, False]
    assert await get("b") == ("12345", True)
    assert [await get("long", "x" * 11) for _ in range(2)] == [("x" * 11, True)] * 2


@pytest.mark.asyncio
async def test_what_nobody_waits_for_any_more_is_cancelled_and_not_joined():
    shared, compute = SharedComputations(4), Computation()
    calls = [asyncio.create_task(shared.get("k", compute)) for _ in range(2)]
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    late = asyncio.create_task(shared.get("k", compute))
    await asyncio.sleep(0.01)
    compute.go.set()
    assert await late == (7, True)
    assert compute.runs == 2
