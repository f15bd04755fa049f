"""The entry point makes the run's folder once all checks have passed, and keeps it only for what really started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from recipe.sophiavl import main_sophiavl, start
from recipe.sophiavl.trm.preflight import Check, PreflightError
from recipe.sophiavl.validation import SettingsError

CONFIG = Path(__file__).parents[2] / "recipe/sophiavl/config"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DictConfig:
    """Of a run in ``run`` whose settings, model and data are right."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(start.METRICS_VARIABLE, raising=False)
    pq.write_table(pa.table({"answer": ["A"]}), "rows.parquet")
    for check in ("check_config", "check_models", "check_data_files"):
        monkeypatch.setattr(main_sophiavl, check, lambda *_: None)
    monkeypatch.setattr(start, "keep_log", lambda file: file.touch() or file.exists)
    with initialize_config_dir(str(CONFIG), version_base=None):
        given = ("run_dir=run", "data.train_files=rows.parquet", "data.val_files=rows.parquet")
        return compose("sophiavl_trainer", [*given, "thinking_reward=outcome_only"])


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The variables of each training that was started."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(main_sophiavl, "_train", lambda config, variables, *_: found.append(variables))
    return found


def test_a_training_gets_metrics_in_its_folder_and_is_noted_as_finished(
    config: DictConfig, trained: list[dict[str, Any]], tmp_path: Path
) -> None:
    main_sophiavl.run(config)
    assert trained[0][start.METRICS_VARIABLE] == f"{tmp_path}/run/metrics-001.jsonl"
    assert config.trainer.rollout_data_dir == f"{tmp_path}/run/rollouts", "absolute, for workers elsewhere"
    assert (tmp_path / "run/finished").read_text() == "1500\n"


def test_a_dry_run_and_a_check_start_nothing_and_make_no_folder(
    config: DictConfig, trained: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.sophiavl.dry_run = True
    main_sophiavl.run(config)
    told = capsys.readouterr().out
    assert "16 questions x 8 = 128 responses" in told
    assert "1 rows: 0 steps = 0 optimiser steps" in told, "of the file that is there"
    assert "kl_loss_coef" not in told
    config.sophiavl.dry_run = "full"
    main_sophiavl.run(config)
    told = capsys.readouterr().out
    assert "kl_loss_coef: 0.04" in told
    assert "default_local_dir: run/checkpoints" in told, "resolved"
    config.sophiavl.dry_run = False
    config.check_only = True
    with pytest.raises(SystemExit) as ended:
        main_sophiavl.run(config)
    assert ended.value.code == 0
    assert f"check_only: a start would begin a run in {config.run_dir}. The thinking" in capsys.readouterr().out
    assert not trained
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_not_started_again(
    config: DictConfig, trained: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main_sophiavl.run(config.copy())
    (tmp_path / "run/metrics-001.jsonl").write_text("{}\n")
    main_sophiavl.run(config)
    assert len(trained) == 1
    assert "This run is finished: step 1500 of 1500" in capsys.readouterr().err
    config.check_only = True
    with pytest.raises(SystemExit) as ended:
        main_sophiavl.run(config)
    assert ended.value.code == main_sophiavl.FINISHED


@pytest.mark.parametrize(
    "error",
    [SettingsError("a setting"), PreflightError([Check("http://trm/v1", "reachable", False, "refused", "start")])],
)
def test_what_a_worker_refuses_leaves_no_folder(
    config: DictConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    def refuse(*_: Any) -> None:
        assert (tmp_path / "run/config.yaml").exists()
        raise error

    monkeypatch.setattr(main_sophiavl, "_train", refuse)
    with pytest.raises(type(error)):
        main_sophiavl.run(config)
    assert not (tmp_path / "run").exists()


def test_a_failed_preflight_leaves_no_folder(
    config: DictConfig, trained: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: Any) -> None:
        raise PreflightError([Check("http://trm/v1", "reachable", False, "refused", "start")])

    monkeypatch.setattr(main_sophiavl, "run_preflight", fail)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    config.thinking_reward.update({"enable": True, "urls": ["http://trm/v1"], "model": "trm"})
    with pytest.raises(PreflightError):
        main_sophiavl.run(config)
    assert not trained
    assert not (tmp_path / "run").exists()


def test_a_crash_keeps_its_folder(config: DictConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def crash(*_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(main_sophiavl, "_train", crash)
    with pytest.raises(RuntimeError):
        main_sophiavl.run(config)
    assert (tmp_path / "run/train.log").exists()
    assert not (tmp_path / "run/finished").exists()
