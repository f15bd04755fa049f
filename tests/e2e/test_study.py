"""A study's smoke run: two variants, two seeds, few steps, all on one real engine; then its analysis."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from recipe.sophiavl.report import load_metrics
from recipe.sophiavl.run_folder import METRICS_PATTERN
from testbed.training import REPOSITORY, batches

pytestmark = pytest.mark.e2e

STEPS = 2
VARIANTS = {"default": ["thinking_reward=default"], "gdpo": ["thinking_reward=gdpo"]}
CELLS = [f"{variant}.oracle.{seed}" for seed in (1, 2) for variant in VARIANTS]


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "recipe.sophiavl.study", *map(str, arguments)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(words, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, data_files: dict[str, Path]) -> Path:
    """Of a study whose runs are made: ``results`` and ``runs`` are in it."""
    folder = tmp_path_factory.mktemp("study")
    for split, file in data_files.items():  # without the questions that have no picture, which the oracle does not know
        pq.write_table(pq.read_table(file, filters=[("data_source", "==", "easy_vqa")]), folder / f"{split}.parquet")
    given = {
        "settings": [
            *("platform=cpu", "preset=quickstart", "trainer.val_before_train=false", "trainer.save_freq=-1"),
            f"data.train_files={folder / 'train.parquet'}",
            f"data.val_files={folder / 'val.parquet'}",
            *batches(4, 8),
            # so large that a policy which is not put back to its start shows
            "actor_rollout_ref.actor.optim.lr=1e-3",
            *(f"trainer.total_training_steps={STEPS}", f"trainer.test_freq={STEPS}"),
            *("sophiavl.validation_modes=[greedy,sampled]", "thinking_reward.preflight=false"),
        ],
        "variants": VARIANTS,
        "reward_models": {"oracle": f"{sys.executable} examples/study/reward_models.py oracle --port {{port}}"},
        "judge": "examples.study.oracle:assess",
        "grid": [{"variants": list(VARIANTS), "reward_models": ["oracle"], "seeds": 2}],
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(given))
    where = ("--results", folder / "results", "--runs", folder / "runs", "--workers", 1)
    done = command("run", folder / "study.yaml", *where)
    logs = "\n".join(file.read_text(errors="replace")[-4000:] for file in (folder / "runs").glob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    return folder


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"results/{name}.jsonl").read_text().splitlines()]


def test_every_run_has_a_result_and_its_rewards_follow_from_their_parts(folder: Path) -> None:
    assert {file.stem for file in (folder / "results").glob("*.jsonl")} == {"start.none.0", *CELLS}
    for cell in CELLS:
        head, *rest = lines(folder, cell)
        assert head["checks"]["responses"] == 32 * STEPS
        assert head["checks"]["largest_reward_error"] < 1e-6
        assert head["checks"]["lowest_rollout_correlation"] > 0.95
        assert [line["kind"] for line in rest] == ["step"] * STEPS + ["validation"] * 2
        assert all(0 < line["oracle"] < 1 for line in rest if line["kind"] == "step")
        # the reward model is the oracle itself
        assert [line["thinking"] for line in rest] == pytest.approx([line["oracle"] for line in rest])


def test_they_shared_one_engine(folder: Path) -> None:
    assert (folder / "runs/worker-0.log").read_text().count("Started a local Ray instance") == 1


def test_each_run_begins_with_the_untrained_policy_and_a_whole_schedule(folder: Path) -> None:
    for cell in CELLS:
        steps = load_metrics(sorted((folder / "runs" / cell).glob(METRICS_PATTERN)))
        assert abs(steps[1]["actor/kl_loss"]) < 1e-4 < steps[2]["actor/kl_loss"], "at its start it is the reference"
        assert [steps[step]["actor/lr"] for step in (1, 2)] == pytest.approx([5e-4, 0.0]), "a cosine over two steps"


def test_the_seed_decides_which_questions_come(folder: Path) -> None:
    def asked(cell: str) -> list[int]:
        rows = (folder / "runs" / cell / "rollouts/1.jsonl").read_text().splitlines()
        return sorted({json.loads(row)["index"] for row in rows})

    assert asked("default.oracle.1") == asked("gdpo.oracle.1") != asked("default.oracle.2")


def test_the_results_are_analysed(folder: Path) -> None:
    done = command("analyse", folder / "results", "--out", folder / "out")
    assert done.returncode == 0, done.stderr
    told = (folder / "out/results.md").read_text()
    assert "gdpo" in told
    assert "default" in told
    assert list((folder / "out").glob("*.svg"))


def test_nothing_is_made_again(folder: Path) -> None:
    done = command("run", folder / "study.yaml", "--results", folder / "results", "--runs", folder / "runs")
    assert done.returncode == 0
    assert "0 runs made, 0 failed, 0 left" in done.stdout
