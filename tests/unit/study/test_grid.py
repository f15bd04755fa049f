"""The grid of a study: its runs and their order, what each is trained with, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from recipe.sophiavl.checks import check_config
from recipe.sophiavl.settings import ThinkingRewardSettings
from recipe.sophiavl.study.engine_settings import engine_settings
from recipe.sophiavl.study.grid import Cell, Study, load_judge, load_study
from recipe.sophiavl.study.worker import run_config
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


def test_every_run_of_the_published_grid_is_valid_and_all_share_an_engine(tmp_path: Path) -> None:
    study = load_study(STUDY)
    load_judge(study.judge)
    engines = []
    for cell in {cell.variant: cell for cell in study.cells()}.values():
        url = None if cell.reward_model == "none" else "http://127.0.0.1:8000/v1"
        config = run_config(study, cell, tmp_path / cell.name, url)
        check_config(config, ThinkingRewardSettings.from_config(config.thinking_reward))
        assert config.thinking_reward.enable == (url is not None), cell
        engines.append(engine_settings(config))
    assert len(engines) >= 7
    assert all(engine == engines[0] for engine in engines)
