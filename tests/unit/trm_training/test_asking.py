"""The loop that asks for many scores: what it holds, in what order it stops, and what it leaves behind."""

import asyncio
import random

import pytest

from recipe.sophiavl.trm.client import ThinkingScore
from recipe.sophiavl.trm_training.asking import Request, ask_all, kinds, storable_reply

pytestmark = pytest.mark.asyncio


class Client:
    """Scores each thinking by the number it is; counts what it is asked at once."""

    def __init__(self, delay_s=0.0):
        self.delay_s, self.busy, self.most_busy, self.answered, self.begun = delay_s, 0, 0, 0, 0
        self.chooser = random.Random(0)

    async def score(self, question, images, thinking):
        self.begun += 1
        self.busy += 1
        self.most_busy = max(self.busy, self.most_busy)
        try:
            await asyncio.sleep(self.chooser.random() * self.delay_s)
        finally:
            self.busy -= 1
        self.answered += 1
        return ThinkingScore(int(thinking) / 1000, None, 0.0)


def requests(count):
    return (Request(key, "Why?", [], str(key)) for key in range(count))


def alive():
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


@pytest.mark.parametrize("bound", [1, 4, 300])
async def test_every_request_is_taken_once_and_no_more_than_the_bound_are_held(bound):
    client, made, held, most_held, taken = Client(0.002), 0, 0, 0, {}

    def counted():
        nonlocal made, held, most_held
        for request in requests(200):
            made, held = made + 1, held + 1
            most_held = max(held, most_held)
            yield request

    def take(request, score):
        nonlocal held
        held -= 1
        assert request.key not in taken
        taken[request.key] = score.value

    await ask_all(client, counted(), take, bound=bound, total=200, label="asking")
    assert taken == {key: key / 1000 for key in range(200)}
    assert most_held <= bound
    assert client.most_busy <= bound
    assert client.most_busy == 1 if bound == 1 else client.most_busy > 1


async def test_as_many_requests_as_the_bound_are_under_way_at_once():
    """The first eight wait for each other: with one fewer under way nothing would ever end."""

    class Meeting(Client):
        here, all_here = 0, asyncio.Event()

        async def score(self, question, images, thinking):
            self.here += 1
            if self.here == 8:
                self.all_here.set()
            await self.all_here.wait()
            return await super().score(question, images, thinking)

    client = Meeting()
    await asyncio.wait_for(ask_all(client, requests(64), lambda *_: None, bound=8, total=64, label="x"), 20)
    assert client.answered == 64


async def test_once_enough_nothing_is_begun_and_what_is_under_way_is_taken():
    client, taken = Client(0.005), []

    def take(request, _score):
        taken.append(request.key)
        return len(taken) == 20

    await ask_all(client, requests(1000), take, bound=8, total=1000, label="asking")
    assert 20 <= len(taken) <= 20 + 8
    assert client.begun == client.answered == len(taken)


@pytest.mark.parametrize("fault", ["reader", "take", "client"])
async def test_a_fault_is_raised_as_it_is_and_nothing_runs_on(fault):
    class Failing(Client):
        async def score(self, question, images, thinking):
            if fault == "client" and thinking == "20":
                raise OSError("gone")
            return await super().score(question, images, thinking)

    def broken():
        for request in requests(1000):
            if fault == "reader" and request.key == 20:
                raise OSError("gone")
            yield request

    def take(request, _score):
        if fault == "take" and request.key == 20:
            raise OSError("gone")

    client = Failing(0.002)
    with pytest.raises(OSError, match="gone"):
        await ask_all(client, broken(), take, bound=8, total=1000, label="asking")
    assert not alive()
    assert client.busy == 0
    assert client.begun < 60


async def test_cancelled_it_leaves_nothing_running_and_every_score_was_taken():
    """As Ctrl-C does it."""
    client, taken = Client(0.01), []
    asking = asyncio.create_task(
        ask_all(client, requests(10**6), lambda request, _: taken.append(request.key), bound=16, total=10**6, label="x")
    )
    while len(taken) < 5:
        await asyncio.sleep(0.001)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert not alive()
    assert client.busy == 0
    assert client.answered == len(taken)


async def test_fewer_requests_than_foreseen_and_none():
    client = Client()
    await ask_all(client, requests(3), lambda *_: None, bound=8, total=50, label="asking")
    assert client.answered == 3
    await ask_all(client, iter(()), lambda *_: None, bound=8, total=0, label="asking")
    assert client.answered == 3


async def test_replies_and_kinds_in_words():
    assert storable_reply(ThinkingScore(0.5, None, 0.0), 9) is None
    assert storable_reply(ThinkingScore(None, "unparsable", 0.0, reply="ab\ud83dcd"), 4) == "ab?c"
    assert kinds({"timeout": 1, "connect": 2, "bad": 1}) == "connect 2, bad 1, timeout 1"
    assert kinds({}) == "none"
