"""A run ends where Ray has lost one of its workers, and not where a worker is only slow. Ray itself is real."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from recipe.sophiavl.verl_support.lost_workers import WorkerLostError, ended_by_a_lost_worker


class Buffer:
    """What is used of verl's replay buffer."""

    def __init__(self) -> None:
        self.polls = 0

    def _wait_for_next_poll(self, partition_id: str, last_debug_time: float) -> float:
        self.polls += 1
        time.sleep(0.02)
        return last_debug_time

    def wait(self, seconds: float) -> None:
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            assert self._wait_for_next_poll("train", last_debug_time=1.5) == 1.5


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100_000_000)
    yield
    ray.shutdown()


@pytest.fixture
def workers(cluster: None) -> Iterator[dict[str, list[Any]]]:
    @ray.remote(num_cpus=0)
    class Worker:  # asynchronous, as verl's are
        async def pid(self) -> int:
            return os.getpid()

        async def block(self, seconds: float) -> None:
            time.sleep(seconds)

    made = {"agent loop worker": [Worker.remote(), Worker.remote()], "rollout server": [Worker.remote()]}
    ray.get([worker.pid.remote() for group in made.values() for worker in group])
    yield made
    for group in made.values():
        for worker in group:
            ray.kill(worker)


def test_a_killed_worker_ends_the_wait_and_is_named(workers: dict[str, list[Any]]) -> None:
    buffer = Buffer()
    victim = ray.get(workers["agent loop worker"][1].pid.remote())
    with ended_by_a_lost_worker(buffer, workers, every_s=0.05):
        buffer.wait(0.5)
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(WorkerLostError) as caught:
            buffer.wait(60)
    assert str(caught.value).startswith("agent loop worker 1 is gone")
    assert "agent.num_workers" in str(caught.value)
    assert buffer.polls > 1


def test_a_worker_that_was_gone_before_is_told_too(workers: dict[str, list[Any]]) -> None:
    buffer = Buffer()
    ray.kill(workers["rollout server"][0])
    with (
        ended_by_a_lost_worker(buffer, workers, every_s=0.05),
        pytest.raises(WorkerLostError, match="rollout server 0 is gone"),
    ):
        buffer.wait(60)


def test_a_worker_that_is_busy_is_waited_for(workers: dict[str, list[Any]]) -> None:
    buffer = Buffer()
    with ended_by_a_lost_worker(buffer, workers, every_s=0.05):
        busy = workers["agent loop worker"][0].block.remote(1.5)
        buffer.wait(2)
        ray.get(busy)
    assert buffer.polls > 10
    assert "_wait_for_next_poll" not in vars(buffer), "after it the buffer is as it was"
