"""Which runs can share an engine."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from recipe.sophiavl.study.engine_settings import check_same, engine_settings
from recipe.sophiavl.validation import SettingsError

CONFIG = OmegaConf.create(
    {
        "run_dir": "one",
        "thinking_reward": {"alpha": 0.3},
        "data": {"seed": 1, "train_batch_size": 16},
        "actor_rollout_ref": {"actor": {"optim": {"lr": 1e-4}}, "rollout": {"seed": 1, "temperature": 1.0}},
        "trainer": {"rollout_data_dir": "${run_dir}/rollouts", "total_training_steps": 12},
    }
)


def changed(*overrides: str) -> dict[str, object]:
    return engine_settings(OmegaConf.merge(CONFIG, OmegaConf.from_dotlist(list(overrides))))


@pytest.mark.parametrize(
    "override", ["run_dir=two", "thinking_reward.alpha=0.5", "thinking_reward.new=1", "data.seed=2", "sophiavl.new=1"]
)
def test_a_runs_own_settings_may_differ(override: str) -> None:
    check_same(changed(), changed(override))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("actor_rollout_ref.actor.optim.lr=0.01", r"actor_rollout_ref\.actor\.optim\.lr: 0\.0001 there, 0\.01 here"),
        ("data.train_batch_size=8", r"data\.train_batch_size: 16 there, 8 here"),
        ("data.seeds=2", r"data\.seeds: None there, 2 here"),
        ("sophiavl.validation_modes=greedy", "None there, 'greedy' here"),
        ("algorithm.use_kl_in_reward=true", "None there, True here"),
        ("trainer.total_training_steps=13", r"total_training_steps: 12 there"),
        ("actor_rollout_ref.rollout.temperature=0.5", r"temperature"),
    ],
)
def test_what_the_engine_was_built_with_may_not(override: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        check_same(changed(), changed(override))


def test_references_count_by_what_they_come_to() -> None:
    config = OmegaConf.merge(CONFIG, {"data": {"train_batch_size": "${trainer.total_training_steps}"}})
    assert engine_settings(config)["data.train_batch_size"] == 12
