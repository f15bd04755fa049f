"""The grid of a study: its runs and their order, what each is trained with, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from recipe.sophiavl.study.grid import Cell, Study, load_judge, load_study
from recipe.sophiavl.study.run_config import check_study, run_config
from recipe.sophiavl.validation import SettingsError

STUDY = Path(__file__).parents[3] / "examples/study/study.yaml"
GIVEN: dict[str, Any] = {
    "settings": ["platform=cpu"],
    "variants": {"default": ["thinking_reward=default"], "outcome_only": ["thinking_reward=outcome_only"]},
    "reward_models": {"oracle": "serve --port {port} --seed {seed}"},
    "judge": "examples.study.oracle:assess",
    "grid": [
        {"variants": ["default"], "reward_models": ["oracle"], "seeds": 2},
        {"variants": ["outcome_only"], "reward_models": ["none"], "seeds": 1},
    ],
}


def test_the_untrained_policy_comes_first_and_then_block_by_block() -> None:
    names = [cell.name for cell in Study(**GIVEN).cells()]
    assert names == ["start.none.0", "default.oracle.1", "default.oracle.2", "outcome_only.none.1"]


def test_a_run_that_two_blocks_name_is_made_once() -> None:
    grid = [*GIVEN["grid"], {"variants": ["default"], "reward_models": ["oracle"], "seeds": 3}]
    names = [cell.name for cell in Study(**{**GIVEN, "grid": grid}).cells()]
    assert names.count("default.oracle.1") == 1
    assert names[-1] == "default.oracle.3"


def test_seed_and_port_go_into_the_run_and_its_server() -> None:
    study, cell = Study(**GIVEN), Cell("default", "oracle", 7)
    assert study.command(cell, 1234) == "serve --port 1234 --seed 7"
    assert study.command(Cell("outcome_only", "none", 7), 1234) == ""
    assert {"data.seed=7", "actor_rollout_ref.rollout.seed=7"} <= set(study.overrides(cell))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"grid": [{"variants": ["defualt"], "reward_models": ["oracle"], "seeds": 1}]}, "did you mean default"),
        ({"grid": [{"variants": ["default"], "reward_models": ["orcale"], "seeds": 1}]}, "did you mean oracle"),
        ({"grid": [{"variants": ["default"], "reward_models": ["oracle"], "seeds": 0}]}, "seeds=0"),
        ({"grid": [{"variants": ["default"], "reward_models": ["oracle"], "seed": 1}]}, "did you mean seeds"),
        ({"grid": []}, "grid"),
        ({"variants": {"a/b": []}}, "'a/b' can't name"),
        ({"variants": {"start": []}}, "'start' has a meaning"),
        ({"jugde": "a:b"}, "did you mean judge"),
    ],
)
def test_what_is_wrong_is_told_with_the_file(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({**GIVEN, **changes}))
    with pytest.raises(SettingsError, match=r"mine\.yaml") as error:
        load_study(file)
    assert told in str(error.value)


@pytest.mark.parametrize("text", ["just text", "{", "\x00"])
def test_what_is_no_study_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(SettingsError, match=r"mine\.yaml: no study"):
        load_study(tmp_path / "mine.yaml")


@pytest.mark.parametrize("name", ["nowhere.at_all:assess", "examples.study.oracle:asses", "examples.study.oracle", ":"])
def test_a_judge_that_is_not_there_is_told(name: str) -> None:
    with pytest.raises(SettingsError, match="no such function"):
        load_judge(name)


@pytest.fixture
def _cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERL_PLATFORM", "cpu")


@pytest.mark.usefixtures("_cpu")
def test_every_run_of_the_published_grid_can_be_made_on_one_engine() -> None:
    check_study(load_study(STUDY))


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    """The published study, with one block of one variant."""
    given = yaml.safe_load(STUDY.read_text())
    return {**given, "grid": [{"variants": ["default"], "reward_models": ["oracle"], "seeds": 1}]}


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("thinking_reward.alpha=-1", "thinking_reward.alpha=-1"),
        ("thinking_reward.alhpa=1", "alhpa"),
        ("trainer.save_freq=5", "trainer.save_freq=5: runs that share an engine"),
        ("trainer.test_freq=-1", "trainer.test_freq, which the last step validates"),
        ("trainer.v1.trainer_mode=colocate_async", "in sync only"),
        ("sophiavl.validation_modes=[greedy]", r"set sophiavl.validation_modes=\[greedy,sampled\]"),
        ("actor_rollout_ref.rollout.val_kwargs.n=10", "9 at most"),
        ("actor_rollout_ref.actor.optim.lr=1", "optim.lr: .* there, 1 here"),
    ],
)
@pytest.mark.usefixtures("_cpu")
def test_what_a_run_would_fail_at_is_told_before_the_first(small: dict[str, Any], setting: str, told: str) -> None:
    variants = {**small["variants"], "default": ["thinking_reward=default", setting]}
    with pytest.raises(SettingsError, match=told):
        check_study(Study(**{**small, "variants": variants}))


@pytest.mark.parametrize("command", ["serve {", "serve {path}", "serve 'half", "serve {}"])
@pytest.mark.usefixtures("_cpu")
def test_a_command_that_is_none_is_told(small: dict[str, Any], command: str) -> None:
    with pytest.raises(SettingsError, match=r"reward_models\.oracle: no command"):
        check_study(Study(**{**small, "reward_models": {**small["reward_models"], "oracle": command}}))


@pytest.mark.parametrize("name", ["with blank", "ä='1',(x)[~#"])
def test_a_run_may_have_any_folder(small: dict[str, Any], tmp_path: Path, name: str) -> None:
    config = run_config(Study(**small), Cell("default", "oracle", 1), tmp_path / name, None)
    assert config.trainer.rollout_data_dir == f"{tmp_path}/{name}/rollouts"
