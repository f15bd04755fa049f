"""What is wrong stops the run before anything starts, with a message that names the setting and the value."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from recipe.sophiavl import start
from recipe.sophiavl.data_files import expand_patterns
from testbed.forked_start import run_forked
from testbed.training import REPOSITORY, RUN_LIMIT_S
from testbed.vllm_server import VllmServer, free_port

pytestmark = pytest.mark.e2e


def refusal(folder: Path, *overrides: str) -> str:
    """What a start says that must not get as far as Ray; it changes nothing, and makes no folder."""
    outputs = REPOSITORY / "outputs"
    before = content(folder), set(REPOSITORY.iterdir()), set(outputs.glob("*"))
    given = ("platform=cpu", "preset=quickstart", f"run_dir={folder / 'run'}", *overrides)
    with tempfile.TemporaryDirectory() as elsewhere:
        output = Path(elsewhere, "output")
        code = run_forked(given, REPOSITORY, output, RUN_LIMIT_S)
        said = output.read_text()
    assert code == 1, said
    assert "ray init kwargs" not in said
    assert "Traceback" not in said, "a wrong setting is no crash"
    assert (content(folder), set(REPOSITORY.iterdir()), set(outputs.glob("*"))) == before
    return said


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


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


def test_a_model_that_is_none(tmp_path: Path, files: tuple[str, str]) -> None:
    given = f"actor_rollout_ref.model.path={tmp_path}/policy"
    assert f"{given}: no such folder" in refusal(tmp_path, *files, "thinking_reward=outcome_only", given)


def test_no_training_file(tmp_path: Path, data_files: dict[str, Path]) -> None:
    said = refusal(tmp_path, f"data.val_files={data_files['val']}", "thinking_reward=outcome_only")
    assert "data.train_files: no file is given" in said


def test_a_batch_of_more_rows_than_there_are(tmp_path: Path, files: tuple[str, str]) -> None:
    given = (
        "thinking_reward=outcome_only",
        "data.train_batch_size=512",
        "actor_rollout_ref.actor.ppo_mini_batch_size=512",
    )
    assert "64 rows, and a batch takes 512 (data.train_batch_size)" in refusal(tmp_path, *files, *given)


def test_another_experiment_in_the_folder_of_a_run(
    tmp_path: Path, files: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is as a start leaves it; tests/e2e/test_training.py has one of a run that really trained."""
    first = (*files, "thinking_reward.alpha=0.5", "thinking_reward.urls=[http://127.0.0.1:9/v1]")
    with initialize_config_dir(str(REPOSITORY / "recipe/sophiavl/config"), version_base=None):
        given = ("platform=cpu", "preset=quickstart", f"run_dir={tmp_path}/run", *first)
        config = compose("sophiavl_trainer", list(given))
    expand_patterns(config.data)
    monkeypatch.setattr(start, "keep_log", lambda file: file.touch() or file.exists)
    metrics = start.plan(config).open(config)[start.METRICS_VARIABLE]
    Path(metrics).write_text('{"step": 1, "data": {}}\n')
    said = refusal(tmp_path, *files, "thinking_reward=no_trust", "thinking_reward.urls=[http://127.0.0.1:9/v1]")
    rows = [line.split() for line in said.splitlines()]
    assert ["thinking_reward.alpha", "0.5", "0.3"] in rows
    assert ["thinking_reward.trust", "true", "false"] in rows
    assert f"run_dir={tmp_path}/run-2" in said
    assert f"rm -r {tmp_path}/run" in said


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("thinking_reward.alhpa=0.5",), "alhpa"),
        (("--fresh", "thinking_reward.alpha=-1"), "thinking_reward.alpha=-1"),
        (("run_dir=elsewhere",), "set RUN_DIR=... instead of run_dir=..."),
        ((), "holds a run without its config.yaml"),
    ],
    ids=["misspelt", "fresh", "run_dir", "another run"],
)
def test_the_quickstart_says_what_is_wrong_before_it_serves_its_trm_or_removes_a_run(
    tmp_path: Path, flags: tuple[str, ...], says: str
) -> None:
    (tmp_path / "run/checkpoints/global_step_1").mkdir(parents=True)
    before = content(tmp_path)
    done = subprocess.run(
        ["bash", "examples/quickstart.sh", *flags],
        cwd=REPOSITORY,
        env={**os.environ, "RUN_DIR": f"{tmp_path}/run", "VENV": sys.prefix},
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT_S,
        check=False,
    )
    assert done.returncode == 1
    assert says in done.stderr
    assert "Starting the thinking reward model" not in done.stdout
    assert content(tmp_path) == before


def test_paper_settings_compose_and_are_valid_without_a_gpu() -> None:
    """The launch script of the paper's run, as a user would check it on a laptop."""
    result = subprocess.run(
        ["bash", "examples/run_qwen2_5_vl_7b_trust_grpo.sh", "--dry-run=full"],
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
