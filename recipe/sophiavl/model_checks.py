"""Checks of the models before Ray starts: each path is a whole model folder, or the name of one that can be had."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import httpx
from huggingface_hub import HfApi, constants, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError
from omegaconf import DictConfig
from safetensors import SafetensorError, safe_open

from recipe.sophiavl.cluster import joins_cluster
from recipe.sophiavl.lora_checks import check_adapted_modules
from recipe.sophiavl.validation import SettingsError

HUB_TIMEOUT_S = 10.0
# A model folder has one file of each.
_PARTS = {
    "config.json": ("config.json",),
    "weights (*.safetensors, *.bin)": ("*.safetensors", "*.bin"),
    "a tokenizer (tokenizer.json, tokenizer.model, vocab.json)": ("tokenizer.json", "tokenizer.model", "vocab.json"),
}
_TOKENIZER = list(_PARTS)[-1]


def check_models(config: DictConfig) -> None:
    """Check the policy, its tokenizer and, where verl hosts one, the thinking reward model.

    Raises:
        SettingsError: a path is neither a model folder, nor a model in the hub's cache, nor one that the hub has.
    """
    policy, hosted = config.actor_rollout_ref.model, config.reward.reward_model
    parts = set(_PARTS)
    # The nodes of a cluster may reach what the driver does not.
    ask_hub = not joins_cluster(config)
    if policy.tokenizer_path:
        parts.remove(_TOKENIZER)
        check_model("actor_rollout_ref.model.tokenizer_path", policy.tokenizer_path, {_TOKENIZER}, ask_hub=ask_hub)
    check_model("actor_rollout_ref.model.path", policy.path, parts, ask_hub=ask_hub)
    check_adapted_modules(config)
    if hosted.enable:
        check_model("reward.reward_model.model_path", hosted.model_path, ask_hub=ask_hub)


def check_model(key: str, path: str, parts: Iterable[str] = _PARTS, *, ask_hub: bool = True) -> None:
    """Check that `path` is a whole model folder, or the name of a model that can be had.

    Args:
        key: the setting, for messages.
        parts: what it must hold, of `_PARTS`.
        ask_hub: whether a name must be of a model in the hub's cache or on the hub.

    Raises:
        SettingsError: see `check_models`; weights that are not whole, too.
    """
    folder = Path(path).expanduser()
    if "://" in path:
        return  # verl copies it from there
    if folder.is_dir():
        if missing := _missing(folder, parts):
            sharded = any(folder.rglob("model_world_size_*_rank_*.pt"))
            hint = ". It is a checkpoint of verl: merge it first (python -m recipe.sophiavl.merge)" if sharded else ""
            raise SettingsError(f"{key}={path}: this folder has no {', no '.join(missing)}: it is no model{hint}")
        if damage := _damage(folder):
            raise SettingsError(f"{key}={path}: {damage}: the model is not whole. Copy or save it again")
    elif folder.is_absolute() or path.startswith((".", "~")) or path.count("/") > 1 or folder.exists():
        raise SettingsError(f"{key}={path}: no such folder. Give a model folder, or a model's name on the hub")
    elif ask_hub:
        _check_hub(key, path, parts)


def _missing(folder: Path, parts: Iterable[str]) -> list[str]:
    return [part for part in _PARTS if part in parts and not any(any(folder.glob(name)) for name in _PARTS[part])]


def _damage(folder: Path) -> str | None:
    """What a half-written model shows: a shard that its index names and that is not there, or a file cut short."""
    for index in sorted(folder.glob("*.index.json")):
        try:
            shards = set(json.loads(index.read_bytes())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return f"{index.name} is broken ({error})"
        if lacking := sorted(shard for shard in shards if not (folder / shard).is_file()):
            return f"{lacking[0]}, which {index.name} names, is not there"
    for file in sorted(folder.glob("*.safetensors")):
        try:
            safe_open(file, "np")
        except SafetensorError as error:
            return f"{file.name} is damaged ({error})"
    return None


def _check_hub(key: str, name: str, parts: Iterable[str]) -> None:
    if os.environ.get("VERL_USE_MODELSCOPE", "").lower() == "true":
        return  # another hub
    where = f"{key}={name}: it is no folder here"
    try:
        cached = try_to_load_from_cache(name, "config.json")
        if isinstance(cached, str) and not _missing(Path(cached).parent, parts):
            return
        where += f", not (whole) in the hub's cache ({constants.HF_HUB_CACHE})"
        HfApi().model_info(name, timeout=HUB_TIMEOUT_S)
    except HFValidationError as error:
        raise SettingsError(f"{where}, and no name of a model on the hub: {error}") from error
    except OfflineModeIsEnabled as error:
        raise SettingsError(f"{where}, and HF_HUB_OFFLINE is set: download it first, or give its folder") from error
    except RepositoryNotFoundError as error:
        raise SettingsError(
            f"{where}, and {constants.ENDPOINT} has no such model that it would give you: mend the name, or log in "
            "(hf auth login) where it is private or gated"
        ) from error
    except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
        raise SettingsError(f"{where}, and {constants.ENDPOINT} can't be asked ({error})") from error
