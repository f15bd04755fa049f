"""A bounded uniform sample of a stream whose length nobody knows, the same for the same seed."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Generic, TypeVar

T = TypeVar("T")


def priority(seed: int, *parts: object) -> int:
    """A number that looks random and depends on the parts alone: an item has the same one in every sample."""
    return int.from_bytes(blake2b(repr((seed, *parts)).encode("utf-8", "surrogatepass"), digest_size=8).digest())


class Sample(Generic[T]):
    """Keeps the items with the lowest priorities ("bottom-k"): a uniform sample without replacement.

    Args:
        size: how many are kept at most.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.seen = 0
        self._kept: list[tuple[int, int, T]] = []

    def offer(self, rank: int, make: Callable[[], T]) -> None:
        """Count an item, and keep it while its priority is among the lowest.

        Args:
            make: builds it, called only where it is kept.
        """
        self.seen += 1
        if len(self._kept) < self.size:
            heapq.heappush(self._kept, (-rank, self.seen, make()))
        elif self._kept and -rank > self._kept[0][0]:
            heapq.heapreplace(self._kept, (-rank, self.seen, make()))

    def __iter__(self) -> Iterator[T]:
        """The items that were kept, from the lowest priority on."""
        return (item for _, _, item in sorted(self._kept, key=lambda kept: (-kept[0], kept[1])))
