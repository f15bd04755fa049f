"""Charts draw what was measured: one meaning an axis, stages that add up, bands that are intervals."""

from __future__ import annotations

import numpy as np
import pytest

from recipe.sophiavl.report.charts import charts, drawn, thinned
from recipe.sophiavl.report.run_data import Auc, Chart, Line, TrustBin, ValidationRow

EVERYTHING = {
    "outcome_reward/mean": ([1, 2], [0.1, 0.2]),
    "outcome_reward/ocr/mean": ([1], [0.3]),
    "outcome_reward/multiple_choice/mean": ([2], [0.4]),
    "trust/gamma_mean": ([1, 2], [0.9, 0.8]),
    "gamma/q05": ([1, 2], [0.5, 0.4]),
    "timing_s/step": ([1, 2, 3], [10.0, 12.0, 11.0]),
    "timing_s/gen": ([1, 2, 3], [6.0, 7.0, 9.0]),
    "timing_s/testing": ([2], [4.0]),
    "timing_s/gen/slowest": ([1, 2, 3], [6.0, 7.0, 9.0]),
}


def made(curves: dict, validation: list = (), bins: list = (), points: int = 100) -> dict[str, Chart]:
    return {chart.key: chart for chart in charts(curves, validation, bins, points)}


def test_only_what_was_measured_has_a_chart_each_with_a_note() -> None:
    found = made(EVERYTHING)
    assert set(found) == {"outcome", "outcome_by_type", "gamma", "time"}
    assert all(chart.note.endswith(".") and chart.title and chart.lines for chart in found.values())
    assert {line.label: line.values for line in found["gamma"].lines} == {"mean": [0.9, 0.8], "5 %": [0.5, 0.4]}
    assert [line.label for line in found["outcome_by_type"].lines] == ["multiple choice", "ocr"]
    assert made({}) == {}


def test_stages_add_up_to_the_step_and_one_that_was_not_run_took_no_time() -> None:
    chart = made(EVERYTHING)["time"]
    lines = {line.label: list(line.values) for line in chart.lines}
    assert lines == {"gen": [6.0, 7.0, 9.0], "testing": [0.0, 4.0, 0.0], "other": [4.0, 1.0, 2.0]}
    assert chart.kind == "stack"
    assert all(list(line.steps) == [1, 2, 3] for line in chart.lines)


def test_stages_that_overlap_leave_nothing_below_zero() -> None:
    curves = {"timing_s/step": ([1], [10.0]), "timing_s/gen": ([1], [8.0]), "timing_s/update_actor": ([1], [7.0])}
    assert made(curves)["time"].lines[-1].values == [0.0]


def test_a_validations_band_is_its_interval() -> None:
    rows = [
        ValidationRow(0, "greedy", "outcome_reward", None, 0.5, 0.1, 9),
        ValidationRow(0, "greedy", "outcome_reward", "ocr", 0.9, 0.1, 4),
        ValidationRow(0, "greedy", "format_ok", None, 0.9, 0.1, 9),
        ValidationRow(0, "sampled", "outcome_reward", None, 0.4, None, 9),
        ValidationRow(8, "greedy", "outcome_reward", None, 0.95, 0.1, 9),
    ]
    greedy, sampled = made({}, rows)["validation"].lines
    assert (greedy.label, greedy.steps, greedy.values) == ("greedy", [0, 8], [0.5, 0.95])
    assert greedy.low == pytest.approx([0.304, 0.754])
    assert greedy.high == pytest.approx([0.696, 1.0])
    assert (sampled.values, sampled.low) == ([0.4], None)


def test_the_auc_is_drawn_at_the_end_of_its_steps_and_marks_where_it_warns() -> None:
    bins = [
        TrustBin(1, 5, [1], [1], Auc(0.8, 0.7, 0.9), Auc(None, reason="no")),
        TrustBin(6, 9, [0], [0], Auc(None, reason="nothing"), Auc(None, reason="no")),
        TrustBin(10, 12, [1], [1], Auc(0.6, 0.5, 0.7), Auc(None, reason="no")),
    ]
    chart = made({}, bins=bins)["auc"]
    (line,) = chart.lines
    assert (line.steps, line.values, line.low, line.high) == ([5, 12], [0.8, 0.6], [0.7, 0.5], [0.9, 0.7])
    assert chart.warning == (0.0, 0.5)


def test_long_lines_are_averaged_in_blocks_and_say_so() -> None:
    values = np.random.default_rng(0).random(1000)
    line = Line("a", list(range(1, 1001)), values.tolist(), low=(values - 1).tolist(), high=(values + 1).tolist())
    short = Line("b", [1, 2], [3.0, 4.0])
    found = thinned(Chart("k", "t", "", [line, short], "Note."), 100)
    assert found.lines[1] == short
    assert len(found.lines[0].steps) == 100
    assert found.lines[0].values[3] == pytest.approx(values[30:40].mean())
    assert found.lines[0].low[3] == pytest.approx(values[30:40].mean() - 1)
    assert found.lines[0].steps[-1] == 1000
    assert "blocks of steps" in found.note
    assert thinned(found, 100) == found


def test_nothing_else_is_kept() -> None:
    assert drawn("gamma/q05")
    assert drawn("outcome_reward/free-form/mean")
    assert not drawn("perf/throughput")
    assert not drawn("outcome_reward/mean@1")
