"""The launch scripts say how they are used, and stop clearly where something is missing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = sorted(path for path in (REPOSITORY / "examples").glob("*.sh") if path.name != "common.sh")


def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", f"examples/{script}", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_help_names_every_setting(script):
    done = run(script.name, "--help")
    assert done.returncode == 0
    settings = {line.split("=")[0] for line in script.read_text().splitlines() if ":-" in line and " # " in line}
    missing = {name for name in settings if name.isupper() and name not in done.stdout}
    assert not missing


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_stop_at_the_first_error(script):
    assert "\nset -euo pipefail\n" in script.read_text()


def test_trm_training_composes_without_a_gpu():
    done = run("train_trm.sh", "--dry-run", VIRTUAL_ENV=sys.prefix)
    assert done.returncode == 0
    assert "Qwen/Qwen2.5-VL-3B-Instruct" in done.stdout
    assert "total_epochs: 2" in done.stdout
    assert "freeze_vision: false" in done.stdout


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.target=words"], "data.target='words': must be score or reply"),
        (["trm.freeze_vision=some"], "trm.freeze_vision='some': must be true or false"),
        (["trm.freeze_vision=true", "engine.strategy=fsdp"], "Set engine.strategy=fsdp2, or trm.freeze_vision=false"),
    ],
)
def test_trm_training_names_a_wrong_setting(overrides, message):
    done = run("train_trm.sh", "--dry-run", *overrides, VIRTUAL_ENV=sys.prefix)
    assert done.returncode == 1
    assert message in done.stderr


def test_trm_training_stops_without_data(tmp_path):
    done = run("train_trm.sh", VIRTUAL_ENV=sys.prefix, TRAIN_FILES=str(tmp_path / "none.parquet"))
    assert done.returncode == 1
    assert "none.parquet does not exist" in done.stderr


@pytest.mark.parametrize("script", ["train_trm.sh", "run_qwen2_5_vl_7b_trust_grpo.sh"])
@pytest.mark.parametrize("name", ["TRAIN_FILES", "VAL_FILES"])
def test_training_names_the_setting_whose_pattern_matches_nothing(tmp_path, script, name):
    (tmp_path / "train-00000.parquet").touch()
    there, absent = f"{tmp_path}/train-*.parquet", f"{tmp_path}/val-*.parquet"
    done = run(script, VIRTUAL_ENV=sys.prefix, **{"TRAIN_FILES": there, "VAL_FILES": there, name: absent})
    assert done.returncode == 1
    assert f"{name}={absent} does not exist" in done.stderr


PAPER = "run_qwen2_5_vl_7b_trust_grpo.sh"
HOSTED = "reward.reward_model.model_path=trm"


@pytest.mark.parametrize(
    ("overrides", "nodes", "composes_to"),
    [
        (["serving=pool", HOSTED], "2", ["mode: pool", "free_cache_engine: false", "nnodes: 2"]),
        (["serving=colocated", HOSTED, "trainer.v1.trainer_mode=colocate_async"], "1", ["mode: colocated"]),
    ],
    ids=["pool on several nodes", "colocated and asynchronous"],
)
def test_the_papers_run_composes_where_verl_hosts_the_trm(overrides, nodes, composes_to):
    done = run(PAPER, "--dry-run", *overrides, VIRTUAL_ENV=sys.prefix, NODES=nodes)
    assert done.returncode == 0, done.stderr
    for line in (*composes_to, "The configuration is valid."):
        assert line in done.stdout


@pytest.mark.parametrize(
    ("overrides", "nodes", "says"),
    [
        ([], "2", "thinking_reward.urls holds http://127.0.0.1:8000/v1, and trainer.nnodes=2"),
        (["trainer.v1.trainer_mode=separate_async"], "1", "ppo_mini_batch_size=16: set the latter to 4"),
    ],
    ids=["a loopback TRM for several nodes", "separate_async"],
)
def test_the_papers_run_stops_with_the_setting_to_change(overrides, nodes, says):
    done = run(PAPER, "--dry-run", *overrides, VIRTUAL_ENV=sys.prefix, NODES=nodes)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("cores", "servers"), [(2, 1), (32, 4), (192, 8)])
def test_a_served_trm_reads_requests_in_several_processes(tmp_path, cores, servers):
    for name, body in (("vllm", 'echo "vllm $*"'), ("nproc", f"echo {cores}")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = run("serve_trm.sh", "MODEL", "--dtype", "half", VIRTUAL_ENV=sys.prefix, PATH=path)
    assert re.search(rf"--api-server-count {servers} --dtype \w+ --dtype half$", done.stdout, re.M), "yours come last"
    assert "the server ended while starting" in done.stderr


def test_the_pipeline_keeps_no_stages_of_other_settings(tmp_path):
    (tmp_path / "settings").write_text("COLLECT_STEPS=8 EPOCHS=20 DATA_DIR=data\n")
    done = run("trm_pipeline_cpu.sh", VENV=sys.prefix, RUN_DIR=str(tmp_path), COLLECT_STEPS="4")
    assert done.returncode == 1
    assert f"{tmp_path} was made with COLLECT_STEPS=8" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["settings"]


@pytest.mark.parametrize(("argument", "message"), [((), "which model?"), (("{empty}",), "holds no config.json")])
def test_serving_stops_without_a_model(tmp_path, argument, message):
    done = run("serve_trm.sh", *(part.format(empty=tmp_path) for part in argument), VIRTUAL_ENV=sys.prefix)
    assert done.returncode == 1
    assert message in done.stderr
