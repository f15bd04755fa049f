"""Results made once: a bounded cache that also joins identical computations under way."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from cachetools import LRUCache

T = TypeVar("T")


class SharedComputations(Generic[T]):
    """Computes each key once: a call finds the result in the cache, or waits for it with those that asked before.

    A computation runs in a task of its own, so that a caller that is cancelled takes no other caller's result away. One
    that nobody waits for any more is cancelled.

    Args:
        size: most that is kept, the least recently used going first; 0 keeps nothing.
        weigh: what a result counts; 1 unless told.
        keep: whether a result is kept at all.
    """

    def __init__(
        self, size: int, *, weigh: Callable[[T], int] | None = None, keep: Callable[[T], bool] = lambda _value: True
    ) -> None:
        self._cache: LRUCache[Hashable, T] = LRUCache(size, getsizeof=weigh)
        self._keep = keep
        self._tasks: dict[Hashable, asyncio.Task[T]] = {}
        self._waiting: Counter[Hashable] = Counter()

    async def get(self, key: Hashable, compute: Callable[[], Awaitable[T]]) -> tuple[T, bool]:
        """The result for `key`, and whether it was made for this very call. Errors go to all who wait for it.

        Raises:
            asyncio.CancelledError: `cancel` was called meanwhile.
        """
        if key in self._cache:
            return self._cache[key], False
        task = self._tasks.get(key)
        fresh = task is None
        if task is None:
            task = self._tasks[key] = asyncio.ensure_future(compute())
            task.add_done_callback(lambda done: self._ended(key, done))
        self._waiting[key] += 1
        try:
            return await asyncio.shield(task), fresh
        finally:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key]
                if not task.done():
                    task.cancel()
                    del self._tasks[key]  # it takes a turn of the loop to end: nobody may join it any more

    def _ended(self, key: Hashable, task: asyncio.Task[T]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
        # Looking at the exception marks it as seen: every caller may have been cancelled.
        if task.cancelled() or task.exception() is not None:
            return
        value = task.result()
        if self._keep(value) and self._cache.getsizeof(value) <= self._cache.maxsize:
            self._cache[key] = value

    async def cancel(self) -> None:
        """Cancel what is under way and wait until it has ended."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
