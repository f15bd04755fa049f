"""Trust is told from the rows: bins of steps, points of groups, and a verdict when the AUC falls."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from recipe.sophiavl.report.run_data import Auc, Trust
from recipe.sophiavl.report.trust_data import BINS, TrustCollector, verdict
from tests.support.dumped import read, response


def trust(folder: Path, steps: dict[int, list[dict]], points: int = 1000) -> Trust | None:
    collector = TrustCollector(list(steps), points=points, seed=0)
    for step, rows in steps.items():
        dump, _ = read(folder, rows, step=step)
        if dump is not None:
            collector.add(dump, dump.numbers["outcome_reward"] >= 0.5)
    return collector.finish()


def random_rows(step: int, skill: float, groups: int = 24, size: int = 6) -> list[dict]:
    generator = np.random.default_rng(step)
    rows = []
    for group in range(groups):
        for _ in range(size):
            right = float(generator.random() < 0.5)
            score = float(np.clip(np.round(generator.normal(0.5 + skill * (right - 0.5), 0.2), 2), 0, 1))
            rows.append(response(f"{step}-{group}", right, score, index=step * 1000 + group))
    return rows


def test_bins_hold_all_steps_in_order_and_their_own_rows(tmp_path: Path) -> None:
    steps = {step: random_rows(step, 0.3, groups=4) for step in range(3, 3 + 2 * BINS + 5)}
    found = trust(tmp_path, steps)
    assert found.bins[0].first == 3
    assert [later.first for later in found.bins[1:]] == [one.last + 1 for one in found.bins[:-1]]
    assert found.bins[-1].last == 2 * BINS + 7
    assert len(found.bins) == BINS
    one = found.bins[4]
    rows = [row for step in range(one.first, one.last + 1) for row in steps[step]]
    sides = [row["outcome_reward"] for row in rows]
    assert one.auc.value == pytest.approx(roc_auc_score(sides, [row["thinking_reward"] for row in rows]))
    assert (sum(one.right), sum(one.wrong)) == (sum(sides), len(sides) - sum(sides))


def test_only_what_the_trm_scored_counts(tmp_path: Path) -> None:
    rows = [response("a", 1.0, 0.2), response("a", 0.0, 0.6)]
    by_rule = [response("a", 0.0, 0.0, format_ok=False, thinking_asked=False)] * 9
    (one,) = trust(tmp_path, {1: rows + by_rule}).bins
    assert (one.auc.value, sum(one.wrong)) == (0.0, 1)


def test_points_are_groups_with_both_sides_and_the_distrusted_are_counted(tmp_path: Path) -> None:
    rows = [
        *[response("a", 1.0, 0.2, mu_correct=0.25, mu_wrong=0.5, gamma=0.75)] * 3,
        response("b", 1.0, 0.9, mu_correct=0.9, mu_wrong=None, gamma=1.0),
        response("c", 1.0, 0.9, mu_correct=0.9, mu_wrong=0.1, gamma=1.0, thinking_used=False),
    ]
    found = trust(tmp_path, {5: rows})
    (point,) = found.points
    assert (point.step, point.mu_correct, point.mu_wrong, point.gamma, point.size) == (5, 0.25, 0.5, 0.75, 3)
    assert (found.groups, found.distrusted, found.points_of) == (2, 1, 1)


def test_points_are_bounded_spread_over_the_steps_and_told(tmp_path: Path) -> None:
    steps = {step: [response(f"{step}-{i}") for i in range(30)] for step in range(1, 21)}
    found = trust(tmp_path, steps, points=100)
    assert (len(found.points), found.points_of) == (100, 600)
    assert "100 of 600" in found.notes["points"]
    assert [point.step for point in found.points] == sorted(point.step for point in found.points)
    assert len({point.step for point in found.points}) > 15


def test_a_deceived_reward_model_is_a_warning_with_its_numbers(tmp_path: Path) -> None:
    found = trust(tmp_path, {step: random_rows(step, 0.5 if step < 12 else 0.1) for step in range(1, 21)})
    assert found.verdict.level == "warning"
    assert found.verdict.change.high < 0
    assert "less well than at the start" in found.verdict.text
    assert "steps 1 to 4" in found.verdict.text
    assert "steps 17 to 20" in found.verdict.text
    aucs = []
    for steps, skill in ((range(1, 5), 0.5), (range(17, 21), 0.1)):
        rows = [row for step in steps for row in random_rows(step, skill)]
        aucs.append(roc_auc_score([row["outcome_reward"] for row in rows], [row["thinking_reward"] for row in rows]))
    assert found.verdict.change.value == pytest.approx(aucs[1] - aucs[0])


def test_a_steady_one_is_fine(tmp_path: Path) -> None:
    found = trust(tmp_path, {step: random_rows(step, 0.4) for step in range(1, 21)})
    assert found.verdict.level == "ok"
    assert found.verdict.change.low < 0 < found.verdict.change.high


def test_one_that_never_knew_is_a_warning(tmp_path: Path) -> None:
    found = trust(tmp_path, {step: random_rows(step, 0.0) for step in range(1, 21)})
    assert found.verdict.level == "warning"
    assert "coin" in found.verdict.text


def test_steady_runs_are_rarely_called_fallen(tmp_path: Path) -> None:
    fallen = 0
    for run in range(10):
        steps = {step: random_rows(1000 * run + step, 0.4, groups=8) for step in range(1, 6)}
        fallen += trust(tmp_path, steps).verdict.change.high < 0
    assert fallen <= 2


def test_one_step_tells_no_course(tmp_path: Path) -> None:
    assert trust(tmp_path, {1: random_rows(1, 0.4)}).verdict.level == "unknown"


def test_right_answers_alone_leave_the_verdict_open_and_say_why(tmp_path: Path) -> None:
    found = trust(tmp_path, {step: [response(f"{step}", 1.0, 0.5)] for step in range(1, 6)})
    assert found.verdict.level == "unknown"
    assert "nothing to tell apart" in found.verdict.text
    assert all(one.auc.value is None and one.auc.reason for one in found.bins)


def test_without_any_thinking_reward_there_is_nothing_to_trust(tmp_path: Path) -> None:
    rows = [response("a", 1.0, None, thinking_asked=False, thinking_used=False)]
    assert trust(tmp_path, {1: rows}) is None
    assert trust(tmp_path, {}) is None


def test_steps_without_a_response_leave_their_bins_empty(tmp_path: Path) -> None:
    steps = {1: random_rows(1, 0.4), 2: [], 3: random_rows(3, 0.4)}
    bins = trust(tmp_path, steps).bins
    assert [(one.first, sum(one.right) + sum(one.wrong)) for one in bins] == [(1, 144), (2, 0), (3, 144)]


def test_below_a_coin_is_said_so() -> None:
    good, bad = Auc(0.5, 0.4, 0.6), Auc(0.3, 0.2, 0.4)
    spans = {"first": {1, 2}, "last": {8, 9}}
    said = verdict((bad, bad), (bad, bad), Auc(0.0, -0.1, 0.1), spans)
    assert (said.level, "worse than a coin" in said.text) == ("warning", True)
    assert "no better than a coin" in verdict((good, good), (good, good), Auc(0.0, -0.1, 0.1), spans).text
