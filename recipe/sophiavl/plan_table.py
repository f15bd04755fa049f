"""A plan as a short table for people."""

from __future__ import annotations

from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recipe.sophiavl.plan import Memory, Plan, Schedule

_NO_DATA = "unknown until data.train_files is there"
_EXAMPLE_S = 60


def show(plan: Plan, config: DictConfig, console: Console | None = None) -> None:
    """Print it on standard output.

    Args:
        console: whose width and colours it has; default: standard output's, and lines of any length where that is no
            terminal.
    """
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = 10_000
    shown = Table(box=None, show_header=False, pad_edge=False)
    shown.add_column(style="bold", no_wrap=True)
    shown.add_column()
    rows = [
        ("model", _model(plan, config)),
        ("machines", _machines(config)),
        *_schedule(plan.schedule, config),
        ("tokens", _tokens(plan)),
        *_memory(plan, config),
        ("TRM", _requests(plan, config)),
    ]
    for name, text in rows:
        shown.add_row(name, escape(text))
    with console.capture() as captured:
        console.print(shown)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _model(plan: Plan, config: DictConfig) -> str:
    path, size = config.actor_rollout_ref.model.path, plan.model
    if size is None:
        return f"{path}: size unknown, for its config.json is not at hand"
    trained = "all trained"
    if size.adapters:
        rank = config.actor_rollout_ref.model.lora_rank
        trained = f"and {_count(size.adapters)} of its adapters (LoRA of rank {rank}), which alone are trained"
    return f"{path}: {_count(size.parameters)} parameters, {trained}"


def _machines(config: DictConfig) -> str:
    trainer, rollout = config.trainer, config.actor_rollout_ref.rollout
    device = "CPU rank" if trainer.device == "cpu" else "GPU"
    parts = [f"{_several(trainer.nnodes, 'node')} x {_several(trainer.n_gpus_per_node, device)} to train"]
    if trainer.v1.trainer_mode == "separate_async":
        parts.append(f"{rollout.nnodes} x {rollout.n_gpus_per_node} to generate")
    if config.reward.reward_model.enable_resource_pool:
        parts.append(f"{config.reward.reward_model.nnodes} x {config.reward.reward_model.n_gpus_per_node} for the TRM")
    return f"{', '.join(parts)}; trainer.v1.trainer_mode={trainer.v1.trainer_mode}"


def _schedule(schedule: Schedule, config: DictConfig) -> list[tuple[str, str]]:
    n, passes = config.actor_rollout_ref.rollout.n, config.actor_rollout_ref.actor.ppo_epochs
    epoch = whole = _NO_DATA
    if schedule.steps_per_epoch is not None:
        epoch = f"{schedule.rows:,} rows: {_steps(schedule.steps_per_epoch, schedule.updates_per_epoch)}"
        if config.data.filter_overlong_prompts:
            epoch += "; fewer where prompts are too long"
    if schedule.steps is not None:
        whole = _steps(schedule.steps, schedule.updates_in_all)
        if schedule.epochs is not None:
            whole += f", {schedule.epochs:.2f} epochs"
    return [
        ("a step", f"{_several(schedule.questions, 'question')} x {n} = {_several(schedule.responses, 'response')}"),
        (
            "",
            f"{_several(schedule.mini_batches, 'mini-batch')} of {_several(schedule.mini_batch, 'response')}"
            f"{'' if passes == 1 else f', {passes} times'}: {_several(schedule.updates, 'optimiser step')}",
        ),
        (
            "",
            f"a rank's share of a mini-batch: {_several(schedule.rank_mini_batch, 'response')} in at most "
            f"{_several(schedule.micro_batches, 'micro-batch')}",
        ),
        ("an epoch", epoch),
        ("the run", whole),
    ]


def _steps(steps: int, updates: int | None) -> str:
    return f"{_several(steps, 'step')} = {_several(updates or 0, 'optimiser step')}"


def _tokens(plan: Plan) -> str:
    tokens = plan.tokens
    return (
        f"at most {tokens.response:,} a response, {tokens.step:,} a step ({tokens.rank:,} a rank), "
        f"{tokens.generated:,} of them generated"
    )


def _memory(plan: Plan, config: DictConfig) -> list[tuple[str, str]]:
    memory = plan.memory
    if memory is None:
        return []
    asked = config.sophiavl.gpu_memory_gb
    told = "sophiavl.gpu_memory_gb" if asked else "sophiavl.gpu_memory_gb says another size"
    lines = [f"estimate, of {_gb(memory.gpu)} ({told}), without activations", _training(memory), _rollout(memory, plan)]
    if warning := _too_much(memory):
        lines.append(warning)
    return [("GPU memory" if i == 0 else "", line) for i, line in enumerate(lines)]


def _training(memory: Memory) -> str:
    if memory.offloaded:
        state = "weights, gradients and Adam in main memory"
    elif memory.weights is None or memory.gradients is None:
        state = "weights and gradients unknown"
    else:
        optimizer = "unknown" if memory.optimizer is None else _gb(memory.optimizer)
        state = f"weights {_gb(memory.weights)}, gradients {_gb(memory.gradients)}, optimiser state {optimizer}"
        if memory.training is not None:
            state += f": {_gb(memory.training)}"
    logits = "" if memory.logits is None else f"; logits of a micro-batch and their gradients {_gb(memory.logits)}"
    return f"update: {state}{logits}"


def _rollout(memory: Memory, plan: Plan) -> str:
    taken = f"rollout: {_gb(memory.reserved)}"
    if memory.rollout_weights is None or memory.kv_cache is None:
        return f"{taken}, weights and KV cache unknown"
    cache = f"{taken}: weights {_gb(memory.rollout_weights)}, KV cache {_gb(max(0.0, memory.kv_cache))} at most"
    held = memory.kv_responses(plan.tokens.response)
    if held is not None:
        cache += f", which holds {held:,} of the longest responses; a replica gets {memory.kv_needed:,} at once"
    if memory.shared and memory.kept is not None:
        cache += f"; beside it the training keeps {_gb(memory.kept)}"
    return cache


def _too_much(memory: Memory) -> str:
    """What can't fit, and which settings change it; empty where nothing is known to be too much."""
    if memory.kv_cache is not None and memory.kv_cache <= 0:
        return (
            "TOO LITTLE for the rollout's weights; raise actor_rollout_ref.rollout.gpu_memory_utilization or "
            "tensor_model_parallel_size"
        )
    if memory.shared and memory.kept is not None and memory.kept + memory.reserved > memory.gpu:
        return (
            "TOO MUCH: rollout and training beside each other exceed the GPU; lower "
            "actor_rollout_ref.rollout.gpu_memory_utilization, or use preset=offload or lora, or more GPUs"
        )
    if memory.training is not None and memory.training + (memory.logits or 0) > memory.gpu:
        return "TOO MUCH: the update exceeds the GPU; use preset=offload or lora, or more GPUs"
    return ""


def _requests(plan: Plan, config: DictConfig) -> str:
    if not plan.requests:
        return "none (thinking_reward.enable=false)"
    n = plan.requests
    asked = f"at most {n:,} requests a step ({config.thinking_reward.mode}), "
    if plan.hidden is None:
        return f"{asked}between rollout and update: at R of them a second they take {n:,} / R seconds of every step"
    place = "the rollout" if plan.hidden == "rollout" else "the step, in which the next rollout is under way,"
    return (
        f"{asked}hidden if {place} takes S seconds and the TRM answers {n:,} / S a second: {n / _EXAMPLE_S:.1f} for "
        f"{_EXAMPLE_S} s"
    )


def _several(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 'es' if what.endswith('ch') else 's'}"


def _count(number: int) -> str:
    for unit, size in (("billion", 1e9), ("million", 1e6)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number:,}"


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
