"""The Hydra groups compose with every preset, and what is wrong is refused with the setting, the value, and advice."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from recipe.sophiavl.settings import EngineSettings, ThinkingRewardSettings
from recipe.sophiavl.validation import SettingsError

CONFIG = Path(__file__).resolve().parents[2] / "recipe/sophiavl/config"
SERVER = ("thinking_reward.urls=[http://127.0.0.1:8000/v1]", "thinking_reward.model=trm")


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONFIG), version_base=None):
        return compose("sophiavl_trainer", overrides=list(overrides))


def thinking(*overrides: str) -> ThinkingRewardSettings:
    return ThinkingRewardSettings.from_config(composed(*overrides).thinking_reward)


def merged(*overrides: str) -> ThinkingRewardSettings:
    """The group alone, without the seconds that composing all of verl's configuration takes."""
    group = OmegaConf.load(CONFIG / "thinking_reward/default.yaml")
    own = [override.removeprefix("+").removeprefix("thinking_reward.") for override in (*SERVER, *overrides)]
    return ThinkingRewardSettings.from_config(OmegaConf.merge(group, OmegaConf.from_dotlist(own)))


def test_paper_settings() -> None:
    config = composed(*SERVER)
    settings = ThinkingRewardSettings.from_config(config.thinking_reward)
    assert (settings.trust.alpha, settings.trust.schedule, settings.trust.trust) == (0.3, "exponential", True)
    assert (settings.trust.uniform_groups, settings.trust.on_missing) == ("keep", "drop_group")
    assert settings.trust.trust_estimator == "paper"
    assert (config.trainer.total_training_steps, config.actor_rollout_ref.rollout.n) == (1500, 8)
    assert config.actor_rollout_ref.actor.kl_loss_coef == 0.04
    assert config.actor_rollout_ref.actor.optim.lr == 5e-7


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("no_trust", {"trust": False, "schedule": "exponential"}),
        ("no_trust_no_annealing", {"trust": False, "schedule": "constant"}),
        ("gdpo", {"combine": "gdpo", "alpha": 1.0, "schedule": "constant", "unformatted_in_means": True}),
        ("process_aware", {"combine": "process_aware", "alpha": 1.0, "schedule": "constant"}),
        ("published_code", {"min_outcome": 0.2, "uniform_groups": "outcome_only", "total_steps": 12000}),
    ],
)
def test_presets(preset: str, expected: dict[str, object]) -> None:
    trust = thinking(f"thinking_reward={preset}", *SERVER).trust
    assert {name: getattr(trust, name) for name in expected} == expected


def test_outcome_only_needs_no_server() -> None:
    assert thinking("thinking_reward=outcome_only").enable is False


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (("thinking_reward.alpha=-0.1",), ("thinking_reward.alpha", "-0.1")),
        (("thinking_reward.schedule=step",), ("thinking_reward.schedule", "'step'", "exponential")),
        (("thinking_reward.combine=sum",), ("thinking_reward.combine", "'sum'", "'trust_grpo', 'gdpo' or")),
        (("thinking_reward.on_missing=zero",), ("thinking_reward.on_missing", "'zero'", "drop_group")),
        (("thinking_reward.model=null",), ("thinking_reward.model", "None")),
        (("thinking_reward.urls=[]",), ("thinking_reward.urls", "thinking_reward.enable=false")),
        (("thinking_reward.urls=[localhost]",), ("thinking_reward.urls", "localhost")),
        (("thinking_reward.enable=maybe",), ("thinking_reward.enable", "'maybe'")),
        (("thinking_reward.mode=remote",), ("thinking_reward.mode", "'remote'", "'external', 'pool' or 'colocated'")),
        (("thinking_reward.ocr_reward=wer",), ("thinking_reward.ocr_reward", "'wer'", "'exp' or 'linear'")),
        (("thinking_reward.tolerance=1",), ("thinking_reward.tolerance=1", "less than 1")),
        (("thinking_reward.strict_percent=5",), ("thinking_reward.strict_percent=5",)),
        (("thinking_reward.max_missing_frac=2",), ("thinking_reward.max_missing_frac", "2")),
        (("thinking_reward.missing_window_steps=0",), ("thinking_reward.missing_window_steps", "0")),
        (("thinking_reward.timeout_s=0",), ("thinking_reward.timeout_s", "0")),
        (("thinking_reward.max_dropped_groups_frac=-1",), ("thinking_reward.max_dropped_groups_frac", "-1")),
        (("+thinking_reward.correct_threshold_by_type.orc=0.9",), ("correct_threshold_by_type='orc'", "ocr")),
        (("+thinking_reward.correct_threshold_by_type.ocr=0",), ("correct_threshold_by_type",)),
        (("thinking_reward.preflight=false",), ("thinking_reward.structured_output='auto'", "json_schema or off")),
        (("+thinking_reward.gama=1",), ("gama", "known are")),
        (("+thinking_reward.alhpa=1",), ("thinking_reward.alhpa: no such setting (did you mean alpha?); known are",)),
        (("+thinking_reward.url=1", "+thinking_reward.Timeouts=2"), ("did you mean urls?", "did you mean timeout_s?")),
        (("thinking_reward.schedule=linera",), ("'linera'", "did you mean linear?")),
        (("thinking_reward.mode=externl",), ("'externl'", "did you mean external?")),
        (("thinking_reward.trust=flase",), ("'flase'", "did you mean false?")),
        (("thinking_reward.trust_estimator=shrank",), ("'shrank'", "'paper', 'shrunk' or 'pooled'", "mean shrunk?")),
        (("thinking_reward.ocr_reward=Exp",), ("'Exp'", "did you mean exp?")),
        (("+thinking_reward.correct_threshold_by_type.orc=0.9",), ("'orc'", "did you mean ocr?")),
    ],
)
def test_wrong_values_are_refused(overrides: tuple[str, ...], parts: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError) as error:
        merged(*overrides)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("replay_poll_interval_s", 0),
        ("min_rollout_correlation", 1.5),
        ("max_rollout_diff", -0.1),
        ("check_rollout", "yes"),
        ("rollout_window_steps", 0),
        ("log_groups", -1),
        ("log_groups", 33),
        ("log_groups_freq", 0),
    ],
)
def test_engine_settings_are_checked(key: str, value: object) -> None:
    with pytest.raises(SettingsError, match=rf"sophiavl\.{key}={value!r}"):
        EngineSettings.from_config({key: value})


def test_unknown_engine_setting_is_refused() -> None:
    with pytest.raises(
        SettingsError, match=r"sophiavl\.check_rolout: no such setting \(did you mean check_rollout\?\)"
    ):
        EngineSettings.from_config({"check_rolout": 1.0})


@pytest.mark.parametrize(
    "urls", ["http://host:8000/v1", "[http://host:8000/v1]", "'http://host:8000/v1/, '", "' http://host:8000/v1'"]
)
def test_one_url_needs_no_brackets(urls: str) -> None:
    assert merged(f"thinking_reward.urls={urls}").client_settings().urls == ("http://host:8000/v1",)


def test_hosted_modes_get_their_address_at_run_time() -> None:
    settings = merged("thinking_reward.mode=pool")
    assert settings.needs_verl_hosting
    client = settings.client_settings("10.0.0.1:4000", "/models/trm")
    assert (tuple(client.urls), client.model) == (("http://10.0.0.1:4000/v1",), "/models/trm")
    with pytest.raises(SettingsError, match=r"reward\.reward_model\.enable=true"):
        settings.client_settings(None, "/models/trm")


@pytest.mark.parametrize(("wish", "settled"), [("auto", "choice"), ("json_schema", "json_schema"), ('"off"', "off")])
def test_what_verl_hosts_has_structured_output(wish: str, settled: str) -> None:
    settings = merged("thinking_reward.mode=pool", f"thinking_reward.structured_output={wish}")
    assert settings.client_settings("10.0.0.1:4000", "/models/trm").structured_output == settled


def test_a_threshold_for_a_single_type() -> None:
    settings = merged("+thinking_reward.correct_threshold_by_type.ocr=0.9")
    assert settings.trust.correct_threshold_by_type == {"ocr": 0.9}
