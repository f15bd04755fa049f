"""What a configuration amounts to before anything starts: steps, tokens, memory of a GPU, requests to the TRM.

The arithmetic is that of verl 0.9.1, whose function or method is named at each; it knows nothing of a machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from omegaconf import DictConfig

from recipe.sophiavl.model_size import ModelSize

ASSUMED_GPU_GB = 80.0  # the paper's GPUs
_BYTES = {"fp32": 4, "float32": 4, "float": 4, "bf16": 2, "bfloat16": 2, "fp16": 2, "float16": 2, "half": 2, "auto": 2}


@dataclass(frozen=True)
class Schedule:
    """What a run does, in numbers.

    Attributes:
        questions: of one step (``data.train_batch_size``).
        responses: of one step: each question ``rollout.n`` times.
        mini_batches: that a step's responses are cut into (``PPOTrainer._update_actor``; in ``separate_async`` one for
            each of ``parameter_sync_step`` local updates, which comes to the same).
        mini_batch: responses of one mini-batch, over all ranks.
        rank_mini_batch: a data-parallel rank's share of it (``TrainingWorker.train_mini_batch``).
        micro_batches: that it is computed in, at most: with ``use_dynamic_bsz`` where every response is of the longest.
        updates: optimiser steps of one step: mini-batches times ``ppo_epochs``.
        rows: of the training data, before prompts that are too long are left out; None where the files are not there.
        steps_per_epoch: whole batches only (``PPOTrainer._init_dataloader``); None without data.
        steps: of the run: ``total_training_steps``, but no more than ``total_epochs`` hold (``PPOTrainer.fit``); None
            where only the data could tell.
    """

    questions: int
    responses: int
    mini_batches: int
    mini_batch: int
    rank_mini_batch: int
    micro_batches: int
    updates: int
    rows: int | None
    steps_per_epoch: int | None
    steps: int | None
    _idle_steps: int  # at the start, without an update of the actor

    @property
    def updates_per_epoch(self) -> int | None:
        """Optimiser steps of one epoch."""
        return None if self.steps_per_epoch is None else self.steps_per_epoch * self.updates

    @property
    def updates_in_all(self) -> int | None:
        """Optimiser steps of the run, but for those that verl leaves out because a gradient is not finite."""
        return None if self.steps is None else self.updates_until(self.steps)

    def updates_until(self, step: int) -> int:
        """Optimiser steps made once this training step is done."""
        return max(0, step - self._idle_steps) * self.updates

    @property
    def epochs(self) -> float | None:
        """How often the run sees the data."""
        return self.steps / self.steps_per_epoch if self.steps is not None and self.steps_per_epoch else None


@dataclass(frozen=True)
class Tokens:
    """Tokens of one step, each prompt and each response of the longest that the settings allow.

    Attributes:
        response: of one prompt and one response.
        step: of all responses of a step.
        rank: a data-parallel rank's share of them.
        generated: of all responses of a step without their prompts.
    """

    response: int
    step: int
    rank: int
    generated: int


@dataclass(frozen=True)
class Memory:
    """Memory of one GPU in bytes, estimated: what is computed from counts alone, without activations and fragmentation.

    With P parameters, adapters among them, of which T are trained, s ranks that share them, b bytes a number of
    ``model_dtype``: weights P*b/s, gradients T*b/s, Adam 2*T*b/s; logits of a micro-batch of m tokens over v words and
    their gradients 2*m*v*2. The rollout: weights P*r/t in its number format of r bytes over t GPUs, KV cache
    kv_values*r/t a token.
    The reference model lies in main memory, always (``FSDPEngine._build_fsdp_module``); adapters need none.

    Attributes:
        weights, gradients, optimizer: of the training, on the GPU during the update. None: not known.
        kept: of these three, what stays there while the rollout works.
        offloaded: they are in main memory all the time (``offload_policy``); the first three are 0 then.
        logits: of one micro-batch and their gradients, in bfloat16. None: not known.
        gpu: the whole GPU.
        reserved: what the rollout takes: ``gpu_memory_utilization`` times the GPU.
        rollout_weights: of these. None: not known.
        kv_token: bytes of one token in the KV cache. None: not known.
        kv_needed: responses of the longest that one replica has at once at most.
        shared: the rollout is on the GPUs that train.
    """

    weights: float | None
    gradients: float | None
    optimizer: float | None
    kept: float | None
    offloaded: bool
    logits: float | None
    gpu: float
    reserved: float
    rollout_weights: float | None
    kv_token: float | None
    kv_needed: int
    shared: bool

    @property
    def training(self) -> float | None:
        """Weights, gradients and optimizer during the update."""
        if self.weights is None or self.gradients is None or self.optimizer is None:
            return None
        return self.weights + self.gradients + self.optimizer

    @property
    def kv_cache(self) -> float | None:
        """What is left to the KV cache, at most; vLLM takes its own activations and graphs off it."""
        return None if self.rollout_weights is None else self.reserved - self.rollout_weights

    def kv_responses(self, longest: int) -> int | None:
        """How many responses of this many tokens the KV cache holds."""
        if self.kv_cache is None or self.kv_token is None:
            return None
        return max(0, math.floor(self.kv_cache / (self.kv_token * longest)))


@dataclass(frozen=True)
class Plan:
    """All of it.

    Attributes:
        model: the policy's size; None where nothing tells it.
        requests: to the thinking reward model in a step, at most (responses without the format are not sent); 0
            without one.
        hidden: where they are hidden: ``rollout`` (of the same step), ``step`` (of the asynchronous modes, where
            the next rollout works beside the update), or None: verl hosts the TRM on the training GPUs, and scores
            after the rollout.
        memory: None without a GPU.
    """

    schedule: Schedule
    tokens: Tokens
    model: ModelSize | None
    memory: Memory | None
    requests: int
    hidden: str | None


def plan(config: DictConfig, rows: int | None, model: ModelSize | None, gpu_gb: float) -> Plan:
    """The plan of a checked configuration.

    Args:
        config: as composed; ``check_config`` has passed.
        rows: of the training data (`recipe.sophiavl.data_files.training_rows`).
        model: of the policy (`recipe.sophiavl.model_size.model_size`).
        gpu_gb: memory of one GPU, in GB of 10^9 bytes.
    """
    schedule = _schedule(config, rows)
    longest, ranks = _longest(config), _ranks(config) // _sequence_parallel(config)
    tokens = Tokens(
        response=longest,
        step=schedule.responses * longest,
        rank=schedule.responses * longest // ranks,
        generated=schedule.responses * config.data.max_response_length,
    )
    reward = config.thinking_reward
    hidden = "rollout" if config.trainer.v1.trainer_mode == "sync" else "step"
    return Plan(
        schedule=schedule,
        tokens=tokens,
        model=model,
        memory=None if config.trainer.device == "cpu" else _memory(config, model, gpu_gb * 1e9, schedule),
        requests=schedule.responses if reward.enable else 0,
        hidden=None if reward.enable and reward.mode == "colocated" else hidden,
    )


def _schedule(config: DictConfig, rows: int | None) -> Schedule:
    actor, n = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout.n
    questions, trainer = config.data.train_batch_size, config.trainer
    mini_batch = actor.ppo_mini_batch_size * n
    rank_mini_batch = mini_batch * _sequence_parallel(config) // _ranks(config)
    if actor.use_dynamic_bsz:
        budget = actor.ppo_max_token_len_per_gpu * _sequence_parallel(config)
        micro_batches = math.ceil(rank_mini_batch / max(1, budget // _longest(config)))
    else:
        micro_batches = math.ceil(rank_mini_batch / actor.ppo_micro_batch_size_per_gpu)
    per_epoch = None if rows is None else rows // questions
    limits = [trainer.total_training_steps, None if per_epoch is None else per_epoch * trainer.total_epochs]
    mini_batches = questions // actor.ppo_mini_batch_size
    return Schedule(
        questions=questions,
        responses=questions * n,
        mini_batches=mini_batches,
        mini_batch=mini_batch,
        rank_mini_batch=rank_mini_batch,
        micro_batches=micro_batches,
        updates=mini_batches * actor.ppo_epochs,
        rows=rows,
        steps_per_epoch=per_epoch,
        steps=min((limit for limit in limits if limit is not None), default=None),
        _idle_steps=max(0, trainer.critic_warmup - 1),
    )


def _memory(config: DictConfig, model: ModelSize | None, gpu: float, schedule: Schedule) -> Memory:
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    ranks, asynchronous = _ranks(config), config.trainer.v1.trainer_mode == "separate_async"
    replica = rollout.tensor_model_parallel_size * rollout.data_parallel_size * rollout.pipeline_model_parallel_size
    generating = rollout.nnodes * rollout.n_gpus_per_node if asynchronous else ranks
    split = rollout.tensor_model_parallel_size * rollout.pipeline_model_parallel_size
    rollout_bytes = _BYTES.get(str(rollout.dtype), 2)
    weights, gradients, optimizer = _training_state(config, model)
    micro_batch = math.ceil(schedule.rank_mini_batch / schedule.micro_batches) * _longest(config)
    if actor.use_dynamic_bsz:  # shorter responses fill it
        full = actor.ppo_max_token_len_per_gpu * _sequence_parallel(config)
        micro_batch = min(full, schedule.rank_mini_batch * _longest(config))
    offloaded = bool(actor.fsdp_config.offload_policy) and actor.strategy == "fsdp2"
    kept = None
    if weights is not None and gradients is not None and optimizer is not None:
        kept = 0.0 if actor.fsdp_config.param_offload else weights + gradients
        kept += 0.0 if actor.fsdp_config.optimizer_offload else optimizer
    return Memory(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        kept=kept,
        offloaded=offloaded,
        logits=None if model is None else 2 * 2 * model.vocabulary * micro_batch / _sequence_parallel(config),
        gpu=gpu,
        reserved=rollout.gpu_memory_utilization * gpu,
        rollout_weights=None if model is None else model.parameters * rollout_bytes / split,
        kv_token=None if model is None or model.kv_values is None else model.kv_values * rollout_bytes / split,
        kv_needed=min(math.ceil(schedule.responses * replica / generating), rollout.max_num_seqs),
        shared=not asynchronous,
    )


def _training_state(config: DictConfig, model: ModelSize | None) -> tuple[float | None, float | None, float | None]:
    """Weights, gradients and optimizer of one rank in bytes, as FSDP shares them (``create_device_mesh``)."""
    actor, ranks = config.actor_rollout_ref.actor, _ranks(config)
    if model is None or actor.strategy not in ("fsdp", "fsdp2"):
        return None, None, None
    if actor.fsdp_config.offload_policy and actor.strategy == "fsdp2":
        return 0.0, 0.0, 0.0
    size = actor.fsdp_config.fsdp_size
    share = _BYTES.get(str(actor.fsdp_config.model_dtype), 4) / (ranks if size < 0 or size >= ranks else size)
    adam = actor.optim.optimizer in ("Adam", "AdamW") and actor.optim.optimizer_impl == "torch.optim"
    return (
        (model.parameters + model.adapters) * share,
        model.trained * share,
        2 * model.trained * share if adam else None,
    )


def _longest(config: DictConfig) -> int:
    """Tokens of the longest prompt and response."""
    return config.data.max_prompt_length + config.data.max_response_length


def _ranks(config: DictConfig) -> int:
    return config.trainer.nnodes * config.trainer.n_gpus_per_node


def _sequence_parallel(config: DictConfig) -> int:
    return config.actor_rollout_ref.actor.get("ulysses_sequence_parallel_size", 1)
