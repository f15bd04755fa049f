"""A bounded cache of results that also joins identical computations that are under way."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, Literal, TypeVar

T = TypeVar("T")
Source = Literal["computed", "cached", "joined"]


class LruCache(Generic[T]):
    """The most recently used values up to a total weight (by default each weighs 1)."""

    def __init__(self, capacity: int, weigh: Callable[[T], int] = lambda _value: 1) -> None:
        self._capacity = capacity
        self._weigh = weigh
        self._weight = 0
        self._values: OrderedDict[Hashable, T] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable) -> T | None:
        """The value of `key`, now the most recently used one, or None."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key]

    def put(self, key: Hashable, value: T) -> None:
        """Keep `value`, and drop the least recently used ones until all fit. A value too heavy alone is not kept."""
        if key in self._values:
            self._weight -= self._weigh(self._values.pop(key))
        if self._weigh(value) > self._capacity:
            return
        self._values[key] = value
        self._weight += self._weigh(value)
        while self._weight > self._capacity:
            _, dropped = self._values.popitem(last=False)
            self._weight -= self._weigh(dropped)


class SharedComputations(Generic[T]):
    """Computes each key once: results come from the cache, and calls for a key under way wait for its result.

    A computation runs in a task of its own, so that a caller that is cancelled takes no other caller's result away.
    """

    def __init__(self, cache: LruCache[T], keep: Callable[[T], bool] = lambda _value: True) -> None:
        self._cache = cache
        self._keep = keep
        self._tasks: dict[Hashable, asyncio.Task[T]] = {}

    async def get(self, key: Hashable, compute: Callable[[], Awaitable[T]]) -> tuple[T, Source]:
        """The value of `key` and where it came from. What `compute` raises is raised to all who wait for it."""
        value = self._cache.get(key)
        if value is not None:
            return value, "cached"
        task = self._tasks.get(key)
        source: Source = "computed" if task is None else "joined"
        if task is None:
            task = asyncio.create_task(self._run(key, compute))
            self._tasks[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
        return await asyncio.shield(task), source

    async def _run(self, key: Hashable, compute: Callable[[], Awaitable[T]]) -> T:
        value = await compute()
        if self._keep(value):
            self._cache.put(key, value)
        return value

    def _ended(self, key: Hashable, task: asyncio.Task[T]) -> None:
        del self._tasks[key]
        if not task.cancelled():
            task.exception()  # marks it as seen: every caller may have been cancelled

    async def cancel(self) -> None:
        """Cancel what is under way and wait until it has ended."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
