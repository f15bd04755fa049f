"""The servers of one client, and one rule: a server that just failed is left alone until a time.

A score waits for a server within its deadline. A server holds a window of requests. Whoever waits is let in first come,
first served, while the window has room and the server does not rest:

- it fails and has answered nobody since that request was sent: the server is out. It rests, longer after each failure
  in a row; then one request finds out, and every answer makes room for another two;
- it is overloaded (a time-out, "too many requests") but answers others: the window halves, and from there it grows by
  one request per window of answers;
- requests that were sent before the last such failure tell nothing new: they change nothing. Nor does a failure that
  may be the request's own (`AttemptError.may_be_the_request`), unless it is the second one without an answer between.

So an outage costs one request per rest, whatever its length, and overload slows down and never switches off. A server
that has room and nobody to let in takes those who would wait longest for another one.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
import time
from collections import deque
from collections.abc import Mapping, Sequence

from recipe.sophiavl.trm.transport import AttemptError


class Server:
    """One server as this client sees it.

    Args:
        url: its base URL.
        limit: most requests under way at once.
        backoff_base_s, backoff_max_s: see `backoff_s`, for the rests.
        longest_rest_s: most seconds that it rests because it asked for it.

    Attributes:
        resting_until: monotonic time in seconds until which nothing is sent.
        asked_to_rest: whether it said so itself (Retry-After).
        trouble: kind of its last failure; None where it answered since.
        peers: the other servers of the same client.
    """

    def __init__(
        self, url: str, *, limit: int, backoff_base_s: float, backoff_max_s: float, longest_rest_s: float
    ) -> None:
        self.url = url
        self.resting_until = 0.0
        self.asked_to_rest = False
        self.trouble: str | None = None
        self.answered_at = -math.inf
        self.peers: Sequence[Server] = ()
        self._limit = limit
        self._backoff = (backoff_base_s, backoff_max_s)
        self._longest_rest_s = longest_rest_s
        self._window = self._threshold = float(limit)
        self._under_way = 0
        self._failures = 0
        self._failed_at = -math.inf
        self._doubted = False
        self._waiting: deque[asyncio.Future[bool]] = deque()

    async def enter(self) -> bool:
        """Wait for a place. True: take it, and call `leave` afterwards. False: choose anew, for this server went to
        rest, or another one has room."""
        if self.is_idle:
            self._under_way += 1
            return True
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.result():
                self.leave()  # let in and cancelled in the same turn of the loop
            raise

    def leave(self) -> None:
        """Give the place back."""
        self._under_way -= 1
        self._let_in()

    def answered(self) -> None:
        """A request was answered as it should, or refused for a reason of its own."""
        self.answered_at = time.monotonic()
        self._failures, self.trouble, self._doubted = 0, None, False
        self._window = min(self._limit, self._window + (1.0 if self._window < self._threshold else 1.0 / self._window))
        self._let_in()

    def failed(self, error: AttemptError, sent_at: float) -> None:
        """A request that was sent at monotonic time `sent_at` failed by the server's fault."""
        now = time.monotonic()
        first_doubt = error.may_be_the_request and not self._doubted
        self._doubted = True
        answers_others = self.answered_at > sent_at or first_doubt
        rest_s = 0.0
        if sent_at >= self._failed_at and (error.is_overload or not answers_others):
            self._failed_at, self.trouble = now, error.kind
            if answers_others:
                self._window = self._threshold = max(1.0, self._window / 2)
            else:
                self._window = 1.0
                self._failures += 1
                rest_s = backoff_s(self._failures, *self._backoff)
        asked_s = min(error.retry_after_s or 0.0, self._longest_rest_s)
        if (until := now + max(rest_s, asked_s)) > max(now, self.resting_until):
            self.resting_until, self.asked_to_rest = until, asked_s >= rest_s
            asyncio.get_running_loop().call_later(until - now + 0.001, self._let_in)
            waiting, self._waiting = self._waiting, deque()
            for place in waiting:
                if not place.done():
                    place.set_result(False)

    @property
    def is_idle(self) -> bool:
        """Whether it would let a request in at once."""
        return self._has_room() and not self._waiting

    @property
    def available(self) -> bool:
        """Whether it neither rests nor is being found out by the requests under way."""
        return self.resting_until <= time.monotonic() and (self.trouble is None or self._has_room())

    def _has_room(self) -> bool:
        return self._under_way < int(self._window) and time.monotonic() >= self.resting_until

    def _let_in(self) -> None:
        while self._waiting and self._has_room():
            place = self._waiting.popleft()
            if not place.done():
                self._under_way += 1
                place.set_result(True)
        room = int(self._window) - self._under_way if self.is_idle else 0
        while room > 0 and (longest := max((peer._waiting for peer in self.peers), key=len, default=None)):
            place = longest.pop()
            if not place.done():
                place.set_result(False)
                room -= 1


def backoff_s(failures: int, base_s: float, max_s: float) -> float:
    """Seconds to pause after this many failures in a row (from 1): uniform in the upper half of min(max, base * 2**n).

    The jitter keeps clients from coming back together; the lower bound, one request from being sent in a tight loop.
    """
    longest = min(max_s, base_s * 2.0 ** min(failures - 1, 60))
    return random.uniform(longest / 2, longest)


def rank(servers: Sequence[Server], key: bytes) -> list[Server]:
    """The servers in a fixed order of preference for `key` (rendezvous hashing).

    Each key prefers one server, keys spread evenly, and one server more or less moves only the keys that it wins or
    held: the responses of a question meet in one server's prefix cache.
    """

    def weight(server: Server) -> bytes:
        return hashlib.blake2b(server.url.encode() + b"\0" + key, digest_size=8).digest()

    return sorted(servers, key=weight, reverse=True) if len(servers) > 1 else list(servers)


def choose(ranked: Sequence[Server], failures: Mapping[str, int]) -> Server:
    """The server for the next attempt: of those available the one that failed this score least often, then one that
    lets it in at once, then the most preferred; where none is available, the one whose rest ends, or ended, first."""
    available = [server for server in ranked if server.available]
    if not available:
        return min(ranked, key=lambda server: server.resting_until)
    return min(available, key=lambda server: (failures.get(server.url, 0), not server.is_idle))
