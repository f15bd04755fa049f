"""Weights go from the actor to every worker of the rollout, bit for bit, over sockets; nothing else does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import ray
import torch
from verl.checkpoint_engine.base import CheckpointEngineRegistry

from recipe.sophiavl.verl_support import tcp_checkpoint_engine
from recipe.sophiavl.verl_support.tcp_checkpoint_engine import TcpCheckpointEngine

WEIGHTS = {
    "matrix": torch.randn(300, 70),
    "half": torch.randn(5, 3).to(torch.bfloat16),
    "transposed": torch.arange(12.0).view(3, 4).T,
    "scalar": torch.tensor(2.5),
    "none": torch.empty(0, 4),
    "counts": torch.arange(5),
}


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")


@pytest.fixture
def engines() -> Iterator[list[TcpCheckpointEngine]]:
    """Two ranks of an actor, and two workers of a rollout."""
    made = [CheckpointEngineRegistry.new("tcp", bucket_size=1, is_master=True)]
    made += [CheckpointEngineRegistry.new("tcp", bucket_size=1) for _ in range(3)]
    yield made
    for engine in made:
        engine.finalize()


async def synchronise(engines: list[TcpCheckpointEngine], weights: dict[str, torch.Tensor]) -> list[dict]:
    """What verl's CheckpointEngineManager does; returns what each worker of the rollout got."""

    async def received(engine: TcpCheckpointEngine) -> dict[str, torch.Tensor]:
        return {name: weight async for name, weight in engine.receive_weights(global_steps=1)}

    metadata = [engine.prepare() for engine in engines]
    topology = TcpCheckpointEngine.build_topology(2, 2, metadata)
    for arguments, group in zip(topology, (engines[:2], engines[2:]), strict=True):
        for engine, receivers in zip(group, arguments["receivers"], strict=True):
            engine.init_process_group(receivers)
    sent = [engine.send_weights(iter(weights.items()), global_steps=1) for engine in engines[:2]]
    *_, first, second = await asyncio.gather(*sent, *(received(engine) for engine in engines[2:]))
    for engine in engines:
        engine.finalize()
    return [first, second]


def test_every_worker_gets_every_weight_at_every_update(engines: list[TcpCheckpointEngine]) -> None:
    for factor in (1, 2):
        weights = {name: weight * factor for name, weight in WEIGHTS.items()}
        for got in asyncio.run(synchronise(engines, weights)):
            assert list(got) == list(weights)
            for name, weight in weights.items():
                assert got[name].dtype == weight.dtype
                assert torch.equal(got[name], weight)


def test_a_worker_that_waits_in_vain_says_so(
    engines: list[TcpCheckpointEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp_checkpoint_engine, "_TIMEOUT_MS", 50)

    async def wait() -> None:
        engines[-1].prepare()
        await anext(engines[-1].receive_weights())

    with pytest.raises(TimeoutError, match=r"no weight came from the actor for 0\.05 s"):
        asyncio.run(wait())
