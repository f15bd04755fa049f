"""`bench_trust_noise`: what it computes against sums over every outcome, what it simulates against what it computes."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from benchmarks import bench_trust_noise as bench
from benchmarks import trust_noise
from benchmarks.trust_estimators import COMPARED, expected_weight
from benchmarks.trust_noise import TRMS, Sides, exact, exact_by_right, judge, level_chances, simulate


@pytest.mark.parametrize(
    ("mean", "deviation"), [(0, 0.2), (-0.4, 0.1), (0.3, 0.5), (-0.2, 2.0), (-0.3, 1e-9), (2.0, 0.01)]
)
def test_expected_weight_is_the_integral(mean: float, deviation: float) -> None:
    if deviation < 1e-6:
        assert expected_weight(mean, deviation) == pytest.approx(math.exp(min(0, mean)))
        return
    low, high = mean - 12 * deviation, mean + 12 * deviation
    density = norm(mean, deviation).pdf
    value, _ = quad(
        lambda d: min(1.0, math.exp(d)) * density(d), low, high, points=[0.0, mean] if low < 0 < high else None
    )
    assert expected_weight(mean, deviation) == pytest.approx(value, rel=1e-6)


def test_chances_of_the_scores() -> None:
    assert level_chances(0.6, 0).tolist() == [0.0] * 6 + [1.0] + [0.0] * 4
    chances = level_chances(0.7, 0.2)
    assert chances.sum() == pytest.approx(1)
    assert chances[10] == pytest.approx(norm.sf(0.95, 0.7, 0.2))
    assert chances[3] == pytest.approx(norm.cdf(0.35, 0.7, 0.2) - norm.cdf(0.25, 0.7, 0.2))


@pytest.mark.parametrize("delta", [0.0, 0.2, -0.4])
def test_what_is_computed_is_the_sum_over_every_outcome(delta: float) -> None:
    right, wrong = (level_chances(0.5 + sign * delta / 2, 0.3) for sign in (1, -1))
    distrusted, lost = exact_by_right(3, delta, 0.3)
    for place, sides in enumerate(((right, wrong, wrong), (right, right, wrong))):
        share = mean = 0.0
        for scores in product(range(11), repeat=3):
            chance = math.prod(side[score] for side, score in zip(sides, scores, strict=True))
            of_right, of_wrong = scores[: place + 1], scores[place + 1 :]
            difference = sum(of_right) * len(of_wrong) - sum(of_wrong) * len(of_right)
            if difference < 0:
                share += chance
                mean += chance * (1 - math.exp(difference / 10 / len(of_right) / len(of_wrong)))
        assert (distrusted[place], lost[place]) == (pytest.approx(share), pytest.approx(mean))


@pytest.mark.parametrize(("right", "wrong"), [(1, 7), (4, 4)])
def test_what_is_computed_is_near_the_closed_form_of_normal_noise(right: int, wrong: int) -> None:
    """Rounding to 0.1 adds a variance of 0.1^2 / 12; at this noise hardly a score is clipped."""
    _, lost = exact_by_right(right + wrong, -0.1, 0.12)
    error = math.sqrt((0.12**2 + 0.01 / 12) * (1 / right + 1 / wrong))
    assert lost[right - 1] == pytest.approx(1 - expected_weight(-0.1, error), rel=5e-3)


def test_what_is_simulated_is_near_what_is_computed() -> None:
    steps, groups = 250, 16
    batches = simulate(8, 0.3, steps=steps, groups=groups, generator=np.random.default_rng(0))
    for trm, noise, deltas, sides in batches:
        judged = judge(COMPARED["paper"](sides), sides, deltas, noise)
        if len(TRMS[trm]) > 1:
            continue
        expected = exact(trm, 8, 0.3, noise)
        tolerance = 4 * 0.5 / math.sqrt(steps * groups)  # four standard errors of a share, which vary most
        assert judged["empty"] == pytest.approx(expected.empty, abs=tolerance)
        for name in ("distrusted", "lost"):
            assert judged[name] == pytest.approx(getattr(expected, name), abs=tolerance, nan_ok=True)
        if TRMS[trm][0] < 0:
            deserved = 1 - math.exp(trust_noise.expected_difference(TRMS[trm][0], noise))
            assert judged["kept"] == pytest.approx(expected.kept, abs=tolerance / deserved)


def test_groups_are_judged_by_what_they_deserve() -> None:
    """Without noise scores are what they should be: +0.2 and -0.4; the third group has an empty side."""
    sides = Sides(
        *(np.array([column]) for column in ([0.6, 0.3, 0.3], [0.4, 0.7, np.nan], [2, 2, 4], [2, 2, 0], [0.0] * 3))
    )
    deltas = np.array([0.2, -0.4, -0.4])
    right = judge(np.array([[1.0, math.exp(-0.4), 1.0]]), sides, deltas, 0.0)
    expected = {"empty": 1 / 3, "distrusted": 0, "lost": 0, "kept": 1, "error": 0}
    assert right == pytest.approx(expected, abs=1e-12)
    wrong = judge(np.array([[0.9, 1.0, 1.0]]), sides, deltas, 0.0)
    error = math.sqrt((0.1**2 + (1 - math.exp(-0.4)) ** 2) / 2)
    assert wrong == pytest.approx({"empty": 1 / 3, "distrusted": 1, "lost": 0.1, "kept": 0, "error": error})


@pytest.mark.parametrize("estimator", COMPARED)
def test_every_estimator_is_in_range_and_trusts_a_group_with_an_empty_side(estimator: str) -> None:
    batches = simulate(4, 0.5, steps=20, groups=5, generator=np.random.default_rng(1))
    for _, noise, _, sides in batches:
        gamma = COMPARED[estimator](sides)
        assert gamma.shape == (20, 5)
        assert np.all((gamma > 0) & (gamma <= 1))
        assert np.all(gamma[np.isnan(sides.mu_correct - sides.mu_wrong)] == 1)
        if noise == 0 and estimator not in ("one for all", "batch mean", "posterior"):
            np.testing.assert_allclose(gamma, COMPARED["paper"](sides), atol=1e-9)


def test_the_command_writes_tables_every_figure_and_a_picture(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(trust_noise, "ACCURACIES", (0.5,))
    monkeypatch.setattr(
        "sys.argv", ["bench", "--steps", "2", "--json", f"{tmp_path}/f", "--figure", f"{tmp_path}/f.svg"]
    )
    bench.main()
    told = capsys.readouterr().out
    assert told.count("exact") == len(trust_noise.SIZES)
    assert all(f"{name}: P(gamma < 1)" in told for name in COMPARED)
    found = pd.DataFrame([json.loads(line) for line in (tmp_path / "f").read_text().splitlines()])
    settings = len(trust_noise.SIZES) * len(trust_noise.NOISES)
    assert len(found) == settings * (len(TRMS) * len(COMPARED) + 5)
    assert (found[found.groups == 0].estimator == "paper").all()
    picture = ElementTree.fromstring((tmp_path / "f.svg").read_text())
    words = set(picture.itertext())
    assert {*COMPARED, "False distrust: less is better"} <= words
