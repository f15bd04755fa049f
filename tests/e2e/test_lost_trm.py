"""The TRM goes away in the middle of a run: no score is invented, and the run stops with a checkpoint and says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.training import TrainingRun, batches
from tests.support.lying_trm import LyingProxy

pytestmark = pytest.mark.e2e

WINDOW = 2


def test_run_stops_after_a_checkpoint_when_the_trm_is_lost(
    tmp_path: Path, data_files: dict[str, Path], lying_trm: LyingProxy
) -> None:
    run = TrainingRun(
        tmp_path,
        f"data.train_files={data_files['train']}",
        f"data.val_files={data_files['val']}",
        *batches(prompts=4, responses=4),
        f"thinking_reward.urls=[{lying_trm.url}]",
        f"thinking_reward.missing_window_steps={WINDOW}",
        "thinking_reward.timeout_s=7",
        "thinking_reward.deadline_s=8",
        "trainer.total_training_steps=100",
        "trainer.val_before_train=false",
        "trainer.test_freq=-1",
        "trainer.save_freq=-1",
    ).start()
    try:
        run.wait_for(run.folder / "rollouts/1.jsonl")
        lying_trm.available = False
        assert run.wait() != 0
    finally:
        lying_trm.available = True
        run.kill()

    log = run.log.read_text()
    assert "thinking_reward.max_missing_frac=0.5" in log
    assert "trainer.resume_mode=auto" in log
    steps = run.metrics()
    lost = [step for step, data in steps.items() if data["thinking_reward/coverage"] == 0]
    assert lost
    assert steps[lost[0]]["trust/used_frac"] == 0
    for row in run.rollouts(lost[0]):
        assert row["score"] == pytest.approx(row["outcome_reward"]), "a missing score is no score"
        assert not row["thinking_asked"] or row["thinking_reward"] is None
    saved = int((run.folder / "checkpoints/latest_checkpointed_iteration.txt").read_text())
    assert saved == max(steps), "the last step is logged, dumped and saved"
    assert lost[0] <= saved < lost[0] + WINDOW
