"""What was trained on what, and how, in words: from a run's configuration and its record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recipe.sophiavl.data_files import listed
from recipe.sophiavl.report.dumps import decode, number
from recipe.sophiavl.report.problems import Problems
from recipe.sophiavl.report.run_data import Setting
from recipe.sophiavl.report.texts import readable
from recipe.sophiavl.run_folder import CONFIG, RECORD

_RIVALS = {"gdpo": "GDPO", "process_aware": "process-aware advantages"}
_SEEDS = ("data.seed", "actor_rollout_ref.rollout.seed")


class RunConfig:
    """The configuration of a run as far as it is there; a key that is not is None.

    Attributes:
        record: ``run.json``; empty where it is not there.
    """

    def __init__(self, run_dir: Path, problems: Problems) -> None:
        self.tree = _config(run_dir / CONFIG, problems)
        self.record = _record(run_dir / RECORD, problems)

    def get(self, key: str) -> Any:
        """A value by dotted key; None where it is not set or refers to what is not there."""
        try:
            value = OmegaConf.select(self.tree, key)
        except OmegaConfBaseException:
            return None
        return readable(value) if isinstance(value, str) else value

    def listed(self, key: str) -> list[str]:
        """A value that is a text or several."""
        return [readable(text) for text in listed(self.get(key))]

    def number(self, key: str) -> float | None:
        """A value that is a finite number; None for anything else."""
        value = self.get(key)
        return value if np.isfinite(number(value)) else None

    def data_files(self, key: str) -> list[Path]:
        """The files of ``data.train_files`` or ``data.val_files``."""
        return [Path(file) for file in self.listed(key)]

    @property
    def thinking(self) -> bool:
        """Whether a thinking reward was part of the reward; where nothing tells, yes."""
        return self.get("thinking_reward.enable") is not False

    @property
    def starts(self) -> list[Mapping[str, Any]]:
        """Each start of the run, as recorded."""
        starts = self.record.get("starts")
        return [start for start in starts if isinstance(start, Mapping)] if isinstance(starts, list) else []


def _config(file: Path, problems: Problems) -> DictConfig:
    try:
        found = OmegaConf.load(file)
    except FileNotFoundError:
        problems.add("The settings are unknown: no configuration was left", file.name)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        problems.add("The settings are unknown: the configuration can't be read", f"{file.name}: {error}")
    else:
        if isinstance(found, DictConfig):
            return found
        problems.add("The settings are unknown: the configuration holds no settings", file.name)
    return OmegaConf.create()


def _record(file: Path, problems: Problems) -> dict[str, Any]:
    try:
        found = decode(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        problems.add("The record of the run can't be read", f"{file.name}: {error}")
        return {}
    return found if isinstance(found, dict) else {}


def settings(config: RunConfig) -> list[Setting]:
    """Model, data and algorithm, as far as the configuration tells them."""
    told = [
        ("Policy", policy(config), "actor_rollout_ref.model.path"),
        ("Trained on", _files(config, "data.train_files"), "data.train_files"),
        ("Validated on", _files(config, "data.val_files"), "data.val_files"),
        ("Method", method(config), "thinking_reward"),
        ("Thinking reward model", _trm(config), "thinking_reward.model"),
        ("Batch", _batch(config), "data.train_batch_size"),
        ("Lengths", _lengths(config), "data.max_response_length"),
        ("Optimiser", _optimiser(config), "actor_rollout_ref.actor.optim"),
        ("KL to the reference", _kl(config), "actor_rollout_ref.actor.kl_loss_coef"),
        ("Seeds", _seeds(config), "data.seed"),
        *_newest_start(config),
    ]
    return [Setting(label, value, key) for label, value, key in told if value]


def policy(config: RunConfig) -> str | None:
    """``Qwen2.5-VL-7B-Instruct``, with LoRA's rank where it is trained that way."""
    path = config.get("actor_rollout_ref.model.path")
    if not path:
        return None
    rank = config.number("actor_rollout_ref.model.lora_rank") or config.number("actor_rollout_ref.model.lora.rank")
    lora = f", LoRA of rank {rank:.0f}" if config.number("actor_rollout_ref.model.lora_rank") and rank else ""
    return f"{_last(path)}{lora}"


def method(config: RunConfig) -> str | None:
    """The algorithm in words."""
    estimator = config.get("algorithm.adv_estimator")
    if config.get("thinking_reward.enable") is None:
        return str(estimator).upper() if estimator else None
    base = str(estimator or "grpo").upper()
    if not config.thinking:
        return f"{base} on the outcome reward alone"
    alpha, schedule = config.get("thinking_reward.alpha"), config.get("thinking_reward.schedule")
    horizon = config.get("thinking_reward.total_steps") or config.get("trainer.total_training_steps")
    fades = "not annealed" if schedule == "constant" else f"{schedule} annealing over {horizon} steps"
    if name := _RIVALS.get(str(config.get("thinking_reward.combine"))):
        return f"{name} of outcome and thinking reward, alpha {alpha}, {fades}"
    if not config.get("thinking_reward.trust"):
        return f"{base} with a thinking reward, without trust, alpha {alpha}, {fades}"
    gamma = config.get("thinking_reward.trust_estimator") or "paper"
    return f"Trust-{base}{f' (gamma: {gamma})' if gamma != 'paper' else ''}, alpha {alpha}, {fades}"


def data_names(config: RunConfig, key: str) -> str | None:
    """The data's files, shortly: ``easy_vqa/train.parquet`` or ``easy_vqa/train-000.parquet and 3 more``."""
    files = config.data_files(key)
    if not files:
        return None
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return "/".join(files[0].parts[-2:]) + more


def _last(path: object) -> str:
    return str(path).rstrip("/").rsplit("/", 1)[-1]


def _files(config: RunConfig, key: str) -> str | None:
    names = data_names(config, key)
    definition = config.record.get("experiment")
    recorded = definition.get(key) if isinstance(definition, Mapping) else None
    if names and isinstance(recorded, str):
        names += f" ({recorded})"  # rows and digest
    limit = config.number(f"{key.removesuffix('_files')}_max_samples")
    return f"{names}, at most {limit:.0f} rows" if names and limit and limit > 0 else names


def _trm(config: RunConfig) -> str | None:
    if not config.thinking or config.get("thinking_reward.mode") is None:
        return None
    mode = config.get("thinking_reward.mode")
    if mode == "external":
        urls = ", ".join(config.listed("thinking_reward.urls"))
        return f"{config.get('thinking_reward.model')}, served at {urls}"
    return f"{_last(config.get('reward.reward_model.model_path'))}, {mode}"


def _batch(config: RunConfig) -> str | None:
    prompts, responses = config.number("data.train_batch_size"), config.number("actor_rollout_ref.rollout.n")
    return f"{prompts:.0f} questions x {responses:.0f} responses a step" if prompts and responses else None


def _lengths(config: RunConfig) -> str | None:
    prompt, response = config.number("data.max_prompt_length"), config.number("data.max_response_length")
    return f"prompts up to {prompt:.0f} tokens, responses up to {response:.0f}" if prompt and response else None


def _optimiser(config: RunConfig) -> str | None:
    optim = "actor_rollout_ref.actor.optim"
    if config.get(f"{optim}.lr") is None:
        return None
    clip = config.get(f"{optim}.clip_grad")
    words = [f"{config.get(f'{optim}.optimizer') or 'optimiser'}, learning rate {config.get(f'{optim}.lr')}"]
    words.append(str(config.get(f"{optim}.lr_scheduler_type") or ""))
    words.append(f"gradient norm at most {clip}" if clip is not None else "")
    return ", ".join(word for word in words if word)


def _kl(config: RunConfig) -> str | None:
    actor = "actor_rollout_ref.actor"
    if config.get(f"{actor}.use_kl_loss") is None:
        return None
    if not config.get(f"{actor}.use_kl_loss"):
        return "none in the loss"
    return f"{config.get(f'{actor}.kl_loss_coef')} in the loss ({config.get(f'{actor}.kl_loss_type')})"


def _seeds(config: RunConfig) -> str | None:
    found = [f"{key}={config.get(key)}" for key in _SEEDS if config.get(key) is not None]
    return ", ".join(found) or None


def _newest_start(config: RunConfig) -> list[tuple[str, str | None, str]]:
    if not config.starts:
        return []
    start = config.starts[-1]
    packages = ("verl", "torch", "vllm", "transformers")
    versions = ", ".join(f"{name} {start[name]}" for name in packages if start.get(name))
    which = f", start {len(config.starts)}" if len(config.starts) > 1 else ""
    return [
        ("Started", f"{start.get('at')}{which}", "run.json"),
        ("Code", f"commit {start.get('commit')}; {versions}", "run.json"),
        ("Command", str(start.get("command") or ""), "run.json"),
    ]
