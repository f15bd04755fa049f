"""A checkpoint engine for verl 0.9.1 that needs no GPU: weights go to the rollout servers over plain TCP.

verl's own engines that reach a server outside of the trainer's process (``verl/checkpoint_engine/``: nccl, nixl,
mooncake, kimi_ckpt_engine, delta_sharded) keep their buffers on an accelerator. ``trainer_mode=separate_async`` needs
one of them, so without a GPU it takes this one: ``actor_rollout_ref.rollout.checkpoint_engine.backend=tcp``, which verl
finds through ``custom_backend_module`` (config/platform/cpu.yaml).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

import ray
import torch
import zmq
import zmq.asyncio
from verl.checkpoint_engine.base import CheckpointEngine, CheckpointEngineRegistry

_TIMEOUT_MS = 300_000  # a peer that is silent for longer is gone
_END = [b"", b""]


@CheckpointEngineRegistry.register("tcp")
class TcpCheckpointEngine(CheckpointEngine):
    """The first rank of the actor sends each weight, whole, to every worker of the rollout.

    Args:
        bucket_size: verl's; weights are not put into buckets.
        is_master: this is the first rank of the actor.
    """

    def __init__(self, bucket_size: int, is_master: bool = False) -> None:
        self._is_master = is_master
        self._context = zmq.asyncio.Context()
        self._sockets: list[zmq.asyncio.Socket] = []

    def prepare(self) -> str | None:
        """Listen; returns the address, which the actor's ranks do not use."""
        if self._is_master:
            return None
        socket = self._socket(zmq.PULL)
        host = f"tcp://{ray.util.get_node_ip_address()}"
        return f"{host}:{socket.bind_to_random_port(host)}"

    @classmethod
    def build_topology(
        cls, actor_wg_world_size: int, rollout_world_size: int, metadata: list[str | None]
    ) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        """The first rank of the actor gets the addresses of the rollout's workers, all others none."""
        receivers = metadata[actor_wg_world_size:]
        return (
            {"receivers": [receivers, *([[]] * (actor_wg_world_size - 1))]},
            {"receivers": [[]] * rollout_world_size},
        )

    def init_process_group(self, receivers: list[str]) -> None:
        for address in receivers:
            self._socket(zmq.PUSH).connect(address)

    async def send_weights(self, weights: Iterable[tuple[str, torch.Tensor]], global_steps: int | None = None) -> None:
        for name, weight in weights:  # on every rank: to gather a weight takes all of them
            if self._is_master:
                header = {"name": name, "dtype": str(weight.dtype).removeprefix("torch."), "shape": list(weight.shape)}
                data = weight.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
                await self._send([json.dumps(header).encode(), data])
        if self._is_master:
            await self._send(_END)

    async def _send(self, message: list[Any]) -> None:
        for socket in self._sockets:
            try:
                await socket.send_multipart(message)
            except zmq.Again as error:
                raise TimeoutError(f"a rollout worker took no weights for {_TIMEOUT_MS / 1000:g} s") from error

    async def receive_weights(self, global_steps: int | None = None) -> AsyncIterator[tuple[str, torch.Tensor]]:
        (socket,) = self._sockets
        while (message := await self._receive(socket)) != _END:
            header, data = json.loads(message[0]), bytearray(message[1])
            weight = torch.empty(header["shape"], dtype=getattr(torch, header["dtype"]))
            if data:
                weight.view(-1).view(torch.uint8).copy_(torch.frombuffer(data, dtype=torch.uint8))
            yield header["name"], weight

    @staticmethod
    async def _receive(socket: zmq.asyncio.Socket) -> list[bytes]:
        try:
            return await socket.recv_multipart()
        except zmq.Again as error:
            raise TimeoutError(f"no weight came from the actor for {_TIMEOUT_MS / 1000:g} s") from error

    def finalize(self) -> None:
        for socket in self._sockets:
            socket.close()
        self._sockets.clear()

    def _socket(self, kind: int) -> zmq.asyncio.Socket:
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.SNDTIMEO, _TIMEOUT_MS)
        socket.setsockopt(zmq.RCVTIMEO, _TIMEOUT_MS)
        self._sockets.append(socket)
        return socket
