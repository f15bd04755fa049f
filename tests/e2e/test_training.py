"""A short real run: verl, Ray, FSDP, vLLM rollouts, and a TRM that lies.

In its first step the TRM's server is killed and started again; after its checkpoint it loses a worker, and is resumed;
after step 4 the TRM is lost for good: no score is invented, and the run stops with a checkpoint and says why."""

from __future__ import annotations

import json
import math
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from testbed.training import TrainingRun, batches
from testbed.vllm_server import VllmServer
from tests.support.lying_trm import LyingProxy

pytestmark = pytest.mark.e2e

STEPS = 4  # those with a TRM
TOTAL_STEPS = 12
WINDOW = 2
GROUP_SIZE = 8  # with 4, a run in which no group happened to be distrusted came up
PROMPTS = 8
CORRELATION = "training/rollout_actor_probs_pearson_corr"


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, data_files: dict[str, Path], trm: VllmServer, lying_trm: LyingProxy
) -> TrainingRun:
    """Two starts. The first loses its agent loop worker after step 2, which saves a checkpoint; the TRM's server is
    killed as soon as it has been asked for the first step, and started again. The second loses its TRM after STEPS
    steps."""
    training = TrainingRun(
        tmp_path_factory.mktemp("run"),
        f"data.train_files={data_files['train']}",
        # every question twice: of one policy, greedy answers are alike and sampled ones are not
        f"data.val_files=[{data_files['val']},{data_files['val']}]",
        "sophiavl.validation_modes=[sampled,greedy]",
        *batches(PROMPTS, GROUP_SIZE),
        # large steps, so that stale rollout weights would show; 2e-3 wrecked the policy, which then wrote no format
        "actor_rollout_ref.actor.optim.lr=1e-3",
        f"thinking_reward.urls=[{lying_trm.url}]",
        f"thinking_reward.missing_window_steps={WINDOW}",
        f"trainer.total_training_steps={TOTAL_STEPS}",
        "trainer.save_freq=2",
        f"trainer.test_freq={STEPS}",
        "trainer.logger=[console,file,tensorboard]",
        "sophiavl.log_groups_freq=1",
    )
    try:
        training.start()
        training.wait_for(training.folder / "metrics-001.jsonl", '"step":0,')
        trm.kill()
        wait_until(lambda: lying_trm.refused > 0)
        trm.start()
        training.wait_for(training.folder / "metrics-001.jsonl", '"step":2,')
        assert (training.folder / "checkpoints/latest_checkpointed_iteration.txt").read_text() == "2"
        asked = lying_trm.asked
        wait_until(lambda: lying_trm.asked > asked)  # it makes the responses of step 3
        training.kill_worker("AgentLoopWorker")
        assert training.wait() != 0
        training.start("thinking_reward.timeout_s=7", "thinking_reward.deadline_s=8")
        training.wait_for(training.folder / "metrics-002.jsonl", f'"step":{STEPS},')
        lying_trm.available = False
        assert training.wait() != 0
    finally:
        lying_trm.available = True
        training.kill()
    return training


def wait_until(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + 120
    while not true():
        assert time.monotonic() < limit, "nobody asked the TRM"
        time.sleep(0.1)


def by_group(rows: Iterable[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    groups = defaultdict(list)
    for row in rows:
        groups[row["group"]].append(row)
    return list(groups.values())


def mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)


def complete(group: list[Mapping[str, Any]]) -> bool:
    """Whether every response has its score; else ``on_missing: drop_group`` leaves the group its outcome rewards."""
    return all(row["thinking_reward"] is not None for row in group)


def equation_3(group: list[Mapping[str, Any]]) -> float:
    scored = [row for row in group if row["format_ok"]]
    correct = [row["thinking_reward"] for row in scored if row["outcome_reward"] >= 0.5]
    wrong = [row["thinking_reward"] for row in scored if row["outcome_reward"] < 0.5]
    if not correct or not wrong or mean(correct) >= mean(wrong):
        return 1.0
    return math.exp(mean(correct) - mean(wrong))


def assert_equation_5(rows: list[Mapping[str, Any]], step: int, total_steps: int) -> float:
    """The dumped rewards of a step are Eq. 5 of their parts; returns the lowest gamma."""
    lowest = 1.0
    for group in by_group(rows):
        gamma = equation_3(group) if complete(group) else 0.0
        if gamma:
            lowest = min(lowest, gamma)
        for row in group:
            term = gamma * 0.3 * math.exp(-step / total_steps) * (row["thinking_reward"] or 0.0)
            assert row["thinking_used"] == complete(group)
            assert not complete(group) or row["gamma"] == pytest.approx(gamma)
            assert row["score"] == pytest.approx(row["outcome_reward"] + term, abs=1e-5)
            assert row["thinking_asked"] == row["format_ok"]
    return lowest


def test_dumped_rewards_are_equation_5_at_every_step(run: TrainingRun) -> None:
    lowest = []
    for step in range(1, STEPS + 1):
        rows = run.rollouts(step)
        assert len(rows) == PROMPTS * GROUP_SIZE
        assert {len(group) for group in by_group(rows)} == {GROUP_SIZE}
        lowest.append(assert_equation_5(rows, step, TOTAL_STEPS))
    assert min(lowest) < 1.0, "a TRM that lies must be distrusted somewhere"


def test_a_trm_that_is_killed_and_started_again_costs_no_score(run: TrainingRun, lying_trm: LyingProxy) -> None:
    assert lying_trm.refused > 0
    for step in range(1, STEPS + 1):
        lost = {row["thinking_error"] for row in run.rollouts(step) if row["thinking_reward"] is None}
        assert lost <= {"unparsable"}, "the tiny TRM may write something else than a score, but none is lost"
    assert any(row["thinking_requests"] > 1 for row in run.rollouts(1))


def test_a_run_that_loses_a_worker_ends_and_says_so(run: TrainingRun) -> None:
    """verl would wait for the responses of step 3 for ever."""
    log = run.log.read_text()
    assert "WorkerLostError: agent loop worker 0 is gone" in log
    assert "goes on from the last checkpoint" in log


def test_the_batch_that_was_trained_on_has_these_rewards(run: TrainingRun) -> None:
    """verl computes critic/rewards from the tensors that it trains on."""
    for step in range(1, STEPS + 1):
        scores = [row["score"] for row in run.rollouts(step)]
        logged = run.metrics()[step]
        assert logged["critic/rewards/mean"] == pytest.approx(mean(scores), abs=1e-5)
        assert logged["critic/rewards/max"] == pytest.approx(max(scores), abs=1e-5)
        assert logged["critic/rewards/min"] == pytest.approx(min(scores), abs=1e-5)


def test_annealing_follows_the_global_step_through_the_resume(run: TrainingRun) -> None:
    metrics = run.metrics()
    trained = [step for step in metrics if "reward/mean" in metrics[step]]
    assert trained == list(range(1, max(metrics) + 1))
    second_start = (run.folder / "metrics-002.jsonl").read_text()
    assert '"training/global_step":3' in second_start
    assert '"training/global_step":2' not in second_start, "the resumed run must not train step 2 again"
    for step in range(1, STEPS + 1):
        assert metrics[step]["thinking_reward/anneal"] == pytest.approx(math.exp(-step / TOTAL_STEPS))


def test_the_rollout_server_has_the_trained_weights(run: TrainingRun) -> None:
    """The actor moved away from the reference, and the rollout's probabilities moved with it."""
    metrics = run.metrics()
    for step in range(1, STEPS + 1):
        assert metrics[step][CORRELATION] > 0.99
    assert metrics[STEPS]["actor/kl_loss"] > 10 * max(metrics[1]["actor/kl_loss"], 1e-6)


def test_components_are_logged(run: TrainingRun) -> None:
    for step in range(1, STEPS + 1):
        logged, rows = run.metrics()[step], run.rollouts(step)
        groups = [group for group in by_group(rows) if complete(group)]
        scores = [row["thinking_reward"] for row in rows if row["thinking_reward"] is not None]
        asked = [row for row in rows if row["thinking_asked"]]
        assert logged["outcome_reward/mean"] == pytest.approx(mean(row["outcome_reward"] for row in rows))
        assert logged["thinking_reward/mean"] == pytest.approx(mean(scores))
        assert logged["trust/gamma_mean"] == pytest.approx(mean(map(equation_3, groups)))
        assert logged["trust/distrusted_frac"] == pytest.approx(mean(equation_3(group) < 1 for group in groups))
        missing = sum(row["thinking_reward"] is None for row in asked)
        assert logged["thinking_reward/coverage"] == pytest.approx(1 - missing / len(asked))
        assert 0 < logged["thinking_reward/latency_p50"] <= logged["thinking_reward/latency_p95"]


@pytest.mark.parametrize("mode", ["sampled", "greedy"])
def test_validation_is_scored_by_outcome_alone(run: TrainingRun, mode: str) -> None:
    for step in (0, STEPS):
        rows = run.validations(step, mode)
        assert rows
        assert all(row["score"] == pytest.approx(row["outcome_reward"]) for row in rows)
        logged = run.metrics()[step][f"validation/{mode}/outcome_reward/mean"]
        assert logged == pytest.approx(mean(row["outcome_reward"] for row in rows))
        section = "val-core" if mode == "sampled" else "val-core-greedy"
        assert any(name.startswith(f"{section}/") for name in run.metrics()[step])


def test_greedy_validation_gives_a_question_the_same_answer_twice_and_sampled_does_not(run: TrainingRun) -> None:
    alike = {}
    for mode in ("sampled", "greedy"):
        answers = defaultdict(list)
        for step in (0, STEPS):
            for row in run.validations(step, mode):
                assert row["validation_mode"] == mode
                answers[step, row["data_source"], row["index"]].append(row["output"])
        assert {len(given) for given in answers.values()} == {2}
        alike[mode] = mean(len(set(given)) == 1 for given in answers.values())
    assert alike["greedy"] > 0.9, "but for rounding, which depends on what else is in a batch"
    assert alike["sampled"] < 0.9


def test_the_preset_asks_the_trm_for_validation_responses_too(run: TrainingRun) -> None:
    assert any(row["thinking_asked"] and row["thinking_reward"] for row in run.validations(0, "sampled"))


def test_text_only_rows_train_beside_images(run: TrainingRun) -> None:
    questions = [row["input"] for step in range(1, STEPS + 1) for row in run.rollouts(step)]
    text_only = [question for question in questions if "how many shapes are" in question]
    assert 0 < len(text_only) < len(questions)


def test_the_run_stops_after_a_checkpoint_when_the_trm_is_lost(run: TrainingRun) -> None:
    log, steps = run.log.read_text(), run.metrics()
    # which of the two windows is full first is chance: the TRM leaves out a score now and then before it is lost
    assert re.search(r"more than thinking_reward\.max_(missing|dropped_groups)_frac=0\.5 allows", log)
    assert "trainer.resume_mode=auto" in log
    lost = [step for step, data in steps.items() if data.get("thinking_reward/coverage") == 0]
    assert lost
    rows = run.rollouts(lost[0])
    for group in by_group(rows):
        asked = any(row["thinking_asked"] for row in group)  # a group without the format has its 0 by rule
        for row in group:
            assert row["thinking_used"] == (not asked)
            assert row["score"] == pytest.approx(row["outcome_reward"]), "a missing score is no score"
            assert not row["thinking_asked"] or row["thinking_reward"] is None
    assert steps[lost[0]]["trust/used_frac"] == pytest.approx(mean(row["thinking_used"] for row in rows))
    saved = int((run.folder / "checkpoints/latest_checkpointed_iteration.txt").read_text())
    assert saved == max(steps), "the last step is logged, dumped and saved"
    assert lost[0] <= saved < lost[0] + WINDOW


def test_the_folder_holds_all_of_the_run(run: TrainingRun) -> None:
    names = {"config.yaml", "run.json", "train.log", "rollouts", "validation", "checkpoints"}
    assert names | {"metrics-001.jsonl", "metrics-002.jsonl"} <= {path.name for path in run.folder.iterdir()}
    starts = json.loads((run.folder / "run.json").read_text())["starts"]
    assert [Path(start["metrics"]).name for start in starts] == ["metrics-001.jsonl", "metrics-002.jsonl"]


def test_another_experiment_leaves_the_run_byte_for_byte(run: TrainingRun) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file() and path != run.log}

    before = content()
    earlier = len(run.log.read_text())
    assert run.start("thinking_reward=no_trust").wait() == 1
    said = run.log.read_text()[earlier:]
    assert ["thinking_reward.trust", "true", "false"] in [line.split() for line in said.splitlines()]
    assert content() == before


def test_tensorboard_holds_the_metrics_and_a_sample_of_groups(run: TrainingRun) -> None:
    events = EventAccumulator(str(run.folder / "tensorboard"), size_guidance={"tensors": 0, "scalars": 0, "images": 0})
    events.Reload()
    held = {event.step: event.value for event in events.Scalars("outcome_reward/mean")}
    logged = {step: row["outcome_reward/mean"] for step, row in run.metrics().items() if "outcome_reward/mean" in row}
    assert len(logged) >= STEPS
    assert held == pytest.approx(logged, rel=1e-5)
    assert {event.step for event in events.Tensors("groups/1/text_summary")} >= {1, STEPS}
    assert events.Tags()["images"], "what the questions show"
