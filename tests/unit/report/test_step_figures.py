"""Figures of a step are those of its rows, and those that the trainer logged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recipe.sophiavl.report.dumps import dump_files, read_step
from recipe.sophiavl.report.logs import load_metrics
from recipe.sophiavl.report.problems import Problems
from recipe.sophiavl.report.step_figures import QUANTILES, DumpTotals, completed, step_figures
from testbed.synthetic_run import SyntheticRun, write_run
from tests.support.dumped import read, response


def test_quantiles_of_gamma_are_numpys_with_each_group_once(tmp_path: Path) -> None:
    gammas = np.random.default_rng(0).uniform(0.1, 1, 37)
    rows = [response(str(i), gamma=float(gamma)) for i, gamma in enumerate(gammas) for _ in range(1 + i % 5)]
    figures = step_figures(read(tmp_path, rows)[0])
    for name, share in QUANTILES.items():
        assert figures[name] == pytest.approx(np.quantile(gammas, share))
    assert figures["trust/gamma_mean"] == pytest.approx(gammas.mean())


def test_a_group_without_a_thinking_term_has_no_gamma(tmp_path: Path) -> None:
    rows = [response("a", gamma=0.5), response("b", gamma=0.9, thinking_used=False), response("c", gamma=1.0)]
    figures = step_figures(read(tmp_path, rows)[0])
    assert (figures["trust/gamma_mean"], figures["trust/distrusted_frac"]) == (0.75, 0.5)


def test_what_was_not_measured_is_left_out(tmp_path: Path) -> None:
    rows = [response("a", thinking=None, thinking_asked=False, thinking_used=False)]
    assert step_figures(read(tmp_path, rows)[0]) == {"outcome_reward/mean": 1.0, "outcome_reward/format_ok": 1.0}


def test_figures_of_the_dumps_are_those_that_the_recipe_logs(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", SyntheticRun(steps=6, lost=0.05, unformatted=0.1))
    logged = load_metrics(sorted(run.glob("metrics*.jsonl")))
    compared = 0
    for step, file in dump_files(run / "rollouts").items():
        figures = step_figures(read_step(step, file, Problems()))
        for name in figures.keys() & logged[step].keys():
            assert figures[name] == pytest.approx(logged[step][name], abs=1e-12), (step, name)
            compared += 1
    assert compared == 6 * 6


def test_totals_count_what_was_lost_and_why(tmp_path: Path) -> None:
    totals = DumpTotals()
    totals.add(read(tmp_path, [response("a", thinking=None, thinking_error="busy"), response("a")], step=1)[0])
    unformatted = response("c", format_ok=False, thinking_asked=False)
    totals.add(read(tmp_path, [response("b", thinking=None), unformatted], step=2)[0])
    assert (totals.responses, totals.groups, totals.asked, totals.lost) == (4, 3, 3, 2)
    assert (totals.unformatted, totals.format_known) == (1, 4)
    assert totals.errors == {"busy": 1, "no reason given": 1}
    assert list(totals.metrics) == [1, 2]


def test_the_metrics_go_before_what_the_dumps_tell() -> None:
    found = completed({2: {"a": 1.0}, 1: {"b": 2.0}}, {2: {"a": 9.0, "c": 3.0}, 3: {"c": 4.0}})
    assert found == {1: {"b": 2.0}, 2: {"a": 1.0, "c": 3.0}, 3: {"c": 4.0}}
    assert list(found) == [1, 2, 3]
