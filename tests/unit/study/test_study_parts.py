"""The analysis of a part of a grid, of nothing, of a wrong file, and of a hundred times the seeds."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from recipe.sophiavl.study import tables
from recipe.sophiavl.study.analysis import analyse, findings_of
from recipe.sophiavl.study.claims import verdict
from recipe.sophiavl.study.results import ResultsError
from tests.support.study_results import cell_lines, known, write_cell, write_grid


@pytest.mark.parametrize(
    ("variants", "models", "seeds"),
    [
        (("default",), ("oracle",), 1),
        (("default",), ("oracle",), 2),
        (("no_trust",), ("length",), 3),
        ((), (), 2),
    ],
)
def test_a_part_of_a_grid_is_analysed_and_what_is_missing_is_said(
    tmp_path: Path, variants: tuple[str, ...], models: tuple[str, ...], seeds: int
):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        analyse(write_grid(tmp_path / "in", variants, models, seeds), tmp_path / "out")
    text = (tmp_path / "out/results.md").read_text()
    assert "No cell of no_trust_no_annealing with oracle, noisy, hackable." in text
    if "no_trust" not in variants:
        assert (
            "**Trust weights raise accuracy** (accuracy, sampled): not tested with the main reward models yet." in text
        )
    assert "nan" not in text.lower()


def test_without_outcome_only_the_claims_that_need_it_are_not_tested(tmp_path: Path):
    write_grid(tmp_path, seeds=2)
    for file in tmp_path.glob("outcome_only.*"):
        file.unlink()
    found = findings_of(tmp_path)
    assert "No cell of outcome_only with none." in found.missing
    assert "No seed on both sides of default − outcome_only with oracle, noisy, hackable." in found.missing
    claims = tables.as_json(found)["claims"]
    assert [claim["key"] for claim in claims if not claim["verdicts"]] == ["1", "4"]


def test_seeds_that_one_side_lacks_are_left_out_of_the_difference_and_told(tmp_path: Path):
    write_grid(tmp_path, seeds=4)
    (tmp_path / "no_trust.noisy.3.jsonl").unlink()
    found = findings_of(tmp_path)
    assert "no_trust with noisy lacks seed 3." in found.missing
    pairs = {
        one.contrast.label: list(one.by_seed)
        for one in found.comparisons
        if (one.measure, one.contrast.reward_model) == ("greedy", "noisy")
    }
    assert pairs["default − no_trust"] == [1, 2, 4]
    assert pairs["default − outcome_only"] == [1, 2, 3, 4]


def test_what_was_never_planned_is_not_missing(tmp_path: Path):
    write_grid(tmp_path, seeds=6)
    write_grid(tmp_path, ("default", "no_trust"), ("length",), 3)
    assert findings_of(tmp_path).missing == []


def test_nothing_at_all_is_told(tmp_path: Path):
    (tmp_path / "in").mkdir()
    analyse(tmp_path / "in", tmp_path / "out")
    assert "There is no finished cell." in (tmp_path / "out/results.md").read_text()


def test_a_wrong_file_stops_before_anything_is_written(tmp_path: Path):
    write_grid(tmp_path / "in", seeds=1)
    (tmp_path / "in/default.oracle.1.jsonl").write_text('{"kind": "cell"}\n')
    with pytest.raises(ResultsError, match="line 1: variant"):
        analyse(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_figure_that_has_nothing_to_show_any_more_is_taken_away(tmp_path: Path):
    write_grid(tmp_path / "in", ("default",), ("oracle",), 1)
    out = tmp_path / "out"
    out.mkdir()
    for name in ("curves_other_variants.svg", "mine.svg"):
        (out / name).write_text("of another analysis")
    analyse(tmp_path / "in", out)
    assert {path.name for path in out.glob("*.svg")} == {"curves.svg", "differences.svg", "mine.svg"}


def test_a_hundred_times_the_seeds(tmp_path: Path):
    found = findings_of(write_grid(tmp_path, ("default", "no_trust"), ("hackable",), 100, effect=known))
    (one,) = (one for one in found.comparisons if (one.contrast.label, one.measure) == ("default − no_trust", "greedy"))
    assert len(one.by_seed) == 100
    assert verdict(one) == "supported"
    assert one.test.low < 0.08 < one.test.high


def test_a_variant_without_trust_weights_has_no_gamma_and_none_is_compared(tmp_path: Path):
    found = findings_of(write_grid(tmp_path, seeds=3))
    assert {variant for (variant, _), of in found.values.items() if of["gamma"]} == {"default"}
    assert {one.contrast.kind for one in found.comparisons if one.measure == "gamma"} == {"detection"}


def test_the_forms_of_thinking_are_a_measure_where_the_judge_tells_them(tmp_path: Path):
    lines = cell_lines("default", "oracle", 1)
    write_cell(tmp_path, lines)
    assert "twice" not in {one.name for one in findings_of(tmp_path).measures}
    lines[-1] |= {"forms": {"full": 0.75, "twice": 0.25}}
    write_cell(tmp_path, lines)
    other = cell_lines("no_trust", "oracle", 1)
    other[-1] |= {"forms": {"full": 1.0}}
    write_cell(tmp_path, other)
    values = findings_of(tmp_path).values
    assert values["default", "oracle"]["twice"] == {1: 0.25}
    assert values["no_trust", "oracle"]["twice"] == {1: 0.0}


def test_how_much_a_seed_decides_is_told_with_the_part_of_drawing_answers(tmp_path: Path):
    write_grid(tmp_path, seeds=6, noise=0.02)
    for seed in range(1, 7):
        lines = cell_lines("outcome_only", "none", seed)
        lines[-1] |= {"samples": 3, "right": "0123" * 10, "questions": 40}
        write_cell(tmp_path, lines)
    found = findings_of(tmp_path)
    text = tables.as_markdown(found, {})
    # shares 0, 1/3, 2/3, 1: the mean of p (1 - p) is 1/9, by 2 (one less than the answers), by 40 questions
    assert f"{(1 / 9 / 2 / 40) ** 0.5:.4f} is that of drawing few answers" in text
    row = next(line for line in text.splitlines() if line.startswith("| accuracy, sampled | 0.0"))
    assert row.split(" | ")[1] == f"{found.errors['sampled'].sd:.4f}"
    assert found.errors["sampled"].df == 45
