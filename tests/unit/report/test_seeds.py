"""Runs that differ in nothing but their seeds are one line with a band; others say by what they differ."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from recipe.sophiavl.report.load import load_run, load_runs
from recipe.sophiavl.report.run_data import Bounds, Chart, Comparison
from testbed.synthetic_run import SyntheticRun, write_run

SMALL = {"steps": 6, "prompts": 3, "rows": 12, "validate_every": 3}


def written(folder: Path, **fields: object) -> Path:
    return write_run(folder, SyntheticRun(**SMALL | fields))


def chart(found: Comparison, key: str) -> Chart:
    (one,) = (one for one in found.charts if one.key == key)
    return one


def test_seeds_are_grouped_and_their_band_is_from_the_lowest_to_the_highest(tmp_path: Path) -> None:
    seeds = [written(tmp_path / f"seed{seed}", seed=seed) for seed in range(3)]
    other = written(tmp_path / "other", alpha=0.9)
    found = load_runs([seeds[0], other, seeds[1], seeds[2]])
    assert [list(group.runs) for group in found.groups] == [[0, 2, 3], [1]]
    band, single = chart(found, "outcome").lines
    curves = np.array([load_run(seed).curves["outcome_reward/mean"][1] for seed in seeds])
    assert band.values == pytest.approx(curves.mean(axis=0))
    assert band.low == pytest.approx(curves.min(axis=0))
    assert band.high == pytest.approx(curves.max(axis=0))
    assert (single.low, single.run, band.run) == (None, 1, 0)
    assert "lowest to the highest" in chart(found, "outcome").note
    assert any("nothing but their seeds" in sentence.text for sentence in found.sentences)


def test_other_settings_are_told_and_seeds_are_not(tmp_path: Path) -> None:
    runs = [written(tmp_path / "a", seed=1), written(tmp_path / "b", seed=2, alpha=0.9)]
    found = load_runs(runs)
    assert [group.label for group in found.groups] == ["a", "b"]
    assert found.groups[0].differs == ["thinking_reward.alpha=0.3"]
    assert found.groups[1].differs == ["thinking_reward.alpha=0.9"]


def test_without_a_record_the_configuration_tells(tmp_path: Path) -> None:
    runs = [written(tmp_path / name, seed=seed) for seed, name in enumerate("ab")]
    for run in runs:
        (run / "run.json").unlink()
        text = (run / "config.yaml").read_text().replace(str(run), "/data")
        (run / "config.yaml").write_text(text)
    assert [list(group.runs) for group in load_runs(runs).groups] == [[0, 1]]


def test_a_run_that_left_neither_is_an_experiment_of_its_own(tmp_path: Path) -> None:
    runs = [written(tmp_path / name) for name in "ab"]
    for run in runs:
        (run / "run.json").unlink()
        (run / "config.yaml").unlink()
    found = load_runs(runs)
    assert len(found.groups) == 2
    assert sum("counts as an experiment of its own" in sentence.text for sentence in found.sentences) == 2


def test_another_number_of_steps_is_another_schedule(tmp_path: Path) -> None:
    found = load_runs([written(tmp_path / "a"), written(tmp_path / "b", planned=60)])
    assert len(found.groups) == 2
    assert found.groups[1].differs == ["trainer.total_training_steps=60"]


def test_of_seeds_that_are_not_equally_far_only_common_steps_are_averaged(tmp_path: Path) -> None:
    runs = [written(tmp_path / "a", planned=9), written(tmp_path / "b", seed=1, planned=9, steps=4)]
    (line,) = chart(load_runs(runs), "outcome").lines
    assert list(line.steps) == [1, 2, 3, 4]


def test_validations_are_overlaid(tmp_path: Path) -> None:
    runs = [written(tmp_path / "a"), written(tmp_path / "b", seed=1), written(tmp_path / "c", alpha=0.9)]
    band, single = chart(load_runs(runs), "validation").lines
    assert (band.run, band.steps, band.low is None) == (0, [0, 3, 6], False)
    assert (single.run, single.steps, single.low is None) == (1, [0, 3, 6], True)


def test_folders_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    runs = [written(tmp_path / above / "run", alpha=alpha) for above, alpha in (("x", 0.1), ("y", 0.2))]
    assert [group.label for group in load_runs(runs).groups] == ["x/run", "y/run"]


def test_the_same_folder_twice_is_drawn(tmp_path: Path) -> None:
    run = written(tmp_path / "a")
    assert len(load_runs([run, run]).groups) == 1


def test_the_runs_share_the_gallery(tmp_path: Path) -> None:
    runs = [written(tmp_path / name, seed=seed) for seed, name in enumerate("abc")]
    found = load_runs(runs, bounds=Bounds(groups=12))
    assert [len(run.gallery.groups) for run in found.runs] == [4, 4, 4]


def test_a_hostile_record_is_no_traceback(tmp_path: Path) -> None:
    runs = [written(tmp_path / name) for name in "abc"]
    (runs[0] / "run.json").write_text(json.dumps({"experiment": [1], "total_training_steps": "x"}))
    (runs[1] / "run.json").write_text(json.dumps({"experiment": {"a": {"b": [None]}}}))
    assert len(load_runs(runs).groups) == 3
