"""What the mixin does around verl's steps, over a trainer that only remembers what happened to it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from recipe.sophiavl.guards import Guards, ThinkingRewardLostError
from recipe.sophiavl.trainer import TrustGRPOMixin

MISSING = {"asked": 4, "missing": 4, "groups": 1, "dropped": 1}


class Base:
    """The calls of verl's ``PPOTrainer`` that the tests below need."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.trainer_mode = config.trainer.v1.trainer_mode
        self.replay_buffer = SimpleNamespace(poll_interval=2.0)
        self.happened: list[str] = []
        self.global_steps = 0

    def on_step_begin(self) -> None:
        self.global_steps += 1

    def on_step_end(self) -> None:
        self.happened.append("generation resumes")

    def _save_checkpoint(self) -> None:
        self.happened.append(f"checkpoint of {self.global_steps}")

    def _shutdown_dump_executor(self) -> None:
        self.happened.append("dumps written")


class Trainer(TrustGRPOMixin, Base):
    pass


def trainer(mode: str = "sync") -> Trainer:
    made = {
        "trainer": {"v1": {"trainer_mode": mode}, "default_local_dir": "checkpoints"},
        "thinking_reward": {"urls": ["http://trm:8000/v1"], "model": "trm", "missing_window_steps": 2},
        "sophiavl": {"replay_poll_interval_s": 0.1},
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
