"""The raw results of a study: what is read, what is refused with its place, what is told and left out."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from recipe.sophiavl.study.results import CellKey, ResultsError, read_results
from tests.support.study_results import cell_lines, write_cell, write_grid

STEP_5, GREEDY = 5, 13  # places of lines in the file of a cell of 12 steps


def one_cell(folder: Path, **changes: Any) -> tuple[Path, list[dict[str, Any]]]:
    lines = cell_lines("default", "oracle", 1, **changes)
    return write_cell(folder, lines), lines


def test_a_grid_is_read_whole(tmp_path: Path):
    found = read_results(write_grid(tmp_path, seeds=2))
    assert len(found.cells) == 2 * (3 * 3 + 1)
    assert found.told == []
    assert set(found.start) == {"greedy", "sampled"}
    cell = next(cell for cell in found.cells if cell.key == CellKey("no_trust", "noisy", 2))
    assert [step.step for step in cell.steps] == list(range(1, 13))
    assert cell.final["greedy"].step == 12
    unasked = next(cell for cell in found.cells if cell.key.reward_model == "none")
    assert {step.gamma for step in unasked.steps} == {None}


@pytest.mark.parametrize(
    ("place", "field", "value", "told"),
    [
        (STEP_5, "outcome", "0.5", "line 6: outcome"),
        (STEP_5, "outcome", float("nan"), "line 6: outcome"),
        (STEP_5, "outcome", float("inf"), "line 6: outcome"),
        (STEP_5, "outcome", True, "line 6: outcome"),
        (STEP_5, "outcome", None, "line 6: outcome"),
        (STEP_5, "oracle", 1.5, "line 6: oracle"),
        (STEP_5, "gamma", -0.1, "line 6: gamma"),
        (STEP_5, "length", "long", "line 6: length"),
        (STEP_5, "length", float("inf"), "line 6: length"),
        (STEP_5, "step", 4, "line 6: step: 4, where step 5 must come"),
        (STEP_5, "step", 6, "line 6: step: 6, where step 5 must come"),
        (STEP_5, "kind", "stage", "line 6: kind"),
        (0, "seed", "one", "line 1: seed"),
        (0, "seconds", -1, "line 1: seconds"),
        (0, "variant", "<b>", "line 1: variant"),
        (0, "data", "train.parquet", "line 1: data"),
        (0, "command", 7, "line 1: command"),
        (0, "checks", {"responses": 5, "missing_scores": -1}, "line 1: checks.missing_scores"),
        (STEP_5, "gamma_mixed", 1.5, "line 6: gamma_mixed"),
        (0, "steps", 11, "line 13: step: 12 of a cell of 11 steps"),
        (0, "checks", {"responses": 5, "largest_reward_error": "small"}, "line 1: checks.largest_reward_error"),
        (GREEDY, "by_type", {"numerical": "most"}, "line 14: by_type.numerical"),
        (GREEDY, "by_type", {"a|b": 0.5}, "line 14: by_type"),
        (GREEDY, "right", "2" * 40, "line 14: right: 2 of 1 responses to a question"),
        (GREEDY, "right", "0101", "line 14: right: 4 characters for 40 questions"),
        (GREEDY, "right", "x" * 40, "line 14: right"),
        (GREEDY, "oracle_scores", "b" * 40, "line 14: oracle_scores"),
        (GREEDY, "mode", "beam", "line 14: mode"),
        (GREEDY, "mode", "sampled", "line 15: mode: a second sampled validation after step 12"),
    ],
)
def test_a_wrong_value_is_refused_with_file_line_and_field(
    tmp_path: Path, place: int, field: str, value: Any, told: str
):
    file, lines = one_cell(tmp_path)
    lines[place][field] = value
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with pytest.raises(ResultsError) as error:
        read_results(tmp_path)
    assert f"default.oracle.1.jsonl: {told}" in str(error.value)


@pytest.mark.parametrize("field", ["outcome", "length", "step", "kind", "oracle"])
def test_a_missing_field_is_refused_by_name(tmp_path: Path, field: str):
    file, lines = one_cell(tmp_path)
    del lines[STEP_5][field]
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with pytest.raises(ResultsError, match=rf"line 6: {field}: "):
        read_results(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1, 2]", "null", "7", '"cell"', "\x00"])
def test_a_damaged_line_is_refused_with_its_number(tmp_path: Path, text: str):
    file, lines = one_cell(tmp_path)
    texts = [json.dumps(line) for line in lines]
    file.write_text("\n".join([*texts[:3], text, *texts[4:]]) + "\n")
    with pytest.raises(ResultsError, match=r"default\.oracle\.1\.jsonl: line 4: "):
        read_results(tmp_path)


def test_a_hostile_value_does_not_reach_the_terminal(tmp_path: Path):
    file, lines = one_cell(tmp_path)
    lines[STEP_5]["outcome"] = "\x1b[2J\u202e" + "x" * 10_000
    file.write_text("".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines))
    with pytest.raises(ResultsError) as error:
        read_results(tmp_path)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("keep", "told"),
    [
        (0, "it has no line of the kind cell"),
        (1, "0 of 12 steps"),
        (7, "6 of 12 steps"),
        (13, "no greedy and no sampled validation after step 12"),
        (14, "no sampled validation after step 12"),
    ],
)
def test_an_unfinished_cell_is_told_and_left_out(tmp_path: Path, keep: int, told: str):
    write_cell(tmp_path, cell_lines("default", "oracle", 2))
    file, lines = one_cell(tmp_path)
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines[:keep]))
    found = read_results(tmp_path)
    assert [cell.key.seed for cell in found.cells] == [2]
    assert found.told == [f"`default.oracle.1.jsonl` is unfinished ({told}): left out."]


def test_a_file_that_is_cut_at_any_byte_is_never_taken_for_whole(tmp_path: Path):
    file, _ = one_cell(tmp_path, steps=2)
    whole = file.read_bytes()
    for size in range(0, len(whole) - 1, 37):
        file.write_bytes(whole[:size])
        found = read_results(tmp_path)
        assert not found.cells
        assert "unfinished" in found.told[0]
    file.write_bytes(whole[:-1])  # no more is missing than the end of the last line
    assert len(read_results(tmp_path).cells) == 1


def test_foreign_files_are_told_as_what_they_are_called_on_one_line(tmp_path: Path):
    one_cell(tmp_path)
    for name in ("notes.txt", "default.oracle.jsonl", "a`|<b>\n# x.jsonl", "default.oracle.2.jsonl.new"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "default.oracle.9.jsonl").mkdir()
    (tmp_path / ".hidden").write_text("")
    found = read_results(tmp_path)
    assert len(found.cells) == 1
    assert len(found.told) == 5
    assert all("\n" not in told and told.count("`") == 2 and told.endswith("left out.") for told in found.told)


def test_a_file_that_is_named_after_another_cell_is_refused(tmp_path: Path):
    file, _ = one_cell(tmp_path)
    file.rename(tmp_path / "default.noisy.1.jsonl")
    with pytest.raises(
        ResultsError, match=r"holds the cell default\.oracle\.1, whose file is default\.oracle\.1\.jsonl$"
    ):
        read_results(tmp_path)


def test_two_files_of_one_cell_are_refused(tmp_path: Path):
    file, _ = one_cell(tmp_path)
    shutil.copy(file, tmp_path / "default.oracle.01.jsonl")
    with pytest.raises(ResultsError, match=r"default\.oracle\.01\.jsonl: .* which is there too"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"steps": 13}, "`no_trust.oracle.9` has 13 training steps, most cells have 12: left out."),
        ({"questions": 41}, "`no_trust.oracle.9` has 41 validation questions, most cells have 40: left out."),
    ],
)
def test_a_cell_that_cannot_be_compared_is_told_and_left_out(tmp_path: Path, changes: dict[str, int], told: str):
    write_grid(tmp_path, seeds=1)
    write_cell(tmp_path, cell_lines("no_trust", "oracle", 9, **changes))
    found = read_results(tmp_path)
    assert 9 not in {cell.key.seed for cell in found.cells}
    assert told in found.told


def test_other_settings_and_commits_are_told_and_kept(tmp_path: Path):
    write_grid(tmp_path, seeds=3)
    lines = cell_lines("no_trust", "oracle", 9)
    lines[0]["overrides"] += ["actor_rollout_ref.actor.optim.lr=1e-3"]
    lines[0]["commit"] = None
    write_cell(tmp_path, lines)
    found = read_results(tmp_path)
    assert 9 in {cell.key.seed for cell in found.cells}
    assert found.told == [
        "The cells were run with 2 commits: `abc1234` (30 cells), `unknown` (1 cells).",
        "`no_trust.oracle.9` has other settings than 9 cells of its variant: `actor_rollout_ref.actor.optim.lr=1e-3`.",
    ]


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        (
            "command",
            "python reward_models.py oracle --noise 0.6",
            "`default.oracle.2` has another command of its reward model than 8 cells with `oracle`: "
            "`python reward_models.py oracle --noise 0.6`, and they "
            "`python reward_models.py oracle --seed {seed} --port {port}`.",
        ),
        (
            "judge",
            "mine:judge",
            "`default.oracle.2` has another judge than 29 cells: `mine:judge`, and they `examples.study.oracle:"
            "assess`.",
        ),
        ("dtype", "bfloat16", "`default.oracle.2` has another dtype than 29 cells: `bfloat16`, and they `float32`."),
        (
            "data",
            {"val": "val.parquet, 384 rows", "train": "`|\n\u202e"},
            "`default.oracle.2` has another fingerprint of its data than 29 cells",
        ),
    ],
)
def test_another_reward_models_command_judge_data_or_dtype_is_told_and_kept(
    tmp_path: Path, field: str, value: Any, told: str
):
    write_grid(tmp_path, seeds=3)
    lines = cell_lines("default", "oracle", 2)
    lines[0][field] = value
    write_cell(tmp_path, lines)
    found = read_results(tmp_path)
    assert len(found.cells) == 30
    (one,) = found.told
    assert one.startswith(told)
    assert one.isprintable()


def test_the_same_data_in_another_order_is_the_same(tmp_path: Path):
    write_grid(tmp_path, seeds=1)
    lines = cell_lines("default", "oracle", 1)
    lines[0]["data"] = dict(reversed(lines[0]["data"].items()))
    write_cell(tmp_path, lines)
    assert read_results(tmp_path).told == []


def test_files_of_before_these_fields_are_read_and_not_told(tmp_path: Path):
    write_grid(tmp_path, seeds=1)
    lines = cell_lines("default", "oracle", 1)
    for name in ("command", "judge", "data", "dtype"):
        del lines[0][name]
    del lines[0]["checks"]["missing_scores"]
    for line in lines[1:13]:
        del line["gamma_mixed"]
    write_cell(tmp_path, lines)
    found = read_results(tmp_path)
    assert len(found.cells) == 10
    assert found.told == []


@pytest.mark.parametrize("keep", [40, -30])
def test_a_start_that_is_cut_is_told_and_left_out(tmp_path: Path, keep: int):
    write_grid(tmp_path, seeds=1)
    file = tmp_path / "start.none.0.jsonl"
    file.write_bytes(file.read_bytes()[:keep])
    found = read_results(tmp_path)
    assert found.start == {}
    assert found.told == ["`start.none.0.jsonl` is unfinished (its last line is cut): left out."]
    assert len(found.cells) == 10


def test_a_variant_that_lacks_what_all_others_were_run_with_is_told(tmp_path: Path):
    for variant in ("default", "no_trust", "outcome_only", "gdpo"):
        lines = cell_lines(variant, "oracle", 1)
        lines[0]["overrides"] += ["preset=quickstart"] if variant != "gdpo" else ["preset=other"]
        write_cell(tmp_path, lines)
    assert read_results(tmp_path).told == [
        "The variant `gdpo` lacks settings that most variants have: `preset=quickstart`."
    ]


def test_no_folder_is_an_error_and_an_empty_one_is_told(tmp_path: Path):
    with pytest.raises(ResultsError, match="no such folder"):
        read_results(tmp_path / "none")
    assert read_results(tmp_path).told == ["There is no finished cell."]


def test_reading_grows_with_the_number_of_files(tmp_path: Path):
    def seconds(seeds: int) -> float:
        folder = write_grid(tmp_path / str(seeds), seeds=seeds)
        start = time.process_time()
        assert len(read_results(folder).cells) == 10 * seeds
        return time.process_time() - start

    seconds(1)
    assert seconds(100) < 100 * max(seconds(5), 0.005)
