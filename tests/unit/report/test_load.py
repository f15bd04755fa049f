"""A run of any make gives a report, and what is missing is said; memory does not grow with the responses."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from recipe.sophiavl.report.load import load_run
from recipe.sophiavl.report.run_data import Bounds, RunData
from recipe.sophiavl.report.trust_figures import trust_figures
from testbed.synthetic_run import SyntheticRun, write_run
from tests.support.dumped import response

RUN = SyntheticRun(steps=10, prompts=6, responses=6, lost=0.03, validate_every=5)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("report") / "run", RUN)


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    copied = shutil.copytree(sound, tmp_path / "run")
    (copied / "config.yaml").write_text((copied / "config.yaml").read_text().replace(str(sound), str(copied)))
    return copied


def numbers_of(value: object) -> list[float]:
    """Every number in it, however deep."""
    if dataclasses.is_dataclass(value):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [number for one in value for number in numbers_of(one)]
    return [value] if isinstance(value, float) else []


def says(run: RunData, words: str) -> bool:
    return any(words in sentence.text for sentence in run.sentences)


def test_a_sound_run_is_read_whole(sound: Path) -> None:
    run = load_run(sound)
    assert (run.name, run.steps, run.planned, run.finished) == ("run", 10, 10, True)
    assert (run.responses, run.groups) == (360, 60)
    assert not [sentence for sentence in run.sentences if sentence.kind == "missing"]
    assert len(run.gallery.groups) == 60
    assert {row.step for row in run.validation} == {0, 5, 10}
    assert all(row.count == 64 for row in run.validation if row.kind is None)
    assert {row.count for row in run.validation if row.kind == "numerical"} == {22}
    assert all(group.images for group in run.gallery.groups if int(group.row.rsplit(" ", 1)[1]) < 32)
    assert {chart.key for chart in run.charts} > {"outcome", "gamma", "auc", "time", "validation", "kl", "annealing"}
    assert json.loads(json.dumps(dataclasses.asdict(run), allow_nan=False))


def test_it_is_the_same_for_the_same_seed_and_another_sample_for_another(sound: Path) -> None:
    small = Bounds(groups=8, points=8)
    first = load_run(sound, bounds=small)
    assert load_run(sound, bounds=small) == first
    other = load_run(sound, bounds=small, seed=1)
    assert {group.id for group in other.gallery.groups} != {group.id for group in first.gallery.groups}
    assert other.trust.points != first.trust.points
    assert other.curves == first.curves


def test_bounds_hold(sound: Path) -> None:
    run = load_run(sound, bounds=Bounds(groups=7, responses=2, text_chars=50, images=0, points=5, line_points=3))
    assert len(run.gallery.groups) == 7
    assert all(len(group.responses) == 2 and not group.images for group in run.gallery.groups)
    assert all(len(one.text) < 100 for group in run.gallery.groups for one in group.responses)
    assert len(run.trust.points) == 5
    assert all(len(line.steps) <= 3 for chart in run.charts for line in chart.lines if chart.key != "auc")


def remove(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            for path in folder.glob(name):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def half_written(folder: Path) -> None:
    for name in ("metrics-001.jsonl", "rollouts/10.jsonl", "validation/10.jsonl"):
        text = (folder / name).read_bytes()
        (folder / name).write_bytes(text[: len(text) - 40])


def older(folder: Path) -> None:
    """Dumps of the first version: verl's fields and the rewards."""
    for file in folder.glob("rollouts/*.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        kept = ("input", "output", "gts", "score", "step", "uid", "outcome_reward", "thinking_reward")
        file.write_text("".join(json.dumps({name: row[name] for name in kept}) + "\n" for row in rows))


def verls_own(folder: Path) -> None:
    """Dumps of verl without this recipe."""
    for file in folder.glob("rollouts/*.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        kept = ("input", "output", "gts", "score", "step")
        file.write_text("".join(json.dumps({name: row[name] for name in kept}) + "\n" for row in rows))


def hostile(folder: Path) -> None:
    junk = ["high", math.nan, math.inf, -1, 10**400, True, [], {}]
    fields = ("outcome_reward", "thinking_reward", "gamma", "mu_wrong", "score", "step", "index")
    rows = [response(f"g{i}") | dict.fromkeys(fields, value) for i, value in enumerate(junk)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "rollouts" / "11.jsonl").write_text(lines + "junk\n[]\n" + lines + '{"half')
    data = {"actor/grad_norm": "high", "actor/entropy": math.nan, "timing_s/step": None}
    with (folder / "metrics-001.jsonl").open("a") as file:
        file.write(json.dumps({"step": 11, "data": data}) + "\nnot json\n")


def wrong_kinds(folder: Path) -> None:
    """Every value of a validation's dump is of another kind in some line, and settings are no numbers."""
    file = folder / "validation" / "0.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for place, (row, name) in enumerate(zip(rows, rows[0], strict=False)):
        row[name] = [[], {"a": 1}, 10**400, math.nan][place % 4]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = OmegaConf.load(folder / "config.yaml")
    config.trainer.total_training_steps = math.nan
    config.thinking_reward.correct_threshold_by_type = {"numerical": "high", "ocr": None}
    config.actor_rollout_ref.model.path = "\ud800"
    OmegaConf.save(config, folder / "config.yaml")


def binary(folder: Path) -> None:
    for file in [*folder.glob("*.*"), *folder.glob("rollouts/*"), *folder.glob("data/*"), *folder.glob("validation/*")]:
        file.write_bytes(bytes(range(256)) * 20 + b"\n")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (half_written, "half written"),
        (remove("finished", "rollouts/10.jsonl", "rollouts/9.jsonl"), "goes on or was stopped"),
        (remove("validation"), "progress"),
        (remove("data"), "it is gone"),
        (remove("rollouts"), "no rollout dumps"),
        (remove("metrics*"), "curves are computed from the dumps"),
        (remove("config.yaml", "run.json"), "no configuration was left"),
        (remove("*"), "no step has been logged"),
        (older, "older version hold no gamma"),
        (verls_own, "older version hold no outcome_reward"),
        (hostile, "is no number from 0 to 1"),
        (wrong_kinds, "can't be compared question by question"),
        (binary, "no JSON"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_run_that_lacks_something_is_reported_and_says_what(folder: Path, change: Callable, words: str) -> None:
    change(folder)
    run = load_run(folder)
    assert all(math.isfinite(number) for number in numbers_of(run))
    json.dumps(dataclasses.asdict(run), ensure_ascii=False).encode()  # no half of a surrogate pair
    if words != "progress":
        assert says(run, words)


def test_without_validation_training_tells_how_far_it_came(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run", dataclasses.replace(RUN, validate_every=0)))
    assert run.validation == []
    assert says(run, "was not validated")
    assert says(run, "Training: the outcome reward went from")


def test_without_a_thinking_reward_nothing_is_said_of_trust(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run", dataclasses.replace(RUN, thinking=False)))
    assert run.trust is None
    assert says(run, "no thinking reward (thinking_reward.enable=false)")
    assert not says(run, "thinking score")
    assert {chart.key for chart in run.charts}.isdisjoint({"auc", "gamma", "thinking", "coverage"})
    assert {stratum.key: stratum.groups for stratum in run.gallery.strata}["missing_score"] == 0


def test_a_run_whose_rewards_are_advantages_shows_no_trust_weight(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run", dataclasses.replace(RUN, steps=4, combine="gdpo")))
    assert says(run, "with GDPO of outcome and thinking reward, alpha 0.3")
    assert says(run, "advantages, which sum to 0 over a group (thinking_reward.combine=gdpo)")
    assert not says(run, "distrusted")
    assert {"gamma", "distrusted"}.isdisjoint(chart.key for chart in run.charts)
    assert [figure.title for figure in trust_figures(run.trust)] == ["Thinking reward of right and wrong answers"]
    assert run.trust.verdict.change.value is not None, "the scores tell right from wrong all the same"
    assert {stratum.key: stratum.groups for stratum in run.gallery.strata}["distrusted"] == 0
    assert any(response.reward < 0 for group in run.gallery.groups for response in group.responses)


def test_a_run_that_goes_on_says_how_far_it_is(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run", dataclasses.replace(RUN, planned=500)))
    assert (run.steps, run.planned, run.finished) == (10, 500, False)
    assert says(run, "10 of 500 training steps")


def test_without_metrics_the_dumps_give_the_same_curves(sound: Path, folder: Path) -> None:
    remove("metrics*")(folder)
    logged, dumped = load_run(sound).curves, load_run(folder).curves
    for name in ("outcome_reward/mean", "thinking_reward/mean", "trust/gamma_mean", "trust/distrusted_frac"):
        assert dumped[name][0] == logged[name][0]
        assert dumped[name][1] == pytest.approx(logged[name][1])


def test_thresholds_of_the_run_decide_what_is_right(folder: Path) -> None:
    before = load_run(folder).trust.bins[0]
    config = OmegaConf.load(folder / "config.yaml")
    config.thinking_reward.correct_threshold_by_type = {"NUMERICAL": 2.0}
    OmegaConf.save(config, folder / "config.yaml")
    after = load_run(folder).trust.bins[0]
    numerical = sum(
        row["outcome_reward"] == 1 and row["problem_type"] == "numerical" and row["thinking_reward"] is not None
        for row in map(json.loads, (folder / "rollouts" / "1.jsonl").read_text().splitlines())
    )
    assert numerical > 0
    assert sum(after.right) == sum(before.right) - numerical


def test_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="nowhere"):
        load_run(tmp_path / "nowhere")


def peak(folder: Path) -> int:
    tracemalloc.start()
    try:
        load_run(folder, bounds=Bounds(groups=12, points=100))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_number_of_responses(tmp_path: Path) -> None:
    size = SyntheticRun(steps=10, prompts=8, chars=2000, rows=32, validate_every=0)
    peaks = [peak(write_run(tmp_path / str(steps), dataclasses.replace(size, steps=steps))) for steps in (10, 10, 80)]
    dumped = sum(file.stat().st_size for file in (tmp_path / "80" / "rollouts").iterdir())
    assert dumped > 8e6
    assert peaks[2] - peaks[1] < 0.1 * dumped
