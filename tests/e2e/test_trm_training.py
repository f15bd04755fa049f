"""The thinking reward model's SFT as a user starts it: verl's trainer on scored reasoning, with and without images."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from data_preprocess.easy_vqa import load_images
from data_preprocess.schema import THINKING_SCHEMA, thinking_row
from recipe.sophiavl.report import load_metrics
from testbed.training import REPOSITORY

pytestmark = pytest.mark.e2e

MODEL = REPOSITORY / "examples/quickstart/models/policy"
BATCH = 8
LIMIT_S = 300


def scored_rows() -> list[dict]:
    """Four batches: images beside text-only rows; the loader shuffles, so micro-batches of either kind alone occur."""
    chance = random.Random(0)
    images = load_images("train")[:64]
    rows = []
    for i in range(4 * BATCH):
        image = chance.choice(images)
        right = chance.random() < 0.5
        claimed = image.color if right else "purple"
        rows.append(
            thinking_row(
                data_source="easy_vqa" if i % 2 else "text_only",
                question="what color is it?" if i % 2 else "how many are two?",
                thinking=f"The image shows a {claimed} {image.shape}." if i % 2 else "Two are 2.",
                score=float(right) if i % 2 else 0.9,
                split="train",
                index=i,
                images=[image.path.read_bytes()] if i % 2 else [],
            )
        )
    return rows


def train(folder: Path, *overrides: str) -> None:
    """Run the launch script."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "VIRTUAL_ENV": sys.prefix,
        "HF_HUB_OFFLINE": "1",
        "TRAIN_FILES": str(folder / "train-*.parquet"),
        "MODEL": str(MODEL),
        "PROMPT": "examples/quickstart/trm_prompt.yaml",
        "GPUS": "1",
        "OUT": str(folder / "out"),
    }
    done = subprocess.run(
        [
            *("bash", "examples/train_trm.sh", "trm_platform=cpu", "trm_preset=quickstart", "data.target=score"),
            # micro-batches of 2: some hold no image at all
            *(f"data.train_batch_size={BATCH}", "data.micro_batch_size_per_gpu=2", f"hydra.run.dir={folder}/hydra"),
            *overrides,
        ],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stdout[-5000:]


def write_shards(folder: Path) -> None:
    """The scored rows in two files."""
    table = pa.Table.from_pylist(scored_rows(), schema=THINKING_SCHEMA)
    half = len(table) // 2
    for shard, part in enumerate((table[:half], table[half:])):
        pq.write_table(part, folder / f"train-{shard:05}.parquet")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 4 steps, stopped at the end of an epoch, and continued to 8."""
    folder = tmp_path_factory.mktemp("trm_sft")
    write_shards(folder)
    for steps in (4, 8):
        train(folder, "trm.freeze_vision=false", "trainer.total_epochs=2", f"trainer.total_training_steps={steps}")
    return folder / "out"


def changed_parameters(out: Path) -> set[str]:
    """Names of the parameters that the newest checkpoint has other than the model which the training began with."""
    newest = (out / "checkpoints/latest_checkpointed_iteration.txt").read_text().strip()
    folder = out / f"checkpoints/global_step_{newest}/huggingface"
    assert AutoProcessor.from_pretrained(folder).image_processor.patch_size == 14
    model, start = (Qwen2_5_VLForConditionalGeneration.from_pretrained(path).float() for path in (folder, MODEL))
    return {
        name
        for (name, after), before in zip(model.state_dict().items(), start.state_dict().values(), strict=True)
        if not torch.equal(after, before)
    }


def test_the_second_run_goes_on_where_the_first_stopped(trained: Path) -> None:
    runs = [load_metrics([file]) for file in sorted(trained.glob("metrics*.jsonl"))]
    assert [sorted(steps) for steps in runs] == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_the_loss_falls_over_both_runs(trained: Path) -> None:
    steps = load_metrics(sorted(trained.glob("metrics*.jsonl")))
    losses = [data["train/loss"] for _, data in sorted(steps.items())]
    assert len(losses) == 8
    assert losses[-1] < losses[0] / 2


def test_the_checkpoint_is_a_model_that_can_be_served(trained: Path) -> None:
    changed = changed_parameters(trained)
    assert any("visual" in name for name in changed)
    assert any("language_model" in name for name in changed)


def test_a_frozen_vision_encoder_stays_as_it_is_over_a_resume(tmp_path: Path) -> None:
    write_shards(tmp_path)
    for steps in (2, 4):
        train(tmp_path, "trm.freeze_vision=true", "trainer.total_epochs=1", f"trainer.total_training_steps={steps}")
    changed = changed_parameters(tmp_path / "out")
    assert not any("visual" in name for name in changed)
    assert any("language_model" in name for name in changed)
