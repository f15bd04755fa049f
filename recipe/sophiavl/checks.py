"""Checks of the composed configuration and of the data files, before Ray or any model starts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import DictConfig, ListConfig

from recipe.sophiavl.settings import REWARD_MANAGER_NAME, ThinkingRewardSettings
from recipe.sophiavl.validation import SettingsError
from reward_score import PROBLEM_TYPES, score_outcome

_STRING_FIELDS = ("data_source", "reward_model.ground_truth", "extra_info.problem_type", "extra_info.question")


def check_config(config: DictConfig, settings: ThinkingRewardSettings) -> None:
    """Check the recipe's settings against verl's, then run verl's own validation.

    Raises:
        SettingsError: a combination that can't work; the message names the setting and what to change.
    """
    _check_engine(config)
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
    on_cpu = os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu"
    if on_cpu and config.trainer.device != "cpu" and not config.sophiavl.dry_run:
        raise SettingsError(
            f"trainer.device={config.trainer.device!r}: this machine has no GPU. Add platform=cpu to the command, or "
            "sophiavl.dry_run=true to check the configuration only"
        )
    if config.trainer.device == "cpu" and not on_cpu:
        raise SettingsError(
            "trainer.device='cpu': this machine has a GPU. Leave out platform=cpu, or start with VERL_PLATFORM=cpu"
        )


def _check_reward(config: DictConfig, settings: ThinkingRewardSettings) -> None:
    name = config.reward.reward_manager.name
    if name != REWARD_MANAGER_NAME:
        raise SettingsError(f"reward.reward_manager.name={name!r}: the recipe needs {REWARD_MANAGER_NAME!r}")
    hosted = config.reward.reward_model
    if not settings.needs_verl_hosting:
        if hosted.enable:
            raise SettingsError(
                f"reward.reward_model.enable=True with thinking_reward.mode={settings.mode!r} and "
                f"thinking_reward.enable={settings.enable}: verl would host a model that nobody asks; "
                "use thinking_reward.mode=pool or colocated, or false here"
            )
        return
    if not hosted.enable or not hosted.model_path:
        raise SettingsError(
            f"thinking_reward.mode={settings.mode!r}: set reward.reward_model.enable=true and "
            f"reward.reward_model.model_path (now {hosted.model_path!r}) to the TRM that verl should host"
        )
    own_pool = settings.mode == "pool"
    if hosted.enable_resource_pool != own_pool:
        raise SettingsError(
            f"thinking_reward.mode={settings.mode!r}: set "
            f"reward.reward_model.enable_resource_pool={str(own_pool).lower()}"
        )
    if config.reward.custom_reward_function.path is None:
        raise SettingsError(
            "reward.custom_reward_function.path=None: verl would take the hosted TRM for a classifier; "
            "use pkg://reward_score"
        )


def check_data_files(config: DictConfig) -> None:
    """Check that every training and validation file has the columns and the problem types that the rewards need.

    Raises:
        SettingsError: a file is missing or unreadable, a column is missing, or a problem type is unknown; the message
            names the setting, the file, and the row.
    """
    for key in ("train_files", "val_files"):
        files = config.data[key]
        for file in files if isinstance(files, list | ListConfig) else [files]:
            _check_file(f"data.{key}", Path(str(file)).expanduser(), config.data)


def _check_file(key: str, file: Path, data: DictConfig) -> None:
    where = f"{key}={file}"
    if not file.is_file():
        raise SettingsError(f"{where}: no such file. Make it with one of the scripts in data_preprocess/")
    try:
        schema = pq.read_schema(file)
    except pa.ArrowInvalid as error:
        raise SettingsError(f"{where}: not a parquet file ({error})") from error
    missing = [field for field in (data.prompt_key, *_STRING_FIELDS) if not _has_field(schema, field.split("."))]
    if missing:
        raise SettingsError(
            f"{where}: the columns {', '.join(missing)} are missing (it has {', '.join(schema.names)}). "
            "data_preprocess/ writes files with all of them; data.prompt_key names the prompt column"
        )
    fields = ["extra_info.problem_type", "reward_model.ground_truth"]
    if _has_field(schema, ["extra_info", "options"]):
        fields.append("extra_info.options")
    for row, (problem_type, truth, *options) in enumerate(_rows(file, *fields)):
        try:
            _check_row(problem_type, truth, *options)
        except ValueError as error:
            raise SettingsError(f"{where}: row {row}: {error}") from error


def _check_row(problem_type: str | None, truth: str | None, options: Sequence[str] | None = None) -> None:
    """Raises ValueError if the outcome reward could not score any response to this row."""
    if problem_type is None or problem_type.strip().lower() not in _KNOWN_TYPES:
        raise ValueError(f"extra_info.problem_type={problem_type!r}; known are {', '.join(PROBLEM_TYPES)}")
    if not isinstance(truth, str) or not truth.strip():
        raise ValueError(f"reward_model.ground_truth={truth!r}; it must be a text")
    if problem_type.strip().lower() == "multiple choice":  # the truth must be one of the options
        score_outcome(problem_type, "<think>.</think><answer>.</answer>", truth, options)


_KNOWN_TYPES = {name.lower() for name in PROBLEM_TYPES}


def _rows(file: Path, *fields: str) -> Iterator[tuple[Any, ...]]:
    """The values of nested fields (``struct.name``), row by row, without reading the images beside them."""
    for batch in pq.ParquetFile(file).iter_batches(columns=list(fields)):
        columns = [batch.column(struct).field(name) for struct, name in (field.split(".") for field in fields)]
        yield from zip(*(column.to_pylist() for column in columns), strict=True)


def _has_field(schema: pa.Schema | pa.StructType, path: list[str]) -> bool:
    head, *rest = path
    index = schema.get_field_index(head)
    if index < 0:
        return False
    kind = schema.field(index).type
    return not rest or (pa.types.is_struct(kind) and _has_field(kind, rest))
