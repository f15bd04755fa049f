"""Every name of verl and TransferQueue that is private or not yet stable, and that the recipe stands on.

Moving to another verl is an edit of this file (and of `repairs`, which replaces faulty code of verl). `EXPECTED` also
lists the methods that `trainer.TrustGRPOMixin` overrides: a method that upstream renames would never be called.
verl 0.9.1, TransferQueue 0.1.11.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_TRAINER = "verl.trainer.ppo.v1.trainer_base"
_REWARD_LOOP = "verl.experimental.reward_loop.reward_loop"

# What a trainer has of its engine once it is set up (``PPOTrainer._setup``).
ENGINE_PARTS = (
    "resource_pool_manager",
    "resource_pool_to_cls",
    "ref_in_actor",
    "actor_rollout_wg",
    "ref_policy_wg",
    "llm_server_manager",
    "checkpoint_manager",
    "reward_loop_manager",
    "teacher_model_manager",
    "distillation_config",
)

# module -> (dotted name, what the recipe does with it)
EXPECTED: dict[str, tuple[tuple[str, str], ...]] = {
    "verl.trainer.main_ppo": (
        ("run_ppo", "starts Ray and the task runner"),
        ("TaskRunnerV1.__ray_metadata__.modified_class", "is subclassed by task_runner"),
    ),
    _TRAINER: (
        ("TRAINER_REGISTRY", "gets the Trust-GRPO class for trainer.v1.trainer_mode"),
        ("get_trainer_cls", "finds the class to build on"),
        ("Tracking", "is replaced by loggers.RunTracking"),
        *(
            (f"PPOTrainer.{method}", "is overridden by trainer.TrustGRPOMixin")
            for method in (
                "fit",
                "_init_dataloader",
                "on_init_end",
                "on_step_begin",
                "on_step_end",
                "_compute_reward_colocate",
                "_compute_old_log_prob",
                "_compute_advantage",
                "_save_checkpoint",
                "_dump_generations",
                "_validate",
                "_val_metrics_update",
                "_maybe_log_val_generations",
                "_compute_metrics",
                "_shutdown_dump_executor",
                "get_reward_handles",
                "_setup",
            )
        ),
        *(
            (f"PPOTrainer.{method}", "is called by study.engine, for a run on an engine that is there")
            for method in ("_init_tokenizer", "_init_dump_executor", "_load_checkpoint")
        ),
        ("PPOTrainer._rollout_server_managers", "tells which servers generate"),
    ),
    "verl.trainer.ppo.v1.replay_buffer": (
        ("ReplayBuffer._wait_for_next_poll", "is where a lost worker ends the run, by lost_workers"),
    ),
    "verl.workers.rollout.vllm_rollout.vllm_rollout": (
        ("ServerAdapter.__init__", "names the socket that new weights are sent through; is wrapped by repairs"),
    ),
    "verl.workers.rollout.vllm_rollout.utils": (
        ("vLLMColocateWorkerExtension._get_zmq_handle", "names it for the receiver; is wrapped by repairs"),
    ),
    "verl.trainer.ppo.metric_utils": (("bootstrap_metric", "is wrapped by repairs"),),
    "verl.trainer.ppo.v1": (
        (
            "AgentLoopWorkerTQ.__ray_metadata__.modified_class.generate_sequences",
            "reads the sampling of a validation in its config at each call",
        ),
        ("AgentLoopManagerTQ._init_agent_loop_workers", "makes agent_loop_workers"),
    ),
    "verl.experimental.reward_loop.reward_manager.registry": (("REWARD_MANAGER", "must hold our manager"),),
    _REWARD_LOOP: (
        ("RewardLoopWorker", "is told the driver's environment before it makes its reward manager"),
        ("RewardLoopWorker._init_reward_fn", "is called again for each run on an engine"),
        ("RewardLoopManager._init_reward_loop_workers", "is wrapped, so that its workers are these"),
    ),
    "verl.experimental.reward_loop.reward_model": (
        ("RewardModelManager.get_router_address", "is replaced, so that it tells the replicas' own addresses"),
    ),
    "verl.utils.dataset.rl_dataset": (
        ("RLHFDataset._build_messages", "is overridden by rl_dataset.SophiaVLDataset, for the images of a row"),
    ),
    "verl.plugin.platform": (("get_platform", "tells which platform verl runs on"),),
    "verl.utils.tensordict_utils": (("maybe_fix_3d_position_ids", "is replaced by repairs"),),
    "verl.models.transformers.qwen2_vl": (
        ("_get_input_embeds", "is wrapped by repairs"),
        ("unpack_visual_output", "reads what a vision tower returns, for repairs"),
    ),
    "verl.checkpoint_engine": (("CheckpointEngineRegistry.get", "tells which checkpoint engines can be had"),),
    "verl.model_merger.base_model_merger": (("ModelMergerConfig", "tells verl's merger what to merge"),),
    "verl.model_merger.fsdp_model_merger": (
        ("FSDPModelMerger.merge_and_save", "puts a checkpoint's shards together for recipe.sophiavl.merge"),
    ),
    "transfer_queue": (
        ("kv_batch_get", "reads a batch's fields"),
        ("kv_batch_put", "writes a batch's fields"),
        ("close", "waits until the last run on an engine has ended"),
    ),
}


class VerlChangedError(RuntimeError):
    """A name of verl that the recipe stands on is gone; the message says which, and where it was used."""


def find(module: str, name: str) -> Any:
    """An attribute of a module of verl or TransferQueue.

    Args:
        name: dotted, such as ``PPOTrainer.on_step_end``.

    Raises:
        VerlChangedError: the module or the attribute is gone.
    """
    use = dict(EXPECTED.get(module, ())).get(name, "is used")
    try:
        return reduce(getattr, name.split("."), import_module(module))
    except (ImportError, AttributeError) as error:
        raise VerlChangedError(
            f"{module} has no {name} ({error}), which {use}: install the verl of recipe/sophiavl/REQUIRED_VERL.txt, or "
            "bring recipe/sophiavl/verl_support/internals.py up to the verl that is installed"
        ) from error


def task_runner_class() -> type:
    """The plain class of verl's V1 task runner (``verl/trainer/main_ppo.py``), which is a Ray actor class there."""
    return find("verl.trainer.main_ppo", "TaskRunnerV1.__ray_metadata__.modified_class")


def trainer_class(mode: str) -> type:
    """verl's trainer for ``trainer.v1.trainer_mode`` (``verl/trainer/ppo/v1/trainer_base.py``)."""
    return find(_TRAINER, "get_trainer_cls")(mode)


def use_trainer(mode: str, trainer: type) -> None:
    """Make verl build this trainer for a mode. The mode keeps its name, which verl compares with in several places."""
    find(_TRAINER, "TRAINER_REGISTRY")[mode] = trainer


def why_no_checkpoint_engine(settings: Any) -> str:
    """Why the engine of ``rollout.checkpoint_engine`` can't be used here, in verl's words; empty where it can."""
    if settings.custom_backend_module:
        import_module(settings.custom_backend_module)  # registers an engine that is none of verl's
    try:
        find("verl.checkpoint_engine", "CheckpointEngineRegistry").get(settings.backend)
    except ValueError as error:
        return str(error)
    return ""


def use_tracking(tracking: type) -> None:
    """Make verl's trainer log through this class (``PPOTrainer.fit``)."""
    find(_TRAINER, "Tracking")
    import_module(_TRAINER).Tracking = tracking


def knows_reward_manager(name: str) -> bool:
    """Whether verl's registry (``experimental/reward_loop/reward_manager/registry.py``) has this reward manager."""
    return name in find("verl.experimental.reward_loop.reward_manager.registry", "REWARD_MANAGER")


def prepare_reward_workers(prepare: Callable[[], None]) -> None:
    """Have every reward worker that this process starts call ``prepare`` first (``RewardLoopWorker.__init__``)."""
    import ray

    manager = find(_REWARD_LOOP, "RewardLoopManager")
    start = find(_REWARD_LOOP, "RewardLoopManager._init_reward_loop_workers")

    class RewardLoopWorker(find(_REWARD_LOOP, "RewardLoopWorker")):
        def __init__(self, *arguments: Any) -> None:
            prepare()
            super().__init__(*arguments)

    def start_prepared(self: Any) -> None:
        self.reward_loop_workers_class = ray.remote(RewardLoopWorker)
        start(self)

    manager._init_reward_loop_workers = start_prepared


def give_reward_workers_the_replicas() -> None:
    """Give reward workers the addresses of the hosted replicas, ``host:port,host:port``, in place of the router's.

    verl's router (``experimental/reward_loop/router/naive_router.py``) answers 500 where a replica refuses a request
    (4xx), so that no client can tell a refusal from a failure, and it sends requests where there are fewest, so that a
    question's prefix is computed on every replica.
    """
    manager = find("verl.experimental.reward_loop.reward_model", "RewardModelManager")
    manager.get_router_address = lambda self: ",".join(self.server_addresses)


def renew_reward_workers(manager: Any, config: Any) -> None:
    """Have reward workers that are there begin anew with another configuration (``RewardLoopWorker.__init__``)."""
    import ray

    find(_REWARD_LOOP, "RewardLoopWorker._init_reward_fn")
    manager.config = config
    ray.get([worker.__ray_call__.remote(_renew_reward_worker, config) for worker in manager.reward_loop_workers])


def _renew_reward_worker(worker: Any, config: Any) -> None:
    before, worker.config = worker.reward_manager, config
    worker._init_reward_fn()
    closing = asyncio.run_coroutine_threadsafe(before.close(), worker.loop)
    closing.add_done_callback(lambda done: done.exception() and logger.warning("not closed: %r", done.exception()))


@contextmanager
def queue_kept_open() -> Iterator[None]:
    """Meanwhile verl does not close TransferQueue: workers that are there would be left with a client of nothing."""
    queue = import_module("transfer_queue")
    close = find("transfer_queue", "close")
    queue.close = lambda: None
    try:
        yield
    finally:
        queue.close = close


def generating_workers(trainer: Any, agent_loop_manager: Any) -> dict[str, list[Any]]:
    """The Ray actors that make and score a trainer's responses, by what they are."""
    servers = [server for manager in trainer._rollout_server_managers() for server in manager.server_handles]
    return {
        "agent loop worker": list(agent_loop_manager.agent_loop_workers),
        "reward loop worker": list(trainer.get_reward_handles() or []),
        "rollout server": servers,
    }


def set_validation_sampling(manager: Any, config: Any, values: Mapping[str, Any]) -> None:
    """Have the validations that follow sample with these values of ``actor_rollout_ref.rollout.val_kwargs``.

    Each agent loop worker (``verl/trainer/ppo/v1/agent_loop_tq.py``) reads them in a configuration of its own.

    Args:
        manager: the agent loop manager.
        config: the trainer's configuration, where verl looks how many responses to expect.
    """
    import ray

    workers = getattr(manager, "agent_loop_workers", None)
    if not workers:
        raise VerlChangedError(
            f"{type(manager).__name__} has no agent_loop_workers, whose sampling sophiavl.validation_modes sets: leave "
            "it at [as_configured]"
        )
    config.actor_rollout_ref.rollout.val_kwargs.update(values)
    ray.get([worker.__ray_call__.remote(_update_worker, dict(values)) for worker in workers])


def _update_worker(worker: Any, values: Mapping[str, Any]) -> None:
    worker.config.actor_rollout_ref.rollout.val_kwargs.update(values)


def platform_name() -> str:
    """The device that verl runs on in this process (``verl/plugin/platform``)."""
    return find("verl.plugin.platform", "get_platform")().device_name


def read_fields(batch: Any, keys: Sequence[str], fields: Sequence[str]) -> Any:
    """Fields of rows of a batch, as a TensorDict (TransferQueue, ``interface.py``).

    Args:
        batch: TransferQueue's ``KVBatchMeta``; gives the partition.
        keys: the rows.
    """
    read = find("transfer_queue", "kv_batch_get")
    return read(keys=list(keys), partition_id=batch.partition_id, select_fields=list(fields))


def write_fields(batch: Any, keys: Sequence[str], fields: Any) -> None:
    """Write a TensorDict of as many rows as there are keys into a batch (TransferQueue, ``interface.py``)."""
    find("transfer_queue", "kv_batch_put")(keys=list(keys), partition_id=batch.partition_id, fields=fields)


def merge_shards(shards: Path, out: Path) -> None:
    """What ``python -m verl.model_merger merge --backend fsdp`` does (``verl/model_merger``), in this process.

    Args:
        shards: folder of an FSDP checkpoint.
        out: folder for the model in bfloat16, its tokenizer and processor, and adapters where there are some.
    """
    settings = find("verl.model_merger.base_model_merger", "ModelMergerConfig")(
        operation="merge",
        backend="fsdp",
        local_dir=str(shards),
        hf_model_config_path=str(shards / "huggingface"),
        target_dir=str(out),
    )
    find("verl.model_merger.fsdp_model_merger", "FSDPModelMerger")(settings).merge_and_save()
