"""Trust-GRPO as a mixin over verl's V1 trainers: weigh whole groups before the advantage, log, dump, guard.

None of verl's training loop is repeated here: each method wraps one step of ``verl/trainer/ppo/v1/trainer_base.py``.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict import NonTensorStack, TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import PPOTrainer

from recipe.sophiavl import progress
from recipe.sophiavl.cluster import nodes_of_reward_workers, preflight_on
from recipe.sophiavl.group_samples import GroupSample, choose, group_sample
from recipe.sophiavl.guards import Guards
from recipe.sophiavl.metrics import asked_scores, missing_counts, reward_metrics
from recipe.sophiavl.reward_manager import VALIDATION_FIELD, ThinkingRewardManager, prompt_images
from recipe.sophiavl.rl_dataset import SophiaVLDataset
from recipe.sophiavl.settings import EngineSettings, ThinkingRewardSettings
from recipe.sophiavl.trm.questions import question_text
from recipe.sophiavl.trust_grpo import GroupRewards
from recipe.sophiavl.validation import SettingsError
from recipe.sophiavl.validation_modes import BOOKKEEPING, sampling, validation_metrics
from recipe.sophiavl.verl_support import internals
from recipe.sophiavl.verl_support.lost_workers import ended_by_a_lost_worker

logger = logging.getLogger(__name__)

# Fields of a row that ThinkingRewardManager.run_single reads beside the tensors and raw_prompt.
_MANAGER_FIELDS = ("extra_info", "reward_model", VALIDATION_FIELD)


class TrustGRPOMixin:
    """What SophiaVL-R1 adds to a ``PPOTrainer``. Mix in before the trainer class (see :func:`trust_grpo_trainer`)."""

    def __init__(self, config: Any) -> None:
        self.settings = ThinkingRewardSettings.from_config(config.thinking_reward)
        self.engine_settings = EngineSettings.from_config(config.sophiavl)
        super().__init__(config)
        if self.trainer_mode != "separate_async":  # there verl also takes it for the wait that counts as idle
            self.replay_buffer.poll_interval = self.engine_settings.replay_poll_interval_s
        self._dump_fields: dict[str, dict[str, Any]] = {}
        self._step_seconds: list[float] = []
        rollout = config.actor_rollout_ref.rollout
        self._modes = {mode: sampling(mode, rollout) for mode in self.engine_settings.validation_modes}
        self._mode = self._first_mode = next(iter(self._modes))
        self._saved_step: int | None = None
        self._stop: RuntimeError | None = None

    # ------------------------------------------------------------------ data

    def _init_dataloader(self) -> None:
        super()._init_dataloader()
        if not isinstance(self.val_dataset, SophiaVLDataset):
            raise SettingsError(
                "data.custom_cls: must be recipe.sophiavl.rl_dataset.SophiaVLDataset or a subclass of it"
            )
        self.val_dataset.validation = True  # it writes this into every row that it gives
        self.val_dataloader = _RowsOfQuestions(self.val_dataloader)

    # ------------------------------------------------------------------ start

    def on_init_end(self) -> None:
        super().on_init_end()
        self._guards = Guards(self.settings, self.engine_settings, self.total_training_steps)
        if self.settings.needs_verl_hosting and self.settings.preflight and self.get_reward_handles() is not None:
            address = self.reward_loop_manager.reward_router_address
            settings = self.settings.client_settings(address, self.config.reward.reward_model.model_path)
            preflight_on(nodes_of_reward_workers(self.config), settings, {})

    def fit(self, agent_loop_manager: Any) -> None:
        workers = internals.generating_workers(self, agent_loop_manager)
        with ended_by_a_lost_worker(self.replay_buffer, workers):
            super().fit(agent_loop_manager)
        self._raise_what_stops()  # where the last step was what filled a window

    # ------------------------------------------------------------------ one step

    def on_step_begin(self) -> None:
        super().on_step_begin()
        # Here and not in on_step_end, so that the last step's metrics and dump are written.
        self._raise_what_stops()
        self._dump_fields = {}

    def _raise_what_stops(self) -> None:
        if self._stop is not None:
            self._shutdown_dump_executor()
            folder = self.config.trainer.default_local_dir
            raise type(self._stop)(
                f"{self._stop} The checkpoint of step {self._saved_step} is in {folder}: once the cause is mended, "
                "start again with trainer.resume_mode=auto"
            )

    def _compute_reward_colocate(self, batch: KVBatchMeta, metrics: dict | None = None) -> KVBatchMeta:
        """verl passes prompts, responses and raw prompts only, and stores each extra key as a field of its own; the
        manager needs the row's fields too, and every other path keeps the extras in ``extra_fields``."""
        fields = [*_MANAGER_FIELDS, "extra_fields"]
        rows = internals.read_fields(batch, batch.keys, fields)
        kept = list(rows.pop("extra_fields"))
        with _extra_reward_inputs(self.reward_loop_manager, rows) as outputs:
            batch = super()._compute_reward_colocate(batch, metrics)
        names = outputs[0].meta_info["reward_extra_keys"]
        extras = [
            {**fields, "reward_extra_info": {name: outputs[0].non_tensor_batch[name][i] for name in names}}
            for i, fields in enumerate(kept)
        ]
        written = TensorDict({"extra_fields": NonTensorStack(*extras)}, batch_size=len(batch))
        internals.write_fields(batch, batch.keys, written)
        return batch

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        batch = super()._compute_old_log_prob(batch, metrics)
        self._guards.compare_rollout(metrics, step=self.global_steps)
        return batch

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        self._weigh_groups(batch, metrics)
        return super()._compute_advantage(batch, metrics)

    def _weigh_groups(self, batch: KVBatchMeta, metrics: dict) -> None:
        """Write Eq. 5, or advantages, into ``rm_scores`` and keep the parts for the metrics and the dump."""
        sessions = final_outputs(batch)
        finals = list(sessions)
        fields = ["extra_fields", "data_source", "extra_info"]
        data = internals.read_fields(batch, finals, fields)
        sources = list(zip(data["data_source"], data["extra_info"], strict=True))
        components = [fields["reward_extra_info"] for fields in data["extra_fields"]]
        groups = [key.rsplit("_", 2)[0] for key in finals]
        schedule = {"step": self.global_steps, "total_steps": self.total_training_steps, "settings": self.settings}
        rewards = ThinkingRewardManager.weigh_groups(components, groups, **schedule)
        self._write_rewards(batch, sessions, rewards)
        metrics.update(reward_metrics(components, groups, rewards, **schedule))
        self._guards.count_scores(**missing_counts(components, groups, rewards))
        self._guards.watch_scores(asked_scores(components))
        for i, key in enumerate(finals):
            row = {"group": groups[i], **_dataset_row(*sources[i])}
            self._dump_fields[key] = row | _dump_row(components[i], rewards, i)

    def _write_rewards(self, batch: KVBatchMeta, sessions: Mapping[str, list[str]], rewards: GroupRewards) -> None:
        """All outputs of a session get the session's reward on their last token, as verl does for the outcome."""
        value = {key: float(rewards.reward[i]) for i, keys in enumerate(sessions.values()) for key in keys}
        keys = list(value)
        data = internals.read_fields(batch, keys, ["response_mask"])
        rows = []
        for key, mask in zip(keys, data["response_mask"].unbind(), strict=True):
            row = torch.zeros(mask.shape[0], dtype=torch.float32)
            row[-1] = value[key]
            rows.append(row)
        scores = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
        internals.write_fields(batch, keys, TensorDict({"rm_scores": scores}, batch_size=len(keys)))

    # ------------------------------------------------------------------ after a step

    def _save_checkpoint(self) -> None:
        super()._save_checkpoint()
        self._saved_step = self.global_steps

    def on_step_end(self) -> None:
        # Before verl resumes the generation, which the asynchronous modes do here.
        self._stop = self._guards.end_step()
        if self._stop is not None and self._saved_step != self.global_steps:
            self._save_checkpoint()
        super().on_step_end()

    def _compute_metrics(self, batch: KVBatchMeta, metrics: dict, timing_raw: dict, *args: Any, **named: Any) -> None:
        """verl's last word on a step before its metrics are logged; its console logger says all of them or nothing."""
        super()._compute_metrics(batch, metrics, timing_raw, *args, **named)
        self._step_seconds.append(timing_raw["step"])
        line = progress.step_line(self.global_steps, self.total_training_steps, metrics, self._step_seconds)
        print(line, flush=True)
        count, freq = self.engine_settings.log_groups, self.engine_settings.log_groups_freq
        if count and (self.global_steps == 1 or self.global_steps % freq == 0) and self.logger.takes_groups:
            names = choose([row["group"] for row in self._dump_fields.values()], count, self.global_steps)
            self.logger.log_groups([self._group_sample(batch, name) for name in names], self.global_steps)

    def _group_sample(self, batch: KVBatchMeta, group: str) -> GroupSample:
        """A group of this step, from what verl still holds of it."""
        rows = {key: row for key, row in self._dump_fields.items() if row["group"] == group}
        data = internals.read_fields(batch, list(rows), ["responses", "raw_prompt", "extra_info", "reward_model"])
        texts = [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in data["responses"].unbind()]
        prompt, info, reward = (next(iter(data[name])) for name in ("raw_prompt", "extra_info", "reward_model"))
        pairs = list(zip(texts, rows.values(), strict=True))
        return group_sample(question_text(info), str(reward["ground_truth"]), prompt_images(prompt), pairs)

    def _dump_generations(
        self, inputs: list, outputs: list, gts: list, scores: list, reward_extra_infos_dict: dict, dump_path: str
    ) -> None:
        """verl's training dump holds the reward alone: add its parts, in the order of the dumped keys. Validation's
        does not tell the rows of the data: add them, and how it sampled."""
        keys = reward_extra_infos_dict["uid"]
        if dump_path == self.config.trainer.get("rollout_data_dir", None):
            rows = [self._dump_fields.get(key, {}) for key in keys]
        else:
            questions = [key.rsplit("_", 2)[0] for key in keys]
            rows = [{"group": uid, **self.val_dataloader.rows[uid], "validation_mode": self._mode} for uid in questions]
            if self._mode != self._first_mode:
                dump_path = str(Path(dump_path, self._mode))
        names = list(dict.fromkeys(name for row in rows for name in row))
        reward_extra_infos_dict |= {name: [row.get(name) for row in rows] for name in names}
        super()._dump_generations(inputs, outputs, gts, scores, reward_extra_infos_dict, dump_path)

    # ------------------------------------------------------------------ validation

    def _validate(self) -> dict[str, float]:
        """Once for each of ``sophiavl.validation_modes``."""
        metrics = {}
        for mode, values in self._modes.items():
            self._mode = mode
            if list(self._modes) != ["as_configured"]:
                internals.set_validation_sampling(self.agent_loop_manager, self.config, values)
            self.val_dataloader.rows.clear()
            metrics |= super()._validate()
        print(f"validation at step {self.global_steps}: {', '.join(progress.validations(metrics))}", flush=True)
        return metrics

    def _val_metrics_update(
        self, data_sources: list, sample_uids: list, reward_extra_infos_dict: dict, *args: Any, **named: Any
    ) -> dict[str, float]:
        """The first mode keeps verl's names; those of another one say which it is."""
        measures = {name: values for name, values in reward_extra_infos_dict.items() if name not in BOOKKEEPING}
        given = super()._val_metrics_update(data_sources, sample_uids, measures, *args, **named)
        if self._mode != self._first_mode:
            sections = ((*name.split("/", 1), value) for name, value in given.items())
            given = {f"{section}-{self._mode}/{rest}": value for section, rest, value in sections}
        return given | validation_metrics(self._mode, sample_uids, reward_extra_infos_dict)

    def _maybe_log_val_generations(self, *args: Any, **named: Any) -> None:
        """A logger's table of samples has one row a step."""
        if self._mode == self._first_mode:
            super()._maybe_log_val_generations(*args, **named)


class _RowsOfQuestions:
    """A data loader that remembers which row of the data is behind each question id that verl gives it.

    Attributes:
        rows: ``data_source``, ``split`` and ``index`` by question id, of the batches that verl is done with or at.
    """

    def __init__(self, loader: Iterable[dict[str, Any]]) -> None:
        self._loader = loader
        self.rows: dict[str, dict[str, Any]] = {}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self._loader:
            yield batch
            # By now verl has written the ids into it (_validate, before it submits the batch).
            for uid, source, info in zip(batch["uid"], batch["data_source"], batch["extra_info"], strict=True):
                self.rows[uid] = _dataset_row(source, info)


def final_outputs(batch: KVBatchMeta) -> dict[str, list[str]]:
    """The members of the groups of a batch: the final output of each trajectory, without verl's padding rows.

    Args:
        batch: keys ``{uid}_{session}_{index}`` with tags (``is_padding`` marks rows that only fill the batch).

    Returns:
        The key of each trajectory's last output, mapped to the keys of all its outputs, in the order of the batch.
    """
    outputs: dict[str, list[tuple[int, str]]] = {}
    for key, tag in zip(batch.keys, batch.tags, strict=True):
        if tag.get("is_padding", False):
            continue
        session, index = key.rsplit("_", 1)
        outputs.setdefault(session, []).append((int(index), key))
    return {max(session)[1]: [key for _, key in session] for session in outputs.values()}


def _dataset_row(data_source: Any, extra_info: Mapping[str, Any]) -> dict[str, Any]:
    """Which row of the data the question is: what makes a dump and its parquet file one data set again."""
    return {"data_source": str(data_source), "split": extra_info.get("split"), "index": extra_info.get("index")}


def _dump_row(component: Mapping[str, Any], rewards: GroupRewards, i: int) -> dict[str, Any]:
    def number(value: np.floating) -> float | None:
        return float(value) if np.isfinite(value) else None

    row = {
        **component,
        "gamma": number(rewards.gamma[i]),
        "mu_correct": number(rewards.mu_correct[i]),
        "mu_wrong": number(rewards.mu_wrong[i]),
        "thinking_used": bool(rewards.used[i]),
    }
    return row if rewards.advantages is None else row | rewards.advantages.parts(i)


@contextmanager
def _extra_reward_inputs(manager: Any, rows: TensorDict) -> Iterator[deque]:
    """While active, ``manager.compute_rm_score`` gets the fields of ``rows`` too; yields what it returned."""
    original, outputs = manager.compute_rm_score, deque(maxlen=1)

    def compute_rm_score(data: Any) -> Any:
        for name in rows.keys():  # noqa: SIM118  (iterating a TensorDict yields rows, not keys)
            values = np.empty(len(data), dtype=object)
            values[:] = list(rows[name])
            data.non_tensor_batch[name] = values
        outputs.append(original(data))
        return outputs[0]

    manager.compute_rm_score = compute_rm_score
    try:
        yield outputs
    finally:
        del manager.compute_rm_score


def trust_grpo_trainer(base: type[PPOTrainer]) -> type[PPOTrainer]:
    """Trust-GRPO over one of verl's V1 trainer classes."""
    return type(f"TrustGRPO{base.__name__}", (TrustGRPOMixin, base), {"__doc__": f"Trust-GRPO over {base.__name__}."})
