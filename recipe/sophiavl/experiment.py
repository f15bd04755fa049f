"""What defines an experiment: of a run's whole configuration all but a closed list, with data and models by content."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from rich import box
from rich.console import Console
from rich.table import Table

from recipe.sophiavl import fingerprint
from recipe.sophiavl.data_files import listed
from recipe.sophiavl.trm.prompt import DEFAULT_PROMPT

Definition = dict[str, Any]
Difference = tuple[str, Any, Any]  # a setting, its value there, its value here
NOT_SET = "(not set)"

_NOT_COUNTED = yaml.safe_load((Path(__file__).parent / "not_compared.yaml").read_text(encoding="utf-8"))
_HORIZON = "thinking_reward.total_steps"
_DATA = ("data.train_files", "data.val_files")
_MODELS = (
    "actor_rollout_ref.model.path",
    "actor_rollout_ref.model.tokenizer_path",
    "actor_rollout_ref.model.hf_config_path",
    "actor_rollout_ref.model.lora_adapter_path",
    "reward.reward_model.model_path",
)
_PROMPT = "thinking_reward.prompt_path"


def definition(config: DictConfig) -> Definition:
    """What defines the experiment, by dotted key, as JSON values.

    A setting that refers to another one counts as that reference, so that a change is told once, where it was made.

    Args:
        config: as composed, with patterns of files expanded.

    Raises:
        OSError, pyarrow.ArrowException: a file of the configuration can't be read.
    """
    found = {key: value for key, value in _leaves(OmegaConf.to_container(config)) if counts(key)}
    for key in _DATA:
        found[key] = fingerprint.data_files(listed(OmegaConf.select(config, key)))
    for key in _MODELS:
        if path := OmegaConf.select(config, key):
            found[key] = fingerprint.model(path)
    prompt = Path(OmegaConf.select(config, _PROMPT) or DEFAULT_PROMPT).expanduser()
    if prompt.is_file():  # a run that asks no TRM may name anything
        found[_PROMPT] = fingerprint.text_file(prompt)
    return json.loads(json.dumps(found))


def counts(key: str) -> bool:
    """Whether a setting is part of what defines an experiment."""
    if any(key == name or key.startswith(f"{name}.") for name in _NOT_COUNTED["settings"]):
        return False
    return set(_NOT_COUNTED["names"]).isdisjoint(key.split("."))


def differences(there: Mapping[str, Any], here: Mapping[str, Any], steps_there: int | None) -> list[Difference]:
    """The settings that differ, in the order of their names; of those that one side lacks the value is `NOT_SET`.

    Args:
        steps_there: the number of training steps that the run there was to make: a horizon of the annealing that was
            left open there, and is this number here, is the same one.
    """
    if there.get(_HORIZON) is None and here.get(_HORIZON) == steps_there:
        here = {**here, _HORIZON: None}
    keys = sorted(key for key in there.keys() | here.keys() if counts(key))
    pairs = ((key, there.get(key, NOT_SET), here.get(key, NOT_SET)) for key in keys)
    return [(key, before, now) for key, before, now in pairs if before != now]


def table(found: list[Difference]) -> str:
    """The differences as a table for standard error: with lines and colours on a terminal, else aligned text."""
    console = Console(stderr=True, highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 10_000  # no line is broken where nobody reads it on a screen
    shown = Table("setting", "there", "here", box=box.ROUNDED if console.is_terminal else None, pad_edge=False)
    for key, *values in found:
        shown.add_row(key, *(value if isinstance(value, str) else json.dumps(value) for value in values))
    with console.capture() as capture:
        console.print(shown)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def schedule_note(config: DictConfig, steps_there: int | None) -> str | None:
    """A sentence about what another number of training steps changes beside it; None where it is the same."""
    steps = config.trainer.total_training_steps
    if steps == steps_there:
        return None
    settings, optim = config.thinking_reward, config.actor_rollout_ref.actor.optim
    moved = []
    if settings.enable and settings.total_steps is None and settings.schedule != "constant":
        moved.append(
            f"the thinking term fades with T={steps} instead of T={steps_there} ({_HORIZON}={steps_there} keeps it)"
        )
    if optim.lr_scheduler_type != "constant" or optim.lr_warmup_steps_ratio:
        moved.append(f"the learning rate follows its {optim.lr_scheduler_type} schedule over {steps} steps")
    changes = f": from here on {', and '.join(moved)}" if moved else ""
    return f"The run goes to step {steps} instead of {steps_there}{changes}."


def _leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
