"""Ends a run one of whose workers is gone: verl 0.9.1 would wait for its responses for ever.

Ray kills a process where memory runs short (``RAY_memory_usage_threshold``), and so does the kernel. Whoever has called
it is told by Ray. But verl only asks an agent loop worker to begin, and then looks whether responses have come
(``verl/trainer/ppo/v1/replay_buffer.py``).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError

EVERY_S = 5.0


class WorkerLostError(RuntimeError):
    """A worker of a run is gone; the message says which, and what to do."""


@contextmanager
def ended_by_a_lost_worker(
    replay_buffer: Any, workers: Mapping[str, Sequence[Any]], every_s: float = EVERY_S
) -> Iterator[None]:
    """While active, ``replay_buffer`` raises a WorkerLostError where it would wait for a worker that is gone.

    Args:
        replay_buffer: verl's, which calls its ``_wait_for_next_poll`` between two looks at what there is.
        workers: handles of Ray actors, by what they are.
        every_s: seconds between two looks at the workers.
    """
    wait, roll_call = replay_buffer._wait_for_next_poll, _RollCall(workers, every_s)

    def wait_for_next_poll(*args: Any, **named: Any) -> Any:
        roll_call.look()
        return wait(*args, **named)

    replay_buffer._wait_for_next_poll = wait_for_next_poll
    try:
        yield
    finally:
        del replay_buffer._wait_for_next_poll


class _RollCall:
    """Asks workers for a sign of life, and never waits for it: one that is busy answers late."""

    def __init__(self, workers: Mapping[str, Sequence[Any]], every_s: float) -> None:
        self._workers = [
            (f"{name} {number}", one) for name, group in workers.items() for number, one in enumerate(group)
        ]
        self._asked = [worker.__ray_ready__.remote() for _, worker in self._workers]
        self._every_s, self._next = every_s, time.monotonic() + every_s

    def look(self) -> None:
        """Raise a WorkerLostError where Ray knows that a worker is gone."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._every_s
        for place, (name, worker) in enumerate(self._workers):
            if not ray.wait([self._asked[place]], timeout=0)[0]:
                continue
            try:
                ray.get(self._asked[place])
            except ActorUnavailableError:  # it may come back
                pass
            except RayActorError as error:
                raise WorkerLostError(
                    f"{name} is gone, and with it the responses that it was making. Where memory ran short, Ray says "
                    "above which processes it killed: give the machine more, or have fewer of them "
                    "(actor_rollout_ref.rollout.agent.num_workers, reward.num_workers). The same command goes on from "
                    "the last checkpoint."
                ) from error
            self._asked[place] = worker.__ray_ready__.remote()
