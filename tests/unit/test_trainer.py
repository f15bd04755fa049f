"""What the mixin does around verl's steps, over a trainer that only remembers what happened to it."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from recipe.sophiavl.guards import Guards, ThinkingRewardLostError
from recipe.sophiavl.rl_dataset import SophiaVLDataset
from recipe.sophiavl.trainer import TrustGRPOMixin
from recipe.sophiavl.verl_support.internals import VerlChangedError

ROLLOUT = {
    **{"temperature": 0.9, "top_p": 0.8, "top_k": 7},
    "val_kwargs": {"temperature": 0.3, "top_p": 0.7, "top_k": 5, "n": 2, "do_sample": True},
}
MISSING = {"asked": 4, "missing": 4, "groups": 1, "dropped": 1}


class AgentLoopWorker:
    """A handle on verl's worker, which has a configuration of its own (a copy) and runs what Ray sends it."""

    def __init__(self, config: Any) -> None:
        self.config = copy.deepcopy(config)
        OmegaConf.set_struct(self.config, True)
        self.__ray_call__ = SimpleNamespace(remote=lambda function, *arguments: function(self, *arguments))


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.get", lambda results: results)


class Base:
    """The calls of verl's ``PPOTrainer`` that the tests below need."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.trainer_mode = config.trainer.v1.trainer_mode
        self.replay_buffer = SimpleNamespace(poll_interval=2.0)
        self.happened: list[str] = []
        self.global_steps = 0
        self.total_training_steps = 4
        self.dumps: dict[str, list[dict[str, Any]]] = {}
        self.logger = SimpleNamespace(takes_groups=False)
        self.val_dataset = object.__new__(SophiaVLDataset)
        self.agent_loop_manager = SimpleNamespace(agent_loop_workers=[AgentLoopWorker(config)])

    def on_step_begin(self) -> None:
        self.global_steps += 1

    def on_step_end(self) -> None:
        self.happened.append("generation resumes")

    def _save_checkpoint(self) -> None:
        self.happened.append(f"checkpoint of {self.global_steps}")

    def _shutdown_dump_executor(self) -> None:
        self.happened.append("dumps written")

    def _init_dataloader(self) -> None:
        info = {"split": "val", "index": 7, "problem_type": "OCR"}
        self.val_dataloader = [{"data_source": ["s", "s"], "extra_info": [info, info | {"index": 8}]}]

    def _validate(self) -> dict[str, float]:
        """Gives every response its temperature as its outcome."""
        sampling = self.agent_loop_manager.agent_loop_workers[0].config.actor_rollout_ref.rollout.val_kwargs
        keys, expected = [], self.config.actor_rollout_ref.rollout.val_kwargs.n
        for batch in self.val_dataloader:
            batch["uid"] = np.array([f"{len(self.happened)}_a", f"{len(self.happened)}_b"], dtype=object)
            keys += [f"{uid}_{i}_0" for uid in batch["uid"] for i in range(sampling.n)]
        assert len(keys) == 2 * expected
        infos = {"outcome_reward": [float(sampling.temperature)] * len(keys), "problem_type": ["OCR"] * len(keys)}
        infos |= {"thinking_latency_s": [0.01 * i for i in range(len(keys))]}
        self.happened.append(f"validation with {dict(sampling)}")
        self._maybe_log_val_generations(inputs=[], outputs=[], scores=[])
        blank = [""] * len(keys)
        self._dump_generations(
            blank, blank, blank, blank, infos | {"uid": keys}, self.config.trainer.validation_data_dir
        )
        return self._val_metrics_update([], [key.rsplit("_", 2)[0] for key in keys], infos, [], expected_acc_counts={})

    def _val_metrics_update(
        self, sources: list, uids: list, infos: dict, turns: list, expected_acc_counts: Any
    ) -> dict:
        assert set(infos) == {"outcome_reward", "problem_type"}, "how long a score took is no measure of a policy"
        return {"val-core/s/reward/mean@1": float(np.mean(infos["outcome_reward"])), "val-aux/num_turns/min": 2}

    def _maybe_log_val_generations(self, inputs: list, outputs: list, scores: list) -> None:
        self.happened.append("samples logged")

    def _dump_generations(
        self, inputs: list, outputs: list, gts: list, scores: list, reward_extra_infos_dict: dict, dump_path: str
    ) -> None:
        names = list(reward_extra_infos_dict)
        rows = zip(*reward_extra_infos_dict.values(), strict=True)
        self.dumps[dump_path] = [dict(zip(names, row, strict=True)) for row in rows]

    def _compute_metrics(self, batch: Any, metrics: dict, timing_raw: dict, global_steps: int, epoch: int) -> None:
        metrics["timing_s/step"] = timing_raw["step"]


class Trainer(TrustGRPOMixin, Base):
    pass


def trainer(mode: str = "sync", modes: tuple[str, ...] = ("as_configured",)) -> Trainer:
    made = {
        "trainer": {
            "v1": {"trainer_mode": mode},
            "default_local_dir": "checkpoints",
            "rollout_data_dir": "run/rollouts",
            "validation_data_dir": "run/validation",
        },
        "thinking_reward": {"urls": ["http://trm:8000/v1"], "model": "trm", "missing_window_steps": 2},
        "sophiavl": {"replay_poll_interval_s": 0.1, "validation_modes": list(modes)},
        "actor_rollout_ref": {"rollout": ROLLOUT},
    }
    started = Trainer(OmegaConf.create(made))
    started._guards = Guards(started.settings, started.engine_settings, total_steps=10)
    return started


@pytest.mark.parametrize(("mode", "interval"), [("sync", 0.1), ("colocate_async", 0.1), ("separate_async", 2.0)])
def test_the_pace_of_looking_is_set_where_it_is_only_that(mode: str, interval: float) -> None:
    assert trainer(mode).replay_buffer.poll_interval == interval


def test_separate_async_takes_the_pace_for_its_idle_test() -> None:
    """If this fails, verl's idle test has changed, and the exception in the trainer may go."""
    from verl.trainer.ppo.v1.trainer_separate_async import PPOTrainerSeparateAsync

    waited = SimpleNamespace(replay_buffer=SimpleNamespace(poll_interval=2.0), _step_sample_wait_seconds=1.0)
    assert not PPOTrainerSeparateAsync._step_had_idle(waited)
    waited.replay_buffer.poll_interval = 0.1
    assert PPOTrainerSeparateAsync._step_had_idle(waited)


@pytest.mark.parametrize("parts", [1, 4])
def test_a_stop_saves_before_generation_resumes_and_counts_training_steps(parts: int) -> None:
    """separate_async weighs groups several times a step; the window is in training steps all the same."""
    run = trainer()
    for step in (1, 2):
        run.on_step_begin()
        for _ in range(parts):
            run._guards.count_scores(**MISSING)
        run.on_step_end()
        assert (run._stop is not None) == (step == 2)
    assert run.happened == ["generation resumes", "checkpoint of 2", "generation resumes"]
    with pytest.raises(ThinkingRewardLostError, match="The checkpoint of step 2 is in checkpoints"):
        run.on_step_begin()


def test_a_step_that_verl_has_saved_is_not_saved_again() -> None:
    run = trainer()
    for _ in range(2):
        run.on_step_begin()
        run._guards.count_scores(**MISSING)
        run._save_checkpoint()
        run.on_step_end()
    assert run.happened.count("checkpoint of 2") == 1


def validated(*modes: str) -> tuple[Trainer, dict[str, float]]:
    run = trainer(modes=modes)
    run._init_dataloader()
    return run, run._validate()


def test_each_way_of_validation_reaches_the_workers_and_keeps_its_own_metrics_and_dumps() -> None:
    run, metrics = validated("sampled", "greedy", "as_configured")
    assert {name: value for name, value in metrics.items() if name.startswith("val-")} == {
        "val-core/s/reward/mean@1": 0.9,
        "val-aux/num_turns/min": 2,
        "val-core-greedy/s/reward/mean@1": 0.0,
        "val-aux-greedy/num_turns/min": 2,
        "val-core-as_configured/s/reward/mean@1": 0.3,
        "val-aux-as_configured/num_turns/min": 2,
    }
    for mode, outcome in (("sampled", 0.9), ("greedy", 0.0), ("as_configured", 0.3)):
        assert metrics[f"validation/{mode}/outcome_reward/mean"] == pytest.approx(outcome)
        assert metrics[f"validation/{mode}/questions"] == 2
    folders = {
        "run/validation": "sampled",
        "run/validation/greedy": "greedy",
        "run/validation/as_configured": "as_configured",
    }
    assert {folder: {row["validation_mode"] for row in rows} for folder, rows in run.dumps.items()} == {
        folder: {mode} for folder, mode in folders.items()
    }
    assert all("thinking_latency_s" in row for rows in run.dumps.values() for row in rows)
    assert [len(rows) for rows in run.dumps.values()] == [4, 2, 4], "greedily one response to a question"
    assert run.happened.count("samples logged") == 1
    assert (
        run.happened[0] == f"validation with {ROLLOUT['val_kwargs'] | {'temperature': 0.9, 'top_p': 0.8, 'top_k': 7}}"
    )


def test_validation_again_samples_as_before() -> None:
    run, first = validated("sampled", "greedy")
    assert run._validate() == first


def test_a_dumped_validation_tells_the_rows_of_the_data() -> None:
    run, _ = validated("greedy")
    rows = run.dumps["run/validation"]
    assert [(row["data_source"], row["split"], row["index"]) for row in rows] == [("s", "val", 7), ("s", "val", 8)]
    assert [row["group"] for row in rows] == [row["uid"].rsplit("_", 2)[0] for row in rows]


def test_as_configured_alone_is_verl_and_sets_nothing() -> None:
    run = trainer()
    run._init_dataloader()
    del run.agent_loop_manager.agent_loop_workers[0].__ray_call__
    metrics = run._validate()
    assert metrics["val-core/s/reward/mean@1"] == pytest.approx(0.3)
    assert list(run.dumps) == ["run/validation"]


def test_a_manager_without_workers_is_told() -> None:
    run = trainer(modes=("greedy",))
    run._init_dataloader()
    run.agent_loop_manager = SimpleNamespace()
    with pytest.raises(VerlChangedError, match=r"agent_loop_workers.*sophiavl\.validation_modes"):
        run._validate()


def test_each_step_and_each_validation_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = validated("sampled", "greedy")
    assert (
        capsys.readouterr().out
        == "validation at step 0: sampled validation 0.90 ± 0.00, greedy validation 0.00 ± 0.00\n"
    )
    for _ in range(2):
        run.on_step_begin()
        run._compute_metrics(None, {"outcome_reward/mean": 0.5}, {"step": 61.0}, global_steps=1, epoch=0)
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["step 1 of 4: outcome 0.50, 61.0 s, 3 min left", "step 2 of 4: outcome 0.50, 61.0 s, 2 min left"]


def test_a_sample_of_groups_goes_to_the_loggers_that_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    run, given = trainer(), []
    run.logger = SimpleNamespace(takes_groups=True, log_groups=lambda samples, step: given.append((samples, step)))
    run.tokenizer = SimpleNamespace(decode=lambda ids, skip_special_tokens: f"text {int(ids[0])}")
    run._dump_fields = {f"g{i // 2}_{i % 2}_0": {"group": f"g{i // 2}", "gamma": 0.5} for i in range(8)}

    def read_fields(batch: Any, keys: list[str], fields: list[str]) -> dict[str, Any]:
        rows = {
            "raw_prompt": [{"role": "user", "content": "x"}],
            "extra_info": {"question": f"question {keys[0]}", "options": None},
            "reward_model": {"ground_truth": "truth"},
        }
        responses = torch.tensor([[int(key[1])] for key in keys])
        return {"responses": responses} | {name: [value] * len(keys) for name, value in rows.items()}

    monkeypatch.setattr("recipe.sophiavl.trainer.internals.read_fields", read_fields)
    for run.global_steps in (1, 2, 19, 20):
        run._compute_metrics(None, {"outcome_reward/mean": 0.5}, {"step": 1.0}, global_steps=0, epoch=0)
    assert [(len(samples), step) for samples, step in given] == [(2, 1), (2, 20)]
    for sample in given[0][0]:
        group = sample.question.removeprefix("question g")[0]
        assert [row["response"] for row in sample.responses] == [f"text {group}"] * 2
        assert (sample.truth, sample.figures["gamma"]) == ("truth", 0.5)
