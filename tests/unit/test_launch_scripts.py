"""The launch scripts say how they are used, and stop clearly where something is missing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from recipe.sophiavl.checks import check_config
from recipe.sophiavl.settings import ThinkingRewardSettings
from recipe.sophiavl.validation import SettingsError

REPOSITORY = Path(__file__).parents[2]
COMMON = REPOSITORY / "examples/common.sh"
SCRIPTS = sorted(
    path for pattern in ("*.sh", "*.sbatch") for path in (REPOSITORY / "examples").glob(pattern) if path != COMMON
)
PAPER, ONE_GPU, SLURM = "run_qwen2_5_vl_7b_trust_grpo.sh", "run_qwen2_5_vl_3b_one_gpu.sh", "slurm_several_nodes.sbatch"
TRM_URL = "http://trm.cluster:8000/v1"


def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", f"examples/{script}", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )


def programs(folder: Path, **bodies: str) -> str:
    """A PATH on which these programs are shell scripts of these bodies."""
    for name, body in bodies.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
    return f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"


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


@pytest.fixture
def needed(tmp_path: Path) -> dict[str, tuple[str, ...]]:
    """What scripts can't do without beside --dry-run."""
    actor = tmp_path / "run/checkpoints/global_step_2/actor"
    (actor / "huggingface").mkdir(parents=True)
    (actor / "fsdp_config.json").write_text(json.dumps({"world_size": 1}))
    for name in ("config.json", "tokenizer_config.json"):
        (actor / "huggingface" / name).write_text("{}")
    zipfile.ZipFile(actor / "model_world_size_1_rank_0.pt", "w").close()
    return {
        "merge_checkpoint.sh": (str(actor), str(tmp_path / "merged")),
        "serve_trm.sh": ("MODEL", "--max-num-seqs", "8"),
        PAPER: ("trainer.save_freq=7",),
    }


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    script: Path, needed: dict[str, tuple[str, ...]], tmp_path: Path
) -> None:
    before = {*REPOSITORY.iterdir(), *(REPOSITORY / "outputs").glob("*"), *tmp_path.rglob("*")}
    environment = {"VIRTUAL_ENV": sys.prefix, "VENV": sys.prefix, "TRM_URL": TRM_URL, "RUN_DIR": str(tmp_path / "new")}
    done = run(script.name, *needed.get(script.name, ()), "--dry-run", **environment)
    assert done.returncode == 0, done.stderr
    assert re.search(r"The configuration is valid|would|is up to date", done.stdout), done.stdout
    assert "main_sophiavl" in done.stdout or "optimiser step" in done.stdout or "train_rl" not in script.read_text()
    assert {*REPOSITORY.iterdir(), *(REPOSITORY / "outputs").glob("*"), *tmp_path.rglob("*")} == before


@pytest.mark.parametrize("script", [*SCRIPTS, COMMON], ids=lambda path: path.name)
def test_bash_can_read_it(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("flag", ["--dry-run=yes", "--dry-run="])
def test_an_unknown_kind_of_dry_run_is_refused(flag: str) -> None:
    done = run(PAPER, flag)
    assert done.returncode == 1
    assert f"{flag}: give --dry-run or --dry-run=full" in done.stderr


def test_help_may_stand_anywhere() -> None:
    assert "Usage: bash examples/train_trm.sh" in run("train_trm.sh", "trainer.total_epochs=1", "--help").stdout


def test_the_shared_settings_are_in_the_help_of_all_that_read_them() -> None:
    body = COMMON.read_text().partition("\ntrain_rl() {")[2]
    read = set(re.findall(r"\$\{([A-Z_]+):", body))
    assert read >= {"TRAIN_FILES", "MODE", "SERVING", "TRM_PATH", "GPUS", "NODES", "OUT"}
    for script in (PAPER, ONE_GPU):
        told = run(script, "--help").stdout
        assert not {name for name in read if not re.search(rf"^  {name} ", told, re.M)}


def test_the_whole_trm_training_configuration_is_shown() -> None:
    done = run("train_trm.sh", "--dry-run=full", VIRTUAL_ENV=sys.prefix)
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


def configuration(folder: Path, script: str, *arguments: str, **environment: str) -> DictConfig:
    """What the script's command line composes to, checked as a run would; all in this process, which is faster."""
    path = programs(folder, python='[[ "$1" == -c ]] || printf "%s\\n" "$@"')
    done = run(script, *arguments, "--dry-run", VIRTUAL_ENV=sys.prefix, PATH=path, **{"TRM_URL": TRM_URL} | environment)
    assert done.returncode == 0, done.stderr
    overrides = done.stdout.splitlines()[2:]  # after -m recipe.sophiavl.main_sophiavl
    with initialize_config_dir(str(REPOSITORY / "recipe/sophiavl/config"), version_base=None):
        config = compose("sophiavl_trainer", overrides)
    check_config(config, ThinkingRewardSettings.from_config(config.thinking_reward))
    return config


@pytest.mark.parametrize("mode", ["sync", "colocate_async", "separate_async"])
@pytest.mark.parametrize("serving", ["external", "pool", "colocated"])
def test_every_mode_and_place_of_the_trm_is_one_variable(tmp_path: Path, mode: str, serving: str) -> None:
    if (mode, serving) == ("separate_async", "colocated"):  # which verl does not have
        with pytest.raises(SettingsError, match="use serving=pool"):
            configuration(tmp_path, PAPER, MODE=mode, SERVING=serving, TRM_PATH="models/my trm")
        return
    config = configuration(tmp_path, PAPER, MODE=mode, SERVING=serving, TRM_PATH="models/my trm")
    assert config.trainer.v1.trainer_mode == mode
    assert config.thinking_reward.mode == serving
    assert list(config.thinking_reward.urls) == ([TRM_URL] if serving == "external" else [])
    assert config.reward.reward_model.model_path == (None if serving == "external" else "models/my trm")
    assert config.trainer.experiment_name == "qwen2_5_vl_7b_trust_grpo"
    assert config.actor_rollout_ref.model.path == "Qwen/Qwen2.5-VL-7B-Instruct"


@pytest.mark.parametrize(("tune", "rank", "offload"), [("lora", 64, False), ("full", 0, True)])
def test_one_gpu_trains_adapters_or_all_weights(tmp_path: Path, tune: str, rank: int, offload: bool) -> None:
    config = configuration(tmp_path, ONE_GPU, "data.seed=3", TUNE=tune, MODE="colocate_async", NAME="mine")
    actor = config.actor_rollout_ref
    assert (actor.model.lora_rank, actor.actor.fsdp_config.offload_policy) == (rank, offload)
    assert (config.trainer.nnodes, config.trainer.n_gpus_per_node) == (1, 1)
    assert (actor.model.path, config.data.seed) == ("Qwen/Qwen2.5-VL-3B-Instruct", 3)
    assert (config.trainer.v1.trainer_mode, config.run_dir) == ("colocate_async", "outputs/mine")


def test_variables_and_overrides_win_over_presets(tmp_path: Path) -> None:
    given = {"MODEL": "models/my policy", "GPUS": "2", "NODES": "3", "OUT": "outputs/a b", "TRAIN_FILES": "[a,b]"}
    config = configuration(tmp_path, PAPER, "actor_rollout_ref.rollout.n=12", "trainer.n_gpus_per_node=4", **given)
    assert config.actor_rollout_ref.model.path == "models/my policy"
    assert (config.trainer.nnodes, config.trainer.n_gpus_per_node) == (3, 4)
    assert (config.actor_rollout_ref.rollout.n, list(config.data.train_files)) == (12, ["a", "b"])
    assert config.run_dir == "outputs/a b"


@pytest.mark.parametrize(
    ("script", "environment", "says"),
    [
        (PAPER, {"MODE": "async"}, "MODE=async: give sync, colocate_async or separate_async"),
        (PAPER, {"SERVING": "own"}, "SERVING=own: give external, pool or colocated"),
        (PAPER, {"SERVING": "pool"}, "SERVING=pool: set TRM_PATH"),
        (ONE_GPU, {"TUNE": "qlora"}, "TUNE=qlora: give lora or full"),
        (ONE_GPU, {"MODE": "separate_async"}, "MODE=separate_async: it takes two GPUs"),
        (ONE_GPU, {"SERVING": "pool", "TRM_PATH": "trm"}, "SERVING=pool: it takes a second GPU"),
        (SLURM, {"SCRIPT": "none.sh"}, "SCRIPT=none.sh does not exist"),
        (SLURM, {"API_KEY_FILE": "none"}, "API_KEY_FILE=none can't be read"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value),
)
def test_a_wrong_variable_is_named(script: str, environment: dict[str, str], says: str) -> None:
    done = run(script, "--dry-run", VIRTUAL_ENV=sys.prefix, **environment)
    assert done.returncode == 1
    assert says in done.stderr


def test_a_trm_of_this_machine_alone_is_refused_for_several_nodes() -> None:
    done = run(PAPER, "--dry-run", VIRTUAL_ENV=sys.prefix, NODES="2")
    assert done.returncode == 1
    assert "thinking_reward.urls holds http://127.0.0.1:8000/v1, and trainer.nnodes=2" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    """A Slurm job of three nodes, as far as a script sees it: what each program is started with goes into a file."""
    note = f'echo "$(basename "$0") $*" >>{tmp_path}/started; env >{tmp_path}/env-$(basename "$0")'
    path = programs(
        tmp_path,
        scontrol='printf "node%s\\n" 1 2 3',
        srun=f'{note}; while [[ $1 == --* ]]; do shift; done; exec "$@"',
        ray=f"trap 'echo ray stopped >>{tmp_path}/started; exit' TERM; {note}; while :; do sleep 0.1; done",
        hostname="echo 10.0.0.1 fe80::1",
        python='[[ "$1" == -c ]] || cat >/dev/null',
    )
    both = f"until [[ $(grep -c '^ray start' {tmp_path}/started) == 2 ]]; do sleep 0.1; done"
    (tmp_path / "train.sh").write_text(f'{note}; {both}; exit "${{STATUS:-0}}"')
    (tmp_path / "key").write_text("s3cret\n")
    return {
        "PATH": path,
        "VIRTUAL_ENV": sys.prefix,
        "SLURM_JOB_ID": "12345",
        "SLURM_JOB_NUM_NODES": "3",
        "SLURM_JOB_NODELIST": "node[1-3]",
        "SLURM_CPUS_PER_TASK": "64",
        "SLURM_SUBMIT_DIR": str(REPOSITORY),
        "SCRIPT": str(tmp_path / "train.sh"),
        "API_KEY_FILE": str(tmp_path / "key"),
    }


@pytest.mark.parametrize("status", ["0", "7"])
def test_a_slurm_job_starts_ray_on_all_nodes_and_leaves_nothing(
    job: dict[str, str], tmp_path: Path, status: str
) -> None:
    done = run(SLURM, "data.seed=3", STATUS=status, **job)
    assert done.returncode == int(status), done.stderr
    started = (tmp_path / "started").read_text().splitlines()
    head, others = "--nodes=1 --ntasks=1 --overlap --nodelist=node1", "--nodes=2 --ntasks=2 --overlap --exclude=node1"
    at_head = "ray start --head --node-ip-address=10.0.0.1 --port=22345 --block"
    assert f"srun {head} {at_head}" in started
    assert f"srun {others} ray start --address=10.0.0.1:22345 --block" in started
    assert at_head in started
    assert "train.sh data.seed=3" in started
    assert started.count("ray stopped") == 2
    told = (tmp_path / "env-train.sh").read_text().splitlines()
    assert {"RAY_ADDRESS=10.0.0.1:22345", "NODES=3", "TRM_API_KEY=s3cret"} <= set(told)
    assert "SRUN_CPUS_PER_TASK=64" in (tmp_path / "env-srun").read_text().splitlines()
    tokens = {
        line
        for file in ("env-ray", "env-train.sh")
        for line in (tmp_path / file).read_text().splitlines()
        if "TOKEN=" in line
    }
    assert len(tokens) == 1, "Ray's nodes and its driver have one token"
    assert re.fullmatch(r"RAY_AUTH_TOKEN=[0-9a-f]{64}", tokens.pop())
    for file in ("started", "env-srun", "env-ray"):
        assert "s3cret" not in (tmp_path / file).read_text()
    assert "s3cret" not in done.stdout + done.stderr


def test_outside_of_a_job_nothing_is_started(job: dict[str, str], tmp_path: Path) -> None:
    done = run(SLURM, **job | {"SLURM_JOB_ID": ""})
    assert done.returncode == 1
    assert "not in a Slurm job" in done.stderr
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize(("cores", "servers"), [(2, 1), (32, 4), (192, 8)])
def test_a_served_trm_reads_requests_in_several_processes(tmp_path, cores, servers):
    path = programs(tmp_path, vllm='echo "vllm $*"', nproc=f"echo {cores}")
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
