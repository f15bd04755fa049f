"""Repairs of verl 0.9.1 that this recipe needs on GPUs as on CPUs. Each goes once upstream has it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any
from weakref import finalize

import torch
from cachetools import LRUCache
from tensordict import TensorDict
from wrapt import when_imported

_BOOTSTRAPS = 10_000  # remembered, some 500 bytes each


def fix_3d_position_ids(data: TensorDict) -> None:
    """Give 3-D position ids of a VLM batch the right ragged dimension, in place.

    Replaces ``verl.utils.tensordict_utils.maybe_fix_3d_position_ids``. Position ids of one sample are (channels, L),
    with 3 or 4 channels; a batch of them is jagged in its last dimension, with values of shape (channels, sum of L).
    When every sequence of a batch has the same length, ``torch.nested.as_nested_tensor`` sees no ragged dimension,
    takes the first, and stores values of shape (batch * channels, L): verl's own fix then fails much later with
    "split_with_sizes expects split_sizes to sum exactly to ...".

    Args:
        data: a batch with or without ``position_ids``; only a nested 3-D tensor is touched.
    """
    if "position_ids" not in data.keys():  # noqa: SIM118  (iterating a TensorDict yields rows, not keys)
        return
    position_ids = data["position_ids"]
    if not (position_ids.is_nested and position_ids.dim() == 3):
        return
    values, total = position_ids.values(), int(position_ids.offsets()[-1])
    # In the right layout the last dimension of the values is the ragged one. A square tensor is right only if it is
    # as small as one sample's channels.
    rows_are_ragged = values.shape[0] == total and (values.shape[-1] != total or total > 4)
    if not rows_are_ragged:
        position_ids._ragged_idx = 2
        return
    batch_size, length = position_ids.size(0), values.shape[-1]
    samples = values.view(batch_size, -1, length)
    data["position_ids"] = torch.nested.nested_tensor_from_jagged(
        samples.transpose(0, 1).reshape(samples.size(1), batch_size * length),
        torch.arange(batch_size + 1, device=values.device) * length,
        jagged_dim=2,
    )


class PlainVision:
    """A model whose vision tower returns its embeddings as a tensor; everything else is the model's own.

    For a micro-batch without images verl runs the vision tower on blank patches and adds 0 times the mean of its
    output, so that all FSDP ranks run the same modules (``verl/models/transformers/qwen2_vl.py``). It takes the mean of
    what ``visual`` returns, which since transformers 5 is a ``BaseModelOutputWithPooling`` and has none.
    """

    def __init__(self, model: Any, unpack: Callable[[Any], tuple[torch.Tensor, Any]]) -> None:
        self._model, self._unpack = model, unpack

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def visual(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        embeddings, _ = self._unpack(self._model.visual(*args, **kwargs))
        return embeddings


def _fix_text_only_batches(qwen2_vl: Any) -> None:
    original = qwen2_vl._get_input_embeds

    @wraps(original)
    def get_input_embeds(model: Any, *args: Any, **kwargs: Any) -> Any:
        given = signature(original).bind(model, *args, **kwargs).arguments
        if given.get("pixel_values") is None and given.get("pixel_values_videos") is None:
            model = PlainVision(model, qwen2_vl.unpack_visual_output)
        return original(model, *args, **kwargs)

    qwen2_vl._get_input_embeds = get_input_embeds


def _prepare_images_once(agent_loop: Any) -> None:
    """verl 0.9.1 scales and cuts a response's images twice, for its score and for the training: once is enough.

    ``AgentLoopWorker._compute_multi_modal_inputs`` (``verl/experimental/agent_loop/agent_loop.py``): what it gives for
    one output never differs in what its callers use. A worker does it between the responses that it waits for.
    """
    original = agent_loop.AgentLoopWorker._compute_multi_modal_inputs
    prepared: dict[int, dict[str, Any]] = {}  # by the id of an output that is still there

    @wraps(original)
    def compute_multi_modal_inputs(self: Any, output: Any, input_ids: torch.Tensor) -> dict[str, Any]:
        key = id(output)
        if key not in prepared:
            prepared[key] = original(self, output, input_ids)
            finalize(output, prepared.pop, key)
        return dict(prepared[key])  # a caller takes keys out of it

    agent_loop.AgentLoopWorker._compute_multi_modal_inputs = compute_multi_modal_inputs


def own_socket(handle: str) -> str:
    """The address of a socket that no other Ray cluster of this machine has.

    verl 0.9.1 sends new weights to its rollout server through a socket in /tmp, named by Ray's job id, replica and
    rank. Each cluster of one's own calls its first job 01000000: two runs on one machine then unlink and take each
    other's socket. Mostly both wait for ever; a rollout server could also get the weights of another run.

    Args:
        handle: ``ipc:///tmp/rl-colocate-zmq-{job}-replica-{replica}-rank-{rank}.sock``.
    """
    # Ray gives it to every worker of a node, and they to the processes that they start.
    raylet = os.environ.get("RAY_RAYLET_PID", "")
    return handle.replace("-zmq-", f"-zmq-{raylet}-", 1)


def _own_sockets_to_send(vllm_rollout: Any) -> None:
    original = vllm_rollout.ServerAdapter.__init__

    @wraps(original)
    def __init__(self: Any, *args: Any, **named: Any) -> None:
        original(self, *args, **named)
        self.zmq_handle = own_socket(self.zmq_handle)

    vllm_rollout.ServerAdapter.__init__ = __init__


def _own_sockets_to_receive(utils: Any) -> None:
    original = utils.vLLMColocateWorkerExtension._get_zmq_handle

    @wraps(original)
    def _get_zmq_handle(self: Any) -> str:
        return own_socket(original(self))

    utils.vLLMColocateWorkerExtension._get_zmq_handle = _get_zmq_handle


def _copy_what_is_saved(fsdp_utils: Any) -> None:
    """verl 0.9.1 keeps weights aside (``trainer_mode=separate_async``, for the policy that generated) with ``.cpu()``.

    That is a copy only of weights that lie on a GPU: of a model on the CPU, or offloaded there, it would keep the
    weights themselves, which the next update changes.
    """
    original = fsdp_utils.fsdp2_sharded_save_to_cpu

    @wraps(original)
    def fsdp2_sharded_save_to_cpu(model: torch.nn.Module) -> tuple[dict[str, tuple[torch.Tensor, Any]], Any]:
        state, spec = original(model)
        return {name: (tensor.clone(), kind) for name, (tensor, kind) in state.items()}, spec

    fsdp_utils.fsdp2_sharded_save_to_cpu = fsdp2_sharded_save_to_cpu


def _draw_bootstraps_once(metric_utils: Any) -> None:
    """verl 0.9.1 draws 1,000 bootstrap samples, one by one, for each variable of each question of a validation.

    ``bootstrap_metric`` (``verl/trainer/ppo/metric_utils.py``), where there are several responses to a question. It
    always draws the same samples, so what it gives for the same values is the same: most questions share theirs.
    """
    original = metric_utils.bootstrap_metric
    known: LRUCache[Any, list[tuple[float, float]]] = LRUCache(_BOOTSTRAPS)

    @wraps(original)
    def bootstrap_metric(*args: Any, **named: Any) -> list[tuple[float, float]]:
        given = signature(original).bind(*args, **named).arguments
        if any(isinstance(value, dict) for value in given["data"]):  # votes, with a function for each question
            return original(*args, **named)
        key = tuple((name, tuple(value) if isinstance(value, list) else value) for name, value in given.items())
        if key not in known:
            known[key] = original(*args, **named)
        return list(known[key])

    metric_utils.bootstrap_metric = bootstrap_metric


class _AsPrint(logging.LoggerAdapter):
    """A logger that takes print's ``flush`` too."""

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        kwargs.pop("flush", None)
        return msg, kwargs


def _log_of_the_separate_trainer(trainer: Any) -> None:
    """verl 0.9.1 gives its logger print's ``flush`` where ``actor_rollout_ref.hybrid_engine=False``: a TypeError."""
    trainer.logger = _AsPrint(trainer.logger, {})


def install() -> None:
    """Apply the repairs to the modules that they concern, when those are imported."""

    @when_imported("verl.utils.tensordict_utils")
    def _position_ids(module: Any) -> None:
        module.maybe_fix_3d_position_ids = fix_3d_position_ids

    when_imported("verl.models.transformers.qwen2_vl")(_fix_text_only_batches)
    when_imported("verl.experimental.agent_loop.agent_loop")(_prepare_images_once)
    when_imported("verl.workers.rollout.vllm_rollout.vllm_rollout")(_own_sockets_to_send)
    when_imported("verl.workers.rollout.vllm_rollout.utils")(_own_sockets_to_receive)
    when_imported("verl.utils.fsdp_utils")(_copy_what_is_saved)
    when_imported("verl.trainer.ppo.metric_utils")(_draw_bootstraps_once)
    when_imported("verl.trainer.ppo.v1.trainer_separate_async")(_log_of_the_separate_trainer)
