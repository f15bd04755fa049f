"""What is wrong stops the run before anything starts, with a message that names the setting and the value."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pandas as pd
import pytest

from testbed.training import REPOSITORY, TrainingRun
from testbed.vllm_server import VllmServer, free_port

pytestmark = pytest.mark.e2e


def refusal(folder: Path, *overrides: str) -> str:
    """The log of a run that must not get as far as Ray."""
    run = TrainingRun(folder, *overrides)
    assert run.start().wait() != 0
    log = run.log.read_text()
    assert "ray init kwargs" not in log
    assert "Traceback" not in log, "a wrong setting is no crash"
    return log


@pytest.fixture
def files(data_files: dict[str, Path]) -> tuple[str, str]:
    # The second by a pattern, as shards are given.
    return f"data.train_files={data_files['train']}", f"data.val_files={data_files['val'].parent}/va?.parquet"


def test_wrong_url(tmp_path: Path, files: tuple[str, str]) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    log = refusal(tmp_path, *files, f"thinking_reward.urls=[{url}]")
    assert url in log
    assert "thinking_reward.urls" in log


def test_wrong_model_name(tmp_path: Path, files: tuple[str, str], trm: VllmServer) -> None:
    log = refusal(tmp_path, *files, f"thinking_reward.urls=[{trm.url}]", "thinking_reward.model=judge-7b")
    assert "judge-7b" in log
    assert "thinking_reward.model" in log
    assert "trm" in log, "the message names what is served"


def test_missing_column(tmp_path: Path, data_files: dict[str, Path]) -> None:
    broken = tmp_path / "broken.parquet"
    pd.read_parquet(data_files["train"]).drop(columns="reward_model").to_parquet(broken)
    log = refusal(
        tmp_path,
        f"data.train_files={broken}",
        f"data.val_files={data_files['val']}",
        "thinking_reward.urls=[http://127.0.0.1:9/v1]",
    )
    assert f"data.train_files={broken}" in log
    assert "reward_model.ground_truth" in log


def test_pattern_without_files(tmp_path: Path, data_files: dict[str, Path]) -> None:
    given = f"data.val_files={tmp_path}/val-*.parquet"
    log = refusal(tmp_path, f"data.train_files={data_files['train']}", given, "thinking_reward=outcome_only")
    assert f"{given}: no file matches" in log


def test_negative_alpha(tmp_path: Path, files: tuple[str, str]) -> None:
    log = refusal(tmp_path, *files, "thinking_reward.alpha=-1", "thinking_reward.urls=[http://127.0.0.1:9/v1]")
    assert "thinking_reward.alpha=-1" in log


def test_paper_settings_compose_and_are_valid_without_a_gpu() -> None:
    """The launch script of the paper's run, as a user would check it on a laptop."""
    result = subprocess.run(
        ["bash", "examples/run_qwen2_5_vl_7b_trust_grpo.sh", "--dry-run"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "The configuration is valid." in result.stdout
    for line in (
        "alpha: 0.3",
        "total_training_steps: 1500",
        "kl_loss_coef: 0.04",
        "kl_loss_type: low_var_kl",
        "'n': 8",
    ):
        assert line in result.stdout
