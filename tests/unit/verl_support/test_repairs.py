"""The repairs of verl do what verl's own code does not, and are installed wherever verl is imported."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from functools import wraps
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch
from weakref import ref

import numpy as np
import pytest
import torch
import verl.utils.tensordict_utils as tensordict_utils
from tensordict import TensorDict
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import Qwen2_5_VLConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput, AgentLoopWorker
from verl.models.transformers import qwen2_vl
from verl.trainer.ppo import metric_utils
from verl.trainer.ppo.v1 import trainer_separate_async
from verl.utils import fsdp_utils
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension as Extension
from verl.workers.rollout.vllm_rollout.vllm_rollout import ServerAdapter

from recipe.sophiavl.verl_support.repairs import (
    _draw_bootstraps_once,
    _own_sockets_to_send,
    _prepare_images_once,
    fix_3d_position_ids,
)

CHANNELS = 4


def position_ids(lengths: list[int]) -> tuple[list[torch.Tensor], TensorDict]:
    rows = [torch.arange(CHANNELS * length).view(CHANNELS, length) + 1000 * i for i, length in enumerate(lengths)]
    nested = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
    return rows, TensorDict({"position_ids": nested}, batch_size=len(lengths))


@pytest.mark.parametrize("lengths", [[5, 5, 5], [3, 7], [6], [8, 8], [12, 12, 12]], ids=str)
def test_position_ids_keep_their_values_and_are_ragged_in_length(lengths: list[int]) -> None:
    """Equal lengths are what verl's own fix breaks on; 3 x 4 channels of length 12 makes a square of values."""
    rows, data = position_ids(lengths)
    fix_3d_position_ids(data)
    fixed = data["position_ids"]
    assert fixed.shape[:2] == (len(lengths), CHANNELS)
    assert fixed._ragged_idx == 2
    for row, original in zip(fixed.unbind(), rows, strict=True):
        assert torch.equal(row, original)


def test_position_ids_that_are_not_nested_or_not_there_stay() -> None:
    dense = torch.arange(24).view(2, 4, 3)
    data = TensorDict({"position_ids": dense.clone()}, batch_size=2)
    fix_3d_position_ids(data)
    assert torch.equal(data["position_ids"], dense)
    fix_3d_position_ids(TensorDict({}, batch_size=2))


def test_the_plugin_installed_the_repairs() -> None:
    assert tensordict_utils.maybe_fix_3d_position_ids is fix_3d_position_ids


def test_text_only_rows_reach_the_language_model_unchanged() -> None:
    """verl 0.9.1 fails here with transformers 5: 'BaseModelOutputWithPooling' object has no attribute 'mean'."""
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 32,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6], "rope_type": "default", "rope_theta": 1e4},
        },
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "num_heads": 1,
            "intermediate_size": 32,
            "out_hidden_size": 32,
            "patch_size": 14,
            "fullatt_block_indexes": [0],
        },
    )
    model = Qwen2_5_VLModel(config)
    ids, mask = torch.tensor([[1, 2, 3]]), torch.ones(1, 3)
    embeds, returned = qwen2_vl._get_input_embeds(model, ids, mask, None, None, None, None)
    assert torch.equal(embeds, model.get_input_embeddings()(ids))
    assert torch.equal(returned, mask)
    embeds.sum().backward()
    assert all(p.grad is not None for p in model.visual.parameters()), "every rank runs the vision tower"


def response(token: int) -> AgentLoopOutput:
    return AgentLoopOutput(prompt_ids=[1], response_ids=[token], response_mask=[1], metrics=AgentLoopMetrics())


def test_a_responses_images_are_prepared_once_and_forgotten_with_it() -> None:
    made: list[ref[torch.Tensor]] = []

    class Worker:
        def _compute_multi_modal_inputs(self, output: Any, input_ids: torch.Tensor) -> dict[str, Any]:
            pixels = torch.tensor(output.response_ids)
            made.append(ref(pixels))
            return {"pixel_values": pixels, "mm_token_type_ids": input_ids}

    _prepare_images_once(SimpleNamespace(AgentLoopWorker=Worker))
    worker, ids = Worker(), torch.tensor([1, 2])
    outputs = [response(2), response(3)]
    for output in (*outputs, *outputs):
        inputs = worker._compute_multi_modal_inputs(output, ids)
        assert inputs.pop("mm_token_type_ids") is ids, "what a caller takes out is there for the next one"
        assert inputs["pixel_values"].tolist() == output.response_ids
    assert len(made) == 2
    del outputs, output, inputs
    gc.collect()
    assert [kept() for kept in made] == [None, None]


def test_the_plugin_has_verl_prepare_images_once() -> None:
    assert AgentLoopWorker._compute_multi_modal_inputs.__wrapped__.__module__ == AgentLoopWorker.__module__


def test_a_validation_draws_the_bootstraps_of_the_same_values_once() -> None:
    calls: list[list[float]] = []
    draw = metric_utils.bootstrap_metric.__wrapped__

    @wraps(draw)
    def counted(*args: Any, **named: Any) -> Any:
        calls.append(named["data"])
        return draw(*args, **named)

    module = SimpleNamespace(bootstrap_metric=counted)
    _draw_bootstraps_once(module)
    one, other, least = [0.0, 1.0, 1.0], [0.0, 1.0, 0.5], {"reduce_fns": [np.min]}
    how = {"subset_size": 2, "reduce_fns": [np.max, np.min], "n_bootstrap": 50, "seed": 42}
    for changed in ({}, {"subset_size": 3}, least, {"n_bootstrap": 60}, {"seed": 7}):
        for data in (one, other, one):
            assert module.bootstrap_metric(data=list(data), **how | changed) == draw(data=data, **how | changed)
    assert len(calls) == 10
    module.bootstrap_metric(data=list(one), **how).clear()
    assert module.bootstrap_metric(data=list(one), **how) == draw(data=one, **how), "what a caller does to it stays his"
    assert len(calls) == 10


def test_votes_are_drawn_each_time() -> None:
    module = SimpleNamespace(bootstrap_metric=metric_utils.bootstrap_metric.__wrapped__)
    _draw_bootstraps_once(module)
    votes = [{"val": 1.0, "pred": "a"}, {"val": 0.0, "pred": "b"}]
    one, two = (
        module.bootstrap_metric(votes, 2, [lambda drawn, weight=weight: weight * drawn[0]["val"]], n_bootstrap=50)
        for weight in (1, 2)
    )
    assert two[0][0] == 2 * one[0][0] > 0


def test_the_plugin_has_verl_draw_bootstraps_once() -> None:
    data = {"reward": [0.0, 1.0] * 30, "thinking_reward": [0.5, 0.25] * 30}
    uids = [f"q{i // 2}" for i in range(60)]
    with patch.object(np.random, "choice", wraps=np.random.choice) as drawn:
        found = metric_utils.process_validation_metrics(["s"] * 60, uids, data)["s"]
    assert drawn.call_count <= 2, "30 questions, two different sets of values"
    with patch.object(metric_utils, "bootstrap_metric", metric_utils.bootstrap_metric.__wrapped__):
        assert metric_utils.process_validation_metrics(["s"] * 60, uids, data)["s"] == found


def test_two_clusters_of_one_machine_send_weights_through_sockets_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a Ray job 01000000, replica 0 and rank 0, and verl names the socket by these."""
    monkeypatch.setenv("VERL_RAY_JOB_ID", "01000000")
    receiver = object.__new__(Extension)
    receiver.local_rank, receiver.model_runner = 0, None
    plain = "ipc:///tmp/rl-colocate-zmq-01000000-replica-0-rank-0.sock"
    made = []
    for raylet in ("2122", "27558"):
        monkeypatch.setenv("RAY_RAYLET_PID", raylet)
        made.append(receiver._get_zmq_handle())
        module = SimpleNamespace(ServerAdapter=type("ServerAdapter", (), {"zmq_handle": plain}))
        _own_sockets_to_send(module)
        assert module.ServerAdapter().zmq_handle == made[-1], "both ends agree"
    assert len({*made, plain}) == 3


def test_the_plugin_names_the_sockets_on_both_sides() -> None:
    assert ServerAdapter.__init__.__wrapped__.__module__ == ServerAdapter.__module__
    assert Extension._get_zmq_handle.__wrapped__.__module__ == Extension.__module__


@pytest.fixture
def one_rank() -> Iterator[None]:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("one_rank")
def test_weights_kept_aside_stay_what_they_were() -> None:
    """verl 0.9.1 keeps the weights themselves where they are not on a GPU, and then restores what it never saved."""
    model = torch.nn.Linear(4, 3)
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    before = model.weight.full_tensor().clone()
    kept = fsdp_utils.fsdp2_sharded_save_to_cpu(model)
    with torch.no_grad():
        model.weight.mul_(2)
    fsdp_utils.fsdp2_sharded_load_from_cpu(model, *kept)
    assert torch.equal(model.weight.full_tensor(), before)


def test_the_separate_trainer_may_flush_its_log(caplog: pytest.LogCaptureFixture) -> None:
    """It does where actor_rollout_ref.hybrid_engine=False."""
    with caplog.at_level("INFO", trainer_separate_async.logger.name):
        trainer_separate_async.logger.info("disabled", flush=True)
    assert "disabled" in caplog.text
