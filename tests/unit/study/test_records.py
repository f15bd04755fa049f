"""What a study keeps of a run, from a folder like those that runs leave."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import DictConfig

from recipe.sophiavl.study import records
from recipe.sophiavl.study.grid import Cell, load_study
from recipe.sophiavl.study.run_config import run_config

STUDY = Path(__file__).parents[3] / "examples/study/study.yaml"
CELL = Cell("default", "oracle", 1)
STEPS = 12
IMAGE = b"an image"
# (outcome, the reward model's score, what it thinks): two groups, one of which is distrusted
GROUPS = {
    "g0": [(1.0, 0.9, "good"), (0.0, 0.2, "bad")],
    "g1": [(1.0, 0.3, "good"), (0.0, 0.8, "bad"), (0.0, 0.0, None)],
}
TRUTH = {"good": 0.8, "bad": 0.1}


class Verdict(NamedTuple):
    score: float
    form: str


def judge(question: str, images: Sequence[bytes], thinking: str) -> Verdict:
    assert question == "how many?\nA. one"
    assert images == [IMAGE]
    return Verdict(TRUTH[thinking], "short")


def row(group: str, number: int, step: int, outcome: float, thinking: float, text: str | None) -> dict[str, Any]:
    """With the reward of Eq. 5, written out for these two groups."""
    gamma = {"g0": 1.0, "g1": math.exp(0.3 - 0.8)}[group]
    return {
        "output": f"<think>{text}</think><answer>A</answer>" if text else "A",
        "score": outcome + gamma * 0.3 * math.exp(-step / STEPS) * thinking,
        "group": group,
        "data_source": "easy",
        "split": "train",
        "index": int(group[1]),
        "outcome_reward": outcome,
        "thinking_reward": thinking,
        "thinking_asked": text is not None,
        "gamma": gamma,
        "mu_correct": {"g0": 0.9, "g1": 0.3}[group],
        "mu_wrong": {"g0": 0.2, "g1": 0.8}[group],
        "format_ok": text is not None,
        "problem_type": "numerical" if group == "g0" else "free-form",
        "number": number,
    }


def dump(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(one) + "\n" for one in rows))


@pytest.fixture
def config(tmp_path: Path) -> DictConfig:
    """Of a finished run, whose folder is made."""
    run_dir = tmp_path / "run"
    for step in range(1, STEPS + 1):
        rows = [row(name, n, step, *one) for name, group in GROUPS.items() for n, one in enumerate(group)]
        dump(run_dir / f"rollouts/{step}.jsonl", [*rows, {"group": None, "outcome_reward": None}])
    logged = {"training/rollout_actor_probs_pearson_corr": 0.999, "actor/entropy": 0.5, "trust/gamma_mean": 0.8}
    metrics = [{"step": step, "data": {**logged, "actor/kl_loss": step / 10}} for step in range(1, STEPS + 1)]
    dump(run_dir / "metrics-001.jsonl", metrics)
    for folder in ("validation", "validation/sampled"):
        rows = [row(name, 0, 0, *group[0]) for name, group in reversed(GROUPS.items())]
        dump(run_dir / f"{folder}/{STEPS}.jsonl", rows)
    config = run_config(load_study(STUDY), CELL, run_dir, "http://127.0.0.1:8000/v1")
    config.data.train_batch_size, config.actor_rollout_ref.rollout.n = 1, 5
    pq.write_table(pa.table({"question": ["one", "another"]}), tmp_path / "val.parquet")
    config.data.val_files = str(tmp_path / "val.parquet")
    return config


QUESTIONS = {("easy", "train", number): records.Asked("how many?\nA. one", [IMAGE]) for number in (0, 1)}


def recorded(config: DictConfig) -> list[dict[str, Any]]:
    return records.record(CELL, config, QUESTIONS, judge, told={"commit": "abc"})


def change(config: DictConfig, name: str, number: int, **values: Any) -> None:
    """Change one row of a dump of the run."""
    file = Path(config.run_dir) / name
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[number] |= values
    dump(file, rows)


def test_a_run_becomes_a_line_for_itself_one_for_each_step_and_one_for_each_validation(config: DictConfig) -> None:
    head, *lines = recorded(config)
    assert (head["variant"], head["seed"]) == ("default", 1)
    assert (head["commit"], head["steps"]) == ("abc", STEPS)
    assert head["checks"]["responses"] == 5 * STEPS
    assert head["checks"]["largest_reward_error"] < 1e-12
    assert head["checks"]["lowest_rollout_correlation"] == 0.999
    assert head["checks"]["missing_scores"] == 0
    assert [line["kind"] for line in lines] == ["step"] * STEPS + ["validation"] * 2
    assert [line["mode"] for line in lines[-2:]] == ["greedy", "sampled"]
    assert [line["kl"] for line in lines[:STEPS]] == [step / 10 for step in range(1, STEPS + 1)]
    assert lines[0]["anneal"] is None, "not logged here"


def test_the_figures_of_a_step(config: DictConfig) -> None:
    step = recorded(config)[1]
    assert step["outcome"] == pytest.approx(2 / 5)
    assert step["thinking"] == pytest.approx((0.9 + 0.2 + 0.3 + 0.8 + 0.0) / 5)
    assert step["oracle"] == pytest.approx((0.8 + 0.1 + 0.8 + 0.1 + 0.0) / 5), "without the format it is worth nothing"
    assert step["hacked"] == pytest.approx(1 / 4), "0.8 where the truth is 0.1, of those that were asked about"
    assert step["gamma_mixed"] == pytest.approx((1 + math.exp(-0.5)) / 2)
    assert step["format"] == pytest.approx(4 / 5)
    assert step["forms"] == {"none": pytest.approx(1 / 5), "short": pytest.approx(4 / 5)}
    assert step["auc_oracle"] == 1.0
    # of 2 x 2 pairs of a right and a wrong one, 0.9 beats both and 0.3 one
    assert step["auc_thinking"] == pytest.approx(3 / 4)


def test_a_validation_keeps_each_question_in_the_order_of_the_data(config: DictConfig) -> None:
    change(config, f"validation/{STEPS}.jsonl", 0, outcome_reward=0.4)  # of g1, which was dumped first
    greedy = recorded(config)[-2]
    assert greedy["right"] == "10"
    assert greedy["oracle_scores"] == "88"
    assert greedy["by_type"] == {"free-form": 0.4, "numerical": 1.0}
    assert greedy["questions"] == 2


def test_without_a_reward_model_there_is_no_thinking_and_no_hacking(config: DictConfig) -> None:
    config.thinking_reward.enable = False
    for step in range(1, STEPS + 1):
        for number, (outcome, *_) in enumerate(one for group in GROUPS.values() for one in group):
            nothing = dict.fromkeys(("thinking_reward", "gamma", "mu_correct", "mu_wrong"))
            change(config, f"rollouts/{step}.jsonl", number, **nothing, thinking_asked=False, score=outcome)
    step = recorded(config)[1]
    assert {step[name] for name in ("thinking", "hacked", "auc_thinking", "gamma_mixed")} == {None}
    assert step["oracle"] == pytest.approx(1.8 / 5)


def test_a_reward_that_does_not_follow_from_its_parts_is_not_counted(config: DictConfig) -> None:
    change(config, "rollouts/7.jsonl", 3, score=0.1)
    with pytest.raises(records.RecordError, match="step 7: a reward in the dump is 0"):
        recorded(config)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nor_is_one_that_is_no_number(config: DictConfig, value: float) -> None:
    change(config, "rollouts/7.jsonl", 3, score=value)
    with pytest.raises(records.RecordError, match="step 7"):
        recorded(config)


def test_the_trust_of_groups_with_one_side_is_no_trust(config: DictConfig) -> None:
    for number in (0, 1):
        change(config, "rollouts/1.jsonl", number, mu_wrong=None)
    assert recorded(config)[1]["gamma_mixed"] == pytest.approx(math.exp(-0.5))


def test_a_reward_model_that_was_not_there_all_the_time_is_told(config: DictConfig) -> None:
    # its group lost its thinking term, so the rewards are what they should be
    for number, outcome in enumerate((1.0, 0.0)):
        change(config, "rollouts/7.jsonl", number, thinking_reward=None, score=outcome)
    with pytest.raises(records.RecordError, match="2 of 48 scores are missing"):
        recorded(config)


def test_a_response_that_was_lost_is_told(config: DictConfig) -> None:
    change(config, "rollouts/7.jsonl", 4, outcome_reward=None)
    with pytest.raises(records.RecordError, match=r"7\.jsonl has 4 responses, and a step 5"):
        recorded(config)


def test_a_question_that_a_validation_lost_is_told(config: DictConfig) -> None:
    change(config, f"validation/{STEPS}.jsonl", 1, outcome_reward=None)
    with pytest.raises(records.RecordError, match="has 1 questions, and the data 2"):
        recorded(config)


@pytest.mark.parametrize("value", [0.5, math.nan])
def test_a_rollout_unlike_the_actor_is_told(config: DictConfig, value: float) -> None:
    logged = {"training/rollout_actor_probs_pearson_corr": value}
    dump(Path(config.run_dir) / "metrics-002.jsonl", [{"step": 3, "data": logged}])
    with pytest.raises(records.RecordError, match=r"correlate at .* in a step, below 0\.95"):
        recorded(config)


@pytest.mark.parametrize("name", ["rollouts/5.jsonl", f"validation/sampled/{STEPS}.jsonl"])
@pytest.mark.parametrize("there", [True, False])
def test_a_dump_that_is_missing_or_empty_is_told(config: DictConfig, name: str, there: bool) -> None:
    file = Path(config.run_dir) / name
    file.write_text("") if there else file.unlink()
    with pytest.raises(records.RecordError, match="has no responses" if there else "is missing"):
        recorded(config)


def test_a_question_that_the_data_does_not_have_is_told(config: DictConfig) -> None:
    change(config, "rollouts/5.jsonl", 0, index=77)
    with pytest.raises(records.RecordError, match="77"):
        recorded(config)


def test_a_question_that_the_judge_does_not_know_is_named(config: DictConfig) -> None:
    def refuse(*_: Any) -> Verdict:
        raise ValueError("no picture of mine")

    with pytest.raises(records.RecordError, match=r"\('easy', 'train', 0\): .* no picture of mine"):
        records.record(CELL, config, QUESTIONS, refuse, told={})


def test_questions_are_read_as_the_reward_model_gets_them(tmp_path: Path) -> None:
    info = {"split": "train", "index": 3, "question": "how many?", "options": ["A. one"]}
    rows = {"data_source": ["easy"], "extra_info": [info], "images": [[{"bytes": IMAGE, "path": None}]]}
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    found = records.read_questions([tmp_path / "rows.parquet"])
    assert found == {("easy", "train", 3): records.Asked("how many?\nA. one", [IMAGE])}


def test_a_file_is_written_whole_with_short_numbers_and_none_that_is_no_number(tmp_path: Path) -> None:
    file = tmp_path / "results/a.jsonl"
    records.write(file, [{"kind": "step", "outcome": 1 / 3, "forms": {"short": 2 / 3}, "step": 1}])
    assert json.loads(file.read_text()) == {
        "kind": "step",
        "outcome": 0.333333,
        "forms": {"short": 0.666667},
        "step": 1,
    }
    with pytest.raises(ValueError, match="not JSON compliant"):
        records.write(tmp_path / "results/b.jsonl", [{"outcome": math.nan}])
    assert not (tmp_path / "results/b.jsonl").exists()


def test_several_responses_to_a_question_are_counted_in_its_character(config: DictConfig) -> None:
    rows = [row(name, n, 0, *one) for name in ("g1", "g0") for n, one in enumerate(GROUPS[name][:2])]
    dump(Path(config.run_dir) / f"validation/sampled/{STEPS}.jsonl", [*rows, *rows])
    sampled = recorded(config)[-1]
    assert (sampled["questions"], sampled["samples"]) == (2, 4)
    assert sampled["right"] == "22"
    assert sampled["oracle_scores"] == "55", "of 0.8 and 0.1"


def test_a_validation_that_lacks_a_response_is_told(config: DictConfig) -> None:
    rows = [row(name, n, 0, *one) for name, group in GROUPS.items() for n, one in enumerate(group)]
    dump(Path(config.run_dir) / f"validation/sampled/{STEPS}.jsonl", rows)
    with pytest.raises(records.RecordError, match="from 2 to 3 responses to a question"):
        recorded(config)
