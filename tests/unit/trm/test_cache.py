"""The bounded cache, and computations that are shared."""

import asyncio

import pytest

from recipe.sophiavl.trm.cache import LruCache, SharedComputations


def test_the_least_recently_used_value_goes_first():
    cache = LruCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)


def test_weights_bound_the_cache():
    cache = LruCache(10, weigh=len)
    cache.put("a", "12345")
    cache.put("b", "12345")
    cache.put("a", "1234567")
    assert (cache.get("a"), cache.get("b")) == ("1234567", None)
    cache.put("c", "x" * 11)
    assert cache.get("c") is None
    assert len(cache) == 1


def test_a_cache_of_no_size_keeps_nothing():
    cache = LruCache(0)
    cache.put("a", 1)
    assert cache.get("a") is None


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
    shared, compute = SharedComputations(LruCache(4)), Computation()
    calls = [asyncio.create_task(shared.get("k", compute)) for _ in range(3)]
    await asyncio.sleep(0)
    compute.go.set()
    assert await asyncio.gather(*calls) == [(7, "computed"), (7, "joined"), (7, "joined")]
    assert await shared.get("k", compute) == (7, "cached")
    assert compute.runs == 1


@pytest.mark.asyncio
async def test_a_cancelled_caller_takes_nothing_from_the_others():
    shared, compute = SharedComputations(LruCache(4)), Computation()
    first, second = (asyncio.create_task(shared.get("k", compute)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    compute.go.set()
    assert await second == (7, "joined")
    assert first.cancelled()


@pytest.mark.asyncio
async def test_what_is_not_kept_is_computed_again():
    shared = SharedComputations(LruCache(4), keep=lambda value: value != 7)
    compute = Computation()
    compute.go.set()
    for _ in range(2):
        assert await shared.get("k", compute) == (7, "computed")


@pytest.mark.asyncio
async def test_an_error_reaches_all_and_is_not_kept():
    shared, compute = SharedComputations(LruCache(4)), Computation(OSError("x"))
    compute.go.set()
    outcomes = await asyncio.gather(*(shared.get("k", compute) for _ in range(2)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [OSError, OSError]
    compute.value = 3
    assert await shared.get("k", compute) == (3, "computed")


@pytest.mark.asyncio
async def test_cancel_ends_what_is_under_way():
    shared, compute = SharedComputations(LruCache(4)), Computation()
    call = asyncio.create_task(shared.get("k", compute))
    await asyncio.sleep(0)
    await shared.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
