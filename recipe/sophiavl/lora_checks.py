"""Checks of a run that trains adapters (LoRA): what verl 0.9.1 or vLLM would silently leave out is refused at start."""

from __future__ import annotations

from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from recipe.sophiavl.validation import SettingsError

_MODEL = "actor_rollout_ref.model"
_VLLM = "actor_rollout_ref.rollout.engine_kwargs.vllm"


def served_as_adapter(config: DictConfig) -> bool:
    """Whether the rollout servers get adapters, instead of whole weights with the adapters merged into them."""
    model = config.actor_rollout_ref.model
    return model.lora_rank > 0 and not model.lora.merge


def check_lora(config: DictConfig) -> None:
    """Check the settings of the adapters, without the model.

    Raises:
        SettingsError: adapters that would not be trained, or not reach the rollout servers.
    """
    model, rollout = config.actor_rollout_ref.model, config.actor_rollout_ref.rollout
    if model.lora_rank <= 0:
        for key in ("lora.rank", "lora_adapter_path"):
            if value := OmegaConf.select(model, key):
                raise SettingsError(
                    f"{_MODEL}.{key}={value} with {_MODEL}.lora_rank={model.lora_rank}: FSDP trains adapters where "
                    "lora_rank is above 0; set it to their rank"
                )
        return
    if not served_as_adapter(config):
        return
    if config.trainer.v1.trainer_mode == "separate_async":
        raise SettingsError(
            f"{_MODEL}.lora_rank={model.lora_rank} with trainer.v1.trainer_mode='separate_async': verl sends the base "
            f"weights to the servers that generate, and never the adapters; set {_MODEL}.lora.merge=true, or take "
            "trainer_mode=colocate_async"
        )
    if rollout.layered_summon and "dummy" in rollout.load_format:
        raise SettingsError(
            f"actor_rollout_ref.rollout.layered_summon=True with actor_rollout_ref.rollout.load_format="
            f"{rollout.load_format!r}: verl then sends adapters alone; set load_format to safetensors, so that the "
            "servers load the base weights themselves"
        )


def check_adapted_modules(config: DictConfig) -> None:
    """Refuse adapters of modules that the rollout server would not apply, by the names of the model's own modules.

    vLLM applies adapters to the language model alone unless told otherwise, and says nothing of the others
    (``LoRAModelManager._create_lora_modules``): actor and rollout drift apart step by step (the quickstart's policy at
    learning rate 3e-3: token probabilities by up to 0.3 after two steps, 4e-6 where they are applied).

    Raises:
        SettingsError: peft finds no such modules, or one of the vision encoder would get an adapter.
    """
    if not served_as_adapter(config):
        return
    model, vllm = config.actor_rollout_ref.model, config.actor_rollout_ref.rollout.engine_kwargs.get("vllm") or {}
    folder = Path(model.path).expanduser()
    # a folder that only the nodes of a cluster have is looked at by nobody
    if not folder.is_dir() or vllm.get("enable_tower_connector_lora", False):
        return
    targets = f"{_MODEL}.target_modules={model.target_modules}, {_MODEL}.exclude_modules={model.exclude_modules}"
    try:
        adapted = _adapted_modules(model, folder)
    except ValueError as error:
        raise SettingsError(f"{targets}: {error}") from error
    if outside := [name for name in adapted if not {"language_model", "lm_head"} & set(name.split("."))]:
        raise SettingsError(
            f"{targets}: {len(outside)} modules outside of the language model, such as {outside[0]}, would get "
            f"adapters, which vLLM leaves out. Set {_MODEL}.exclude_modules='.*visual.*' (preset=lora does), or "
            f"+{_VLLM}.enable_tower_connector_lora=true (experimental in vLLM), or {_MODEL}.lora.merge=true, for "
            "whole weights on the way"
        )


def _adapted_modules(model: DictConfig, folder: Path) -> list[str]:
    """Names of the modules that get an adapter, from the model without its weights, by the library that adds them."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForImageTextToText

    settings = LoraConfig(
        r=model.lora_rank,
        target_modules=OmegaConf.to_container(model)["target_modules"],
        exclude_modules=OmegaConf.to_container(model)["exclude_modules"],
    )
    with torch.device("meta"):
        plain = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder))
        adapted = get_peft_model(plain, settings)
    names = (name for name, _ in adapted.named_modules() if name.endswith(".lora_A"))
    return [name.removeprefix("base_model.model.").removesuffix(".lora_A") for name in names]
