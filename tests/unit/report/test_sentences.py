"""The ten-seconds list says what went wrong with its numbers, and does not cry wolf."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from recipe.sophiavl.report import sentences
from recipe.sophiavl.report.problems import Problems
from recipe.sophiavl.report.run_data import Sentence
from recipe.sophiavl.report.settings_words import RunConfig, settings
from recipe.sophiavl.report.step_figures import DumpTotals
from recipe.sophiavl.report.summary import Change, Value
from testbed.synthetic_run import SyntheticRun, write_run
from tests.support.dumped import read, response

CORRELATION = "training/rollout_actor_probs_pearson_corr"
DIFFERENCE = "training/rollout_probs_diff_mean"


def config(folder: Path, **values: object) -> RunConfig:
    OmegaConf.save(OmegaConf.create(values), folder / "config.yaml")
    return RunConfig(folder, Problems())


def by_step(name: str, values: list[float]) -> dict[int, dict[str, float]]:
    return {step: {name: value} for step, value in enumerate(values, 1)}


def told(folder: Path, steps: dict, totals: DumpTotals | None = None, **values: object) -> list[Sentence]:
    return sentences.problems(config(folder, **values), steps, totals or DumpTotals(), None)


def about(found: list[Sentence], word: str) -> Sentence:
    (one,) = (sentence for sentence in found if word in sentence.text)
    return one


def test_what_was_trained_on_what_is_one_sentence(tmp_path: Path) -> None:
    run = RunConfig(write_run(tmp_path, SyntheticRun(steps=2)), Problems())
    (one,) = sentences.what(run)
    assert one.text == (
        "synthetic was trained on data/train.parquet with Trust-GRPO, alpha 0.3, exponential annealing over 2 steps, "
        "8 questions x 8 responses a step."
    )


def test_the_data_is_told_with_its_rows_and_digest_as_recorded(tmp_path: Path) -> None:
    run = RunConfig(write_run(tmp_path, SyntheticRun(steps=1, rows=12)), Problems())
    found = {one.label: one.value for one in settings(run)}
    assert found["Trained on"].startswith("data/train.parquet (train.parquet, 12 rows, sha256 ")


def test_nothing_is_said_of_what_nobody_left(tmp_path: Path) -> None:
    run = RunConfig(tmp_path, Problems())
    assert (sentences.what(run), settings(run)) == ([], [])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"enable": False}, "GRPO on the outcome reward alone"),
        ({"trust": False, "alpha": 0.3, "schedule": "constant"}, "without trust, alpha 0.3, not annealed"),
        ({"trust": True, "alpha": 1, "schedule": "linear", "total_steps": 9}, "Trust-GRPO, alpha 1, linear annealing"),
        ({"trust": True, "trust_estimator": "pooled", "alpha": 1}, "Trust-GRPO (gamma: pooled), alpha 1"),
    ],
)
def test_the_method_is_told_in_words(tmp_path: Path, values: dict, words: str) -> None:
    run = config(tmp_path, thinking_reward={"enable": True} | values)
    (one,) = (one for one in settings(run) if one.label == "Method")
    assert words in one.value


@pytest.mark.parametrize("text", ["a: [", "just text", "- 1\n- 2", "\x00", "a: ${b.c}", "data: {train_files: '${x}'}"])
def test_a_damaged_configuration_is_told_or_read_as_far_as_it_goes(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    (tmp_path / "run.json").write_text("{half")
    problems = Problems()
    run = RunConfig(tmp_path, problems)
    assert run.get("data.train_files") is None
    assert sentences.what(run) == []
    settings(run)
    assert "run.json" in problems.texts()[-1]


@pytest.mark.parametrize(
    "record", ["[]", "3", '{"starts": 3}', '{"starts": [1, {}]}', '{"starts": [{"at": null}]}', "[" * 100_000]
)
def test_any_record_is_survived(tmp_path: Path, record: str) -> None:
    (tmp_path / "run.json").write_text(record)
    settings(RunConfig(tmp_path, Problems()))


def test_validation_tells_difference_and_interval(tmp_path: Path) -> None:
    group = "greedy validation (n = 384)"
    change = Change(group, "outcome reward", Value(0.4, 0.02), Value(0.6, 0.02), Value(0.2, 0.025), True)
    first, *_ = sentences.progress([change], {})
    assert first.text == (
        "Greedy validation (n = 384): the outcome reward rose from 0.400 to 0.600 (+0.200, 95 % interval +0.151 to "
        "+0.249, each question compared with itself)."
    )


@pytest.mark.parametrize(("mean", "word"), [(-0.2, "fell"), (0.04, "did not change as far"), (0.2, "rose")])
def test_a_change_within_its_interval_is_none(mean: float, word: str) -> None:
    before, after, difference = Value(0.4, 0.02), Value(0.4 + mean, 0.02), Value(mean, 0.025)
    change = Change("greedy validation (n = 9)", "outcome reward", before, after, difference)
    assert word in sentences.progress([change], {})[0].text


def test_training_compares_the_first_fifth_of_the_steps_with_the_last(tmp_path: Path) -> None:
    values = [*np.linspace(0.1, 0.2, 10), *[0.3] * 30, *np.linspace(0.6, 0.7, 10)]
    found = sentences.progress([], by_step("outcome_reward/mean", values))
    assert found[0].kind == "missing"
    assert "from 0.150 to 0.650 (first and last 10 steps; +0.500" in found[1].text


def test_lost_scores_are_counted_with_their_reasons(tmp_path: Path) -> None:
    totals = DumpTotals()
    rows = [response("a", thinking=None, thinking_error="timed out")] * 3 + [response("a")] * 5
    totals.add(read(tmp_path, rows)[0])
    one = about(told(tmp_path, by_step("thinking_reward/group_coverage", [1.0, 0.25]), totals), "were lost")
    assert one.kind == "problem"
    assert "3 of 8 thinking scores were lost (37.5%): timed out (3)" in one.text
    assert "25% at the worst step" in one.text


def test_format_failures_are_told_early_and_late(tmp_path: Path) -> None:
    totals = DumpTotals()
    for step in range(1, 11):
        rows = [response(str(i), format_ok=not (step > 8 and i < 3)) for i in range(10)]
        totals.add(read(tmp_path, rows, step=step)[0])
    one = about(told(tmp_path, {}, totals), "required format")
    assert one.kind == "problem"
    assert "6 of 100 responses (6.0%)" in one.text
    assert "0.0% in the first fifth of the steps, 30.0% in the last" in one.text


@pytest.mark.parametrize(("late", "kind"), [(0.04, "fine"), (0.2, "problem")])
def test_clipped_responses_matter_at_the_end(tmp_path: Path, late: float, kind: str) -> None:
    one = about(told(tmp_path, by_step("response_length/clip_ratio", [0.5] + [0.01] * 7 + [late] * 2)), "length limit")
    assert one.kind == kind
    assert f"{late:.1%} in the last fifth" in one.text


@pytest.mark.parametrize(
    ("apart", "kind"), [(0.1, "problem"), (0.001, "fine")], ids=["far apart", "as close as the guard allows"]
)
def test_a_rollout_unlike_the_actor_is_told_as_the_guard_counts(tmp_path: Path, apart: float, kind: str) -> None:
    steps = {step: {CORRELATION: value, DIFFERENCE: apart} for step, value in enumerate([0.99, 0.7, 0.8], 1)}
    engine = {"min_rollout_correlation": 0.9, "max_rollout_diff": 0.005}
    one = about(told(tmp_path, steps, sophiavl=engine), "Rollout and actor")
    assert one.kind == kind
    assert "0.7000 (step 2)" in one.text
    assert ("at 2 of 3 steps" in one.text) == (kind == "problem")


def test_a_stalled_step_is_told_with_what_it_cost(tmp_path: Path) -> None:
    seconds = [10.0] * 20
    assert about(told(tmp_path, by_step("timing_s/step", seconds)), "stalled").kind == "fine"
    seconds[7] = 600.0
    one = about(told(tmp_path, by_step("timing_s/step", seconds)), "took more than")
    assert one.kind == "problem"
    assert "step 8 with 600 s" in one.text
    assert "10 min" in one.text


def test_problems_come_first(tmp_path: Path) -> None:
    steps = {step: {"response_length/clip_ratio": 0.5, "timing_s/step": 1.0, CORRELATION: 1.0} for step in range(9)}
    kinds = [sentence.kind for sentence in told(tmp_path, steps)]
    assert kinds == sorted(kinds, key=lambda kind: kind != "problem")
    assert "problem" in kinds
