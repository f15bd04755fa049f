"""Checks of the composed configuration, before Ray or any model starts."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from omegaconf import DictConfig

from recipe.sophiavl.lora_checks import check_lora
from recipe.sophiavl.settings import REWARD_MANAGER_NAME, ThinkingRewardSettings
from recipe.sophiavl.trust_grpo import TrustGRPOConfig
from recipe.sophiavl.validation import SettingsError
from recipe.sophiavl.verl_support import environment, internals


def check_config(config: DictConfig, settings: ThinkingRewardSettings) -> None:
    """Check the recipe's settings against verl's, then run verl's own validation.

    Raises:
        SettingsError: a combination that can't work; the message names the setting and what to change.
    """
    _check_engine(config)
    _check_asynchronous(config)
    check_lora(config)
    _check_mini_batches(config)
    _check_reward(config, settings)

    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config
    from verl.utils.device import auto_set_device

    auto_set_device(config)
    try:
        validate_config(
            config=config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config)
        )
    except (AssertionError, ValueError) as error:
        raise SettingsError(f"verl refuses the configuration: {error}") from error


def _check_engine(config: DictConfig) -> None:
    if not config.trainer.use_v1:
        raise SettingsError("trainer.use_v1=False: Trust-GRPO is built on verl's V1 trainers; use true")
    if config.actor_rollout_ref.rollout.n < 2:
        raise SettingsError(
            f"actor_rollout_ref.rollout.n={config.actor_rollout_ref.rollout.n}: a group needs at least 2 responses"
        )
    if (steps := config.trainer.total_training_steps) is not None and steps < 1:
        raise SettingsError(f"trainer.total_training_steps={steps}: must be at least 1, or null for whole epochs")
    if environment.on_cpu() and config.trainer.device != "cpu" and not config.sophiavl.dry_run:
        raise SettingsError(
            f"trainer.device={config.trainer.device!r}: {environment.why_no_accelerator()} Without one, add "
            "platform=cpu to the command, or sophiavl.dry_run=true to check the configuration only"
        )
    if config.trainer.device == "cpu" and not environment.on_cpu():
        raise SettingsError(
            "trainer.device='cpu': this machine has a GPU, or joins a cluster. Leave out platform=cpu, or start with "
            "VERL_PLATFORM=cpu"
        )


def _check_mini_batches(config: DictConfig) -> None:
    """What the first update would fail at (``TrainingWorker.train_mini_batch``), after a whole rollout."""
    actor, trainer = config.actor_rollout_ref.actor, config.trainer
    batch, prompts, n = config.data.train_batch_size, actor.ppo_mini_batch_size, config.actor_rollout_ref.rollout.n
    ranks = trainer.nnodes * trainer.n_gpus_per_node // actor.get("ulysses_sequence_parallel_size", 1)
    if batch % prompts:
        raise SettingsError(
            f"actor_rollout_ref.actor.ppo_mini_batch_size={prompts}: it must divide data.train_batch_size={batch}: "
            "verl would fill the last mini-batch with padding"
        )
    if ranks and prompts * n % ranks:
        raise SettingsError(
            f"actor_rollout_ref.actor.ppo_mini_batch_size={prompts} times actor_rollout_ref.rollout.n={n} are "
            f"{prompts * n} responses, which {ranks} ranks (trainer.nnodes={trainer.nnodes} times "
            f"trainer.n_gpus_per_node={trainer.n_gpus_per_node}) can't share equally: change one of these"
        )
    share, micro = prompts * n // ranks if ranks else 0, actor.ppo_micro_batch_size_per_gpu
    if not actor.use_dynamic_bsz and (not micro or share % micro):
        raise SettingsError(
            f"actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu={micro}: it must divide the {share} responses of a "
            "mini-batch that one rank gets; or set actor_rollout_ref.actor.use_dynamic_bsz=true"
        )
    longest, room = config.data.max_prompt_length + config.data.max_response_length, actor.ppo_max_token_len_per_gpu
    room *= actor.get("ulysses_sequence_parallel_size", 1)
    if actor.use_dynamic_bsz and room < longest:
        raise SettingsError(
            f"actor_rollout_ref.actor.ppo_max_token_len_per_gpu={actor.ppo_max_token_len_per_gpu}: a prompt and its "
            f"response of {longest} tokens (data.max_prompt_length, data.max_response_length) would fit no micro-batch"
        )


def _check_asynchronous(config: DictConfig) -> None:
    """What verl's ``PPOTrainerSeparateAsync`` asserts after Ray has started, all at once."""
    if config.trainer.v1.trainer_mode != "separate_async":
        return
    rollout, batch = config.actor_rollout_ref.rollout, config.data.train_batch_size
    steps = config.trainer.v1.separate_async.parameter_sync_step
    mini_batch = config.actor_rollout_ref.actor.ppo_mini_batch_size
    wrong = []
    if batch != steps * mini_batch:
        wrong.append(
            f"data.train_batch_size={batch} must be trainer.v1.separate_async.parameter_sync_step={steps} times "
            f"actor_rollout_ref.actor.ppo_mini_batch_size={mini_batch}: set the latter to {batch // steps or 1}"
            + (f", and data.train_batch_size to a multiple of {steps}" if batch % steps else "")
        )
    for key in ("nnodes", "n_gpus_per_node"):
        if rollout[key] < 1:
            wrong.append(
                f"actor_rollout_ref.rollout.{key}={rollout[key]}: set it to the nodes, and the GPUs on each, that "
                "generate, beside those that train"
            )
    engine, on_cpu = rollout.checkpoint_engine, config.trainer.device == "cpu"
    if on_cpu and engine.backend != "tcp":
        wrong.append(
            f"actor_rollout_ref.rollout.checkpoint_engine.backend={engine.backend!r}: set it to tcp, the only one that "
            "brings weights to another server without a GPU"
        )
    elif engine.backend == "naive":
        wrong.append(
            "actor_rollout_ref.rollout.checkpoint_engine.backend='naive': set it to nccl, which brings the weights to "
            "the GPUs that generate (needs cupy: requirements.txt)"
        )
    elif not config.sophiavl.dry_run and (why := internals.why_no_checkpoint_engine(engine)):
        wrong.append(f"actor_rollout_ref.rollout.checkpoint_engine.backend={engine.backend!r}: {why}")
    if config.reward.reward_model.enable and not config.reward.reward_model.enable_resource_pool:
        wrong.append("thinking_reward.mode='colocated': the rollout never pauses for the TRM; use serving=pool")
    if wrong:
        raise SettingsError("trainer.v1.trainer_mode='separate_async':\n- " + "\n- ".join(wrong))


def _check_reward(config: DictConfig, settings: ThinkingRewardSettings) -> None:
    name = config.reward.reward_manager.name
    if name != REWARD_MANAGER_NAME:
        raise SettingsError(f"reward.reward_manager.name={name!r}: the recipe needs {REWARD_MANAGER_NAME!r}")
    if settings.enable and settings.trust.combine != "trust_grpo":
        _check_rival(config, settings.trust)
    if settings.needs_verl_hosting:
        _check_hosting(config, settings)
    elif config.reward.reward_model.enable:
        raise SettingsError(
            f"reward.reward_model.enable=True with thinking_reward.mode={settings.mode!r} and "
            f"thinking_reward.enable={settings.enable}: verl would host a model that nobody asks; "
            "use thinking_reward.mode=pool or colocated, or false here"
        )
    elif settings.enable and config.trainer.nnodes > 1:
        _check_reachable(settings.client_settings().urls, config.trainer.nnodes)


def _check_rival(config: DictConfig, trust: TrustGRPOConfig) -> None:
    """What makes verl's advantage of our rewards those rewards themselves, and nothing asked for that they have not."""
    combine = trust.combine
    for name, plain in (("trust", True), ("trust_estimator", "paper")):
        if (found := getattr(trust, name)) != plain:
            raise SettingsError(
                f"thinking_reward.{name}={found!r} with thinking_reward.combine={combine!r}, which has no trust "
                f"weight: leave it at {plain!r}, or use thinking_reward.combine=trust_grpo"
            )
    for key, needed in (("adv_estimator", "grpo"), ("norm_adv_by_std_in_grpo", False), ("use_kl_in_reward", False)):
        if (found := config.algorithm[key]) != needed:
            raise SettingsError(
                f"algorithm.{key}={found!r} with thinking_reward.combine={combine!r}, whose rewards are advantages "
                f"already: verl would change them; set algorithm.{key}={str(needed).lower()}"
            )


def _check_reachable(urls: Sequence[str], nodes: int) -> None:
    """Refuse an address of the TRM that names another machine on every node."""
    for url in urls:
        host = urlsplit(url).hostname or ""
        try:
            local = ip_address(host).is_loopback or ip_address(host).is_unspecified
        except ValueError:  # a name
            local = host == "localhost" or host.endswith(".localhost")
        if local:
            raise SettingsError(
                f"thinking_reward.urls holds {url}, and trainer.nnodes={nodes}: each node's reward workers would ask "
                "their own machine. Give the address of the TRM's machine in the cluster, and have its server listen "
                "on it (HOST=0.0.0.0 for examples/serve_trm.sh)"
            )


def _check_hosting(config: DictConfig, settings: ThinkingRewardSettings) -> None:
    """What verl needs to host the TRM itself (``RewardModelManager``)."""
    hosted, mode, own_pool = config.reward.reward_model, settings.mode, settings.mode == "pool"
    if not hosted.enable or not hosted.model_path:
        raise SettingsError(
            f"thinking_reward.mode={mode!r}: set reward.reward_model.enable=true and "
            f"reward.reward_model.model_path (now {hosted.model_path!r}) to the TRM that verl should host; "
            f"serving={mode} sets the rest"
        )
    if hosted.enable_resource_pool != own_pool:
        raise SettingsError(
            f"thinking_reward.mode={mode!r}: set reward.reward_model.enable_resource_pool={str(own_pool).lower()}"
        )
    if own_pool and hosted.rollout.free_cache_engine:
        raise SettingsError(
            "reward.reward_model.rollout.free_cache_engine=True with thinking_reward.mode='pool': verl would put the "
            "TRM to sleep once it is loaded, and never wake it; set it to false (serving=pool does)"
        )
    place, key = (hosted, "reward.reward_model") if own_pool else (config.trainer, "trainer")
    for name in ("nnodes", "n_gpus_per_node"):
        if place[name] < 1:
            raise SettingsError(f"{key}.{name}={place[name]}: the TRM needs at least one; serving=pool has a default")
    gpus, replica = place.nnodes * place.n_gpus_per_node, hosted.rollout.tensor_model_parallel_size
    if gpus % replica:
        raise SettingsError(
            f"reward.reward_model.rollout.tensor_model_parallel_size={replica}: it must divide the {gpus} GPUs of "
            f"{key}.nnodes={place.nnodes} times {key}.n_gpus_per_node={place.n_gpus_per_node}"
        )
    if config.reward.custom_reward_function.path is None:
        raise SettingsError(
            "reward.custom_reward_function.path=None: verl would take the hosted TRM for a classifier; "
            "use pkg://reward_score"
        )
