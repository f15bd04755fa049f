"""The figures against worked examples and slow references, and every case in which one is undefined."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.sophiavl.trm_training.evaluate import figures
from recipe.sophiavl.trm_training.evaluate.rows import OPTIONAL, EvaluationSet, Row
from recipe.sophiavl.trm_training.evaluate.scoring import Scored

NAN = float("nan")


def make_data(reference, outcome=None, group=None, question=None, answer=None):
    """Rows with these references; None and columns that are None are missing."""
    count = len(reference)
    numbers = list(question or (group and [sorted(set(map(str, group))).index(str(g)) for g in group]) or range(count))
    rows = [
        Row(
            number=i,
            pair_id=None,
            question_id=f"q{numbers[i]}",
            reference=reference[i],
            outcome=outcome and outcome[i],
            group=group and group[i],
            answer=answer and answer[i],
            keys=(bytes([numbers[i]]),),
            image_count=1,
            digest=bytes([i]),
        )
        for i in range(count)
    ]
    columns = [n for n, v in (("outcome", outcome), ("group", group), ("question_id", 1)) if v is not None]
    assert set(columns) <= set(OPTIONAL)
    return EvaluationSet.of(None, count, columns, rows)


def scored(*values):
    """Scores, where text is the reason why one is missing."""
    return [Scored(None, v, "?") if isinstance(v, str) else Scored(v, None, str(v)) for v in values]


def figure(name, data, scores):
    return figures.statistics_of(data, scores)[name]


def value(name, data, scores):
    return figure(name, data, scores).value()


def test_agreement_of_a_worked_example():
    data = make_data([0.1, 0.5, 0.9, 0.4, None])
    scores = scored(0.2, 0.5, 0.4, "unparsable", 0.3)
    assert value("mae", data, scores) == pytest.approx((0.1 + 0 + 0.5) / 3)
    assert value("within_0.1", data, scores) == pytest.approx(2 / 3)
    # Ranks 1 3 2 against 1 2 3.
    assert value("spearman", data, scores) == pytest.approx(0.5)
    assert value("scored_share", data, scores) == pytest.approx(4 / 5)
    assert [figure(name, data, scores).n for name in ("mae", "spearman", "scored_share")] == [3, 3, 5]
    # The missing one stands at (0.2 + 0.5 + 0.4 + 0.3) / 4 = 0.35: ranks 1 4 3 2 against 1 3 4 2.
    assert value("spearman_missing_as_mean", data, scores) == pytest.approx(1 - 6 * 2 / (4 * 15))


@pytest.mark.parametrize("tenth", range(10))
def test_a_tenth_away_is_within_a_tenth_whatever_the_rounding(tenth):
    assert value("within_0.1", make_data([tenth / 10]), scored((tenth + 1) / 10)) == 1
    assert value("within_0.1", make_data([tenth / 10]), scored(tenth / 10 + 0.1001)) == 0


def test_a_missing_score_is_never_a_zero():
    data = make_data([0.0, 0.0, 0.8], outcome=[0.0, 0.0, 1.0])
    scores = scored("timeout", "unparsable", 0.8)
    assert value("mae", data, scores) == 0
    assert value("auc", data, scores) is None


def test_failures_are_told_by_kind():
    scores = scored("timeout", "unparsable", "no_mass", 0.5, "timeout", "http_503", 0.1, 0.2)
    found = figures.failures(scores)
    assert {name: statistic.value() for name, statistic in found.items()} == {
        "parse_failures": 2 / 5,  # of the replies; the others brought none
        "failure.http_503": 1 / 8,
        "failure.no_mass": 1 / 8,
        "failure.timeout": 2 / 8,
        "failure.unparsable": 1 / 8,
    }
    assert figures.counts_of(make_data([0.5] * 8), scores)["missing"] == {
        "http_503": 1,
        "no_mass": 1,
        "timeout": 2,
        "unparsable": 1,
    }


def test_auc_beside_the_references_own_over_the_same_rows():
    data = make_data([0.9, 0.2, 0.5, 0.1, 0.0], outcome=[1.0, 0.5, 0.49, 0.0, None])
    scores = scored(0.8, 0.4, 0.4, "timeout", 0.9)
    assert value("auc", data, scores) == pytest.approx(0.75)
    assert value("auc_reference", data, scores) == pytest.approx(0.5)
    assert figure("auc_reference", data, scores).n == 3


def test_trust_of_worked_groups():
    outcome = [1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0]
    group = ["a", "a", "b", "b", "c", "c", "d", "d"]
    data = make_data([0.9, 0.1, 0.2, 0.6, 0.5, 0.5, 0.3, 0.5], outcome, group)
    scores = scored(0.3, 0.8, 0.7, 0.7, 0.1, 0.9, 0.9, "timeout")
    # a: 0.3 < 0.8; b: equal; c has one side; d has no score on the wrong side.
    assert value("gamma", data, scores) == pytest.approx((math.exp(-0.5) + 1) / 2)
    assert value("distrusted", data, scores) == 0.5
    # a: trusted, b: 0.2 < 0.6; d has no score of the TRM on the wrong side: left out here too.
    assert value("gamma_reference", data, scores) == pytest.approx((1 + math.exp(-0.4)) / 2)
    assert value("distrusted_reference", data, scores) == 0.5
    assert (figure("gamma", data, scores).n, figure("gamma_reference", data, scores).n) == (2, 2)


def test_both_gammas_are_over_the_same_responses():
    """A response that only one of both scored moves neither mean."""
    outcome, group = [1.0, 1.0, 0.0, 0.0], ["a"] * 4
    data = make_data([0.2, 0.9, 0.6, None], outcome, group)
    scores = scored(0.3, "unparsable", 0.5, 0.0)
    assert value("gamma", data, scores) == pytest.approx(math.exp(0.3 - 0.5))
    assert value("gamma_reference", data, scores) == pytest.approx(math.exp(0.2 - 0.6))


def test_pairs_of_a_group_are_ordered_whatever_the_other_groups_are():
    # Pooled, an easy group a and a hard group b hide that inside both the order is wrong.
    group, outcome = ["a", "a", "b", "b"], [1.0, 0.0, 1.0, 0.0]
    data = make_data([0.9, 0.8, 0.2, 0.1], outcome, group)
    scores = scored(0.8, 0.9, 0.1, 0.2)
    assert value("spearman", data, scores) == pytest.approx(0.6)
    assert value("pairs_ordered", data, scores) == value("pairs_right", data, scores) == 0
    assert value("pairs_right_reference", data, scores) == 1
    assert (figure("pairs_right", data, scores).n, figure("pairs_ordered", data, scores).n) == (2, 2)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.sampled_from([0.1, 0.5, 0.9]), st.integers(0, 5))))
def test_pairs_and_picks_against_a_plain_loop(rows):
    group, outcome, reference, tenths = zip(*rows, strict=True) if rows else ((), (), (), ())
    data = make_data(list(reference), [float(o) for o in outcome], [f"g{g}" for g in group])
    scores = scored(*(tenth / 10 for tenth in tenths))
    won, right, picked, lucky, possible = [], [], [], [], []
    for name in set(group):
        mine = [i for i in range(len(rows)) if group[i] == name]
        for one, two in combinations(mine, 2):
            tie = 0.5 if tenths[one] == tenths[two] else None
            if reference[one] != reference[two]:
                won.append(tie or float((reference[one] > reference[two]) == (tenths[one] > tenths[two])))
            if outcome[one] != outcome[two]:
                right.append(tie or float((outcome[one] > outcome[two]) == (tenths[one] > tenths[two])))
        if len(mine) > 1:
            best = [outcome[i] for i in mine if tenths[i] == max(tenths[j] for j in mine)]
            picked.append(np.mean(best))
            lucky.append(np.mean([outcome[i] for i in mine]))
            possible.append(max(outcome[i] for i in mine))
    expected = {"pairs_ordered": won, "pairs_right": right, "best_of_n": picked}
    expected |= {"best_of_n_random": lucky, "best_of_n_oracle": possible}
    found = figures.statistics_of(data, scores)
    for name, values in expected.items():
        assert found[name].n == len(values)
        assert found[name].value() == (pytest.approx(np.mean(values)) if values else None)


def test_the_best_of_n_of_worked_groups():
    outcome = [1.0, 0.0, 0.0, 0.6, 0.0, 0.0, 1.0]
    group = ["a", "a", "a", "b", "b", "b", "c"]
    answer = ["4", "5", "5", "red", "red", None, "7"]
    data = make_data([0.1, 0.2, 0.9, 0.9, 0.2, 0.1, 0.5], outcome, group, answer=answer)
    scores = scored(0.9, 0.2, 0.3, 0.7, 0.7, 0.1, 0.5)
    # a: the TRM picks the right one; b: two tie, one of them right; c has one response: nothing to pick.
    assert value("best_of_n", data, scores) == pytest.approx((1 + 0.5) / 2)
    assert value("best_of_n_reference", data, scores) == pytest.approx((0 + 1) / 2)
    assert value("best_of_n_random", data, scores) == pytest.approx((1 / 3 + 1 / 3) / 2)
    # a: "5"; b: "red", right in one response and wrong in the other.
    assert value("best_of_n_majority", data, scores) == pytest.approx((0 + 0.5) / 2)
    assert value("best_of_n_oracle", data, scores) == 1
    without = make_data([0.1, 0.2], [1.0, 0.0], ["a", "a"])
    assert "no response with an answer" in figure("best_of_n_majority", without, scored(0.1, 0.2)).undefined


def test_a_scorer_without_eyes_stands_in_every_line():
    data = make_data([0.9, 0.1, 0.2, 0.6], [1.0, 0.0, 1.0, 0.0], ["a", "a", "b", "b"])
    found = figures.statistics_of(data, scored(0.9, 0.1, 0.2, 0.6), np.array([0.5, 0.4, 0.5, 0.4]))
    assert found["mae"].value() == 0
    assert found["mae_blind"].value() == pytest.approx((0.4 + 0.3 + 0.3 + 0.2) / 4)
    assert found["auc_blind"].value() == found["pairs_right_blind"].value() == found["gamma_blind"].value() == 1
    assert found["pairs_ordered_blind"].value() == 0.5


def test_figures_say_how_many_questions_and_images_they_are_about():
    data = make_data([0.1, 0.2, 0.3, None], question=[0, 0, 1, 2])
    assert data.counts(figure("mae", data, scored(0.1, 0.2, 0.3, 0.4)).rows) == {"questions": 2, "images": 2}
    assert data.counts(np.arange(4)) == {"questions": 3, "images": 3}


def slow_gamma(data, thinking):
    gammas = []
    for group in sorted({row.group for row in data.rows}):
        sides = ([], [])
        for row, score in zip(data.rows, thinking, strict=True):
            if row.group == group and score is not None:
                sides[row.outcome >= 0.5].append(score)
        wrong, correct = sides
        if wrong and correct:
            difference = sum(correct) / len(correct) - sum(wrong) / len(wrong)
            gammas.append(math.exp(difference) if difference < -1e-12 else 1.0)
    return gammas


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1), st.sampled_from([None, 0.0, 0.3, 0.7, 1.0])), min_size=1)
)
def test_gamma_against_a_plain_loop(rows):
    group, outcome, trm = zip(*rows, strict=True)
    data = make_data([0.5] * len(rows), [float(o) for o in outcome], [f"g{g}" for g in group])
    scores = scored(*("timeout" if score is None else score for score in trm))
    expected = slow_gamma(data, trm)
    found = figures.statistics_of(data, scores)
    assert found["gamma"].value() == (pytest.approx(np.mean(expected)) if expected else None)
    assert found["distrusted"].value() == (pytest.approx(np.mean([g < 1 for g in expected])) if expected else None)


ALL_MISSING = scored("timeout", "timeout")


@pytest.mark.parametrize(
    ("names", "data", "scores", "reason"),
    [
        (("mae", "within_0.1"), make_data([0.1, 0.2]), ALL_MISSING, "no row has both"),
        (("mae",), make_data([None, None]), scored(0.1, 0.2), "no row has both"),
        (("spearman",), make_data([0.1, 0.2]), ALL_MISSING, "fewer than two"),
        (("spearman", "spearman_missing_as_mean"), make_data([0.1, 0.2]), scored(0.5, 0.5), "the scores are equal"),
        (("spearman", "spearman_missing_as_mean"), make_data([0.5, 0.5]), scored(0.1, 0.2), "reference are equal"),
        (("spearman_missing_as_mean",), make_data([0.1, 0.2]), ALL_MISSING, "no row has a score"),
        (("auc", "auc_reference"), make_data([0.1, 0.2]), scored(0.1, 0.2), "no column outcome"),
        (("auc", "auc_reference"), make_data([0.1, 0.2], [1.0, 1.0]), scored(0.1, 0.2), "all outcomes are correct"),
        (("auc", "auc_reference"), make_data([0.1, 0.2], [None, None]), scored(0.1, 0.2), "no rows"),
        (("gamma", "distrusted_reference"), make_data([0.1], None, ["a"]), scored(0.1), "no column outcome"),
        (("gamma", "distrusted_reference"), make_data([0.1], [1.0]), scored(0.1), "no column group"),
        (("gamma", "gamma_reference"), make_data([0.1]), scored(0.1), "outcome and none of group"),
        (("gamma", "distrusted"), make_data([0.1, 0.2], [0.0, 1.0], ["a", "a"]), ALL_MISSING, "no group"),
        (("gamma", "gamma_reference"), make_data([0.1, 0.2], [1.0, 1.0], ["a", "a"]), scored(0.1, 0.2), "no group"),
        (("gamma",), make_data([0.1, 0.2], [0.0, 1.0], ["a", "a"], [0, 1]), scored(0.1, 0.2), "holds 2 questions"),
        (("gamma",), make_data([0.1, 0.2], [0.0, 1.0], [None, None], [0, 1]), scored(0.1, 0.2), "no group"),
    ],
)
def test_what_cannot_be_computed_says_why(names, data, scores, reason):
    for name in names:
        statistic = figure(name, data, scores)
        assert statistic.value() is None
        assert reason in statistic.undefined


def test_every_figure_has_a_title_and_its_place():
    names = list(figures.statistics_of(make_data([0.5, 0.6]), scored(0.5, "timeout"), np.array([0.1, 0.2])))
    assert names[:3] == ["mae", "mae_blind", "within_0.1"]
    assert names[-1] == "failure.timeout"
    assert figures.title_of("failure.timeout") == "missing: timeout"
    raters = [end for end in figures.RATERS if end]
    plain = {next((name.removesuffix(end) for end in raters if name.endswith(end)), name) for name in names[:-1]}
    assert plain == set(figures.TITLES)


@pytest.mark.parametrize(
    ("score", "place"),
    [(0.0, 0), (0.05, 0), (0.1, 1), (0.3, 3), (0.1 * 3, 3), (0.7, 7), (0.7 - 1e-12, 7), (0.69, 6), (0.9, 9), (1.0, 9)],
)
def test_the_interval_of_a_score(score, place):
    assert figures.interval_of(np.array([score])).tolist() == [place]


def test_confusion_counts_reference_by_trm():
    table = figures.confusion(np.array([0.05, 0.95, 1.0, 0.5, NAN]), np.array([0.9, 0.9, 1.0, NAN, 0.5]))
    assert (table[0][9], table[9][9], np.sum(table)) == (1, 2, 3)


def test_reliability_is_the_mean_reference_by_interval_of_the_trm():
    bins = figures.reliability(np.array([0.1, 0.3, 0.9, NAN]), np.array([0.81, 0.89, 0.2, 0.85]))
    assert (bins["reliability.8"].value(), bins["reliability.8"].n) == (pytest.approx(0.2), 2)
    assert bins["reliability.2"].value() == pytest.approx(0.9)
    assert (bins["reliability.0"].value(), bins["reliability.0"].undefined) == (None, "no rows")


def test_a_perfect_trm_lies_on_the_diagonal_of_the_reliability_diagram():
    tenths = np.arange(11) / 10
    bins = figures.reliability(tenths, tenths)
    means = figures.reliability_scores(tenths, tenths)
    assert means == pytest.approx([bins[f"reliability.{k}"].value() for k in range(10)])
    assert figures.reliability_scores(tenths[:1], np.array([NAN])) == [None] * 10


def test_no_reply_at_all_has_no_rate_of_parse_failures():
    found = figures.failures(scored("timeout", "connect"))["parse_failures"]
    assert (found.value(), found.undefined) == (None, "no reply came")


def test_the_worst_rows_come_first_and_equal_ones_are_none():
    reference, trm = np.array([0.5, 0.1, 0.9, 0.4, 0.3]), np.array([0.5, 0.3, NAN, 1.0, 0.1])
    assert figures.worst_rows(reference, trm, 12) == [3, 1, 4]
    assert figures.worst_rows(reference, trm, 1) == [3]
