"""Which rows are drawn: intervals, floor and cap, and sides that share no question."""

import re
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.sophiavl.trm_training.balance import BalanceSettings, choose
from recipe.sophiavl.trm_training.intervals import INTERVAL_NAMES, INTERVALS, interval
from recipe.sophiavl.trm_training.pairs import PairsError

# ---------------------------------------------------------------- intervals


@pytest.mark.parametrize(
    ("score", "place"),
    [
        (0.0, 0),
        (0.09, 0),
        (0.1, 1),
        (0.3, 3),
        (0.1 + 0.2, 3),  # 0.30000000000000004
        (0.29, 2),
        (0.6, 6),
        (0.7, 7),
        (0.7 - 1e-16, 7),
        ((0.7 + 0.7 + 0.7) / 3, 7),
        (0.7999999, 8),
        (0.799999, 7),
        (0.95, 9),
        (0.9999999, 9),
        (1.0, 9),
    ],
)
def test_interval(score, place):
    assert interval(score) == place


@pytest.mark.parametrize("tenths", range(11))
def test_every_tenth_opens_its_interval_however_it_was_computed(tenths):
    for score in (tenths / 10, tenths * 0.1, sum([0.1] * tenths), float(f"0.{tenths}") if tenths < 10 else 1.0):
        assert interval(min(score, 1.0)) == min(tenths, 9)


@settings(deadline=None)
@given(st.floats(0, 1))
def test_every_score_lies_in_the_one_interval_that_its_millionths_say(score):
    millionths = round(Fraction(score) * 10**6)
    inside = [
        i for i in range(INTERVALS) if i * 10**5 <= millionths < (i + 1) * 10**5 or (i == 9 and millionths == 10**6)
    ]
    assert inside == [interval(score)]


@pytest.mark.parametrize("score", [-0.01, 1.01, float("nan"), float("inf")])
def test_no_interval(score):
    with pytest.raises(ValueError, match=re.escape(f"score {score!r} is not in [0, 1]")):
        interval(score)


def test_names():
    assert INTERVAL_NAMES[0] == "[0.0, 0.1)"
    assert INTERVAL_NAMES[3] == "[0.3, 0.4)"
    assert INTERVAL_NAMES[9] == "[0.9, 1.0]"
    assert len(INTERVAL_NAMES) == INTERVALS == 10


# ---------------------------------------------------------------- drawing


def test_turns_over_the_questions():
    rows = [(number, "often", 0.55) for number in range(100)] + [(100 + i, f"rare {i // 2}", 0.55) for i in range(20)]
    chosen = choose(rows, BalanceSettings(floor=0, cap=22))
    names = {number: question for number, question, _ in rows}
    counts = Counter(names[number] for number in chosen)
    # eleven questions: each gets two
    assert set(counts.values()) == {2}
    assert len(counts) == 11


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1)), max_size=120), st.integers(1, 12), st.integers(0, 3))
def test_no_count_exceeds_the_cap_and_nothing_below_it_is_lost(rows, cap, seed):
    numbered = [(number, f"q{question}", score) for number, (question, score) in enumerate(rows)]
    limits = BalanceSettings(floor=0, cap=cap, seed=seed)
    chosen = choose(numbered, limits)
    assert len(chosen) == len(set(chosen))
    have, got = Counter(interval(row[2]) for row in numbered), Counter(interval(numbered[i][2]) for i in chosen)
    assert got == {place: min(cap, count) for place, count in have.items()}
    assert chosen == choose(numbered, limits)
    for place, count in have.items():
        if count > cap:  # no question has more than one above another that still had rows
            inside = [row for row in numbered if interval(row[2]) == place]
            total, drawn = (
                Counter(row[1] for row in inside),
                Counter(numbered[i][1] for i in chosen if numbered[i] in inside),
            )
            assert all(drawn[q] == total[q] or drawn[q] >= max(drawn.values()) - 1 for q in total)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), max_size=60), st.integers(0, 10), st.integers(1, 4))
def test_repeating_fills_up_to_the_floor_but_no_row_too_often(scores, floor, most):
    rows = [(number, f"q{number % 7}", score) for number, score in enumerate(scores)]
    limits = BalanceSettings(floor=floor, cap=max(floor, 1), below_floor="repeat", max_repeats=most)
    counts = Counter(choose(rows, limits))
    assert max(counts.values(), default=0) <= most
    have = Counter(interval(score) for score in scores)
    got = Counter()
    for number, times in counts.items():
        got[interval(scores[number])] += times
    for place, count in have.items():
        kept = min(count, limits.cap)
        assert got[place] == max(kept, min(floor, kept * most))
        # evenly: no row twice more often than another
        inside = [counts[n] for n, _, score in rows if interval(score) == place and n in counts]
        assert max(inside) - min(inside) <= 1


def test_the_seed_decides_which_rows_of_a_question_are_drawn():
    rows = [(number, "one", 0.55) for number in range(50)]
    drawn = [set(choose(rows, BalanceSettings(floor=0, cap=5, seed=seed))) for seed in range(4)]
    assert len(set().union(*drawn)) > 10


def test_below_the_floor():
    rows = [(0, "a", 0.05), (1, "b", 0.05)]
    limits = {"floor": 3, "cap": 5}
    assert sorted(choose(rows, BalanceSettings(**limits))) == [0, 1]
    assert sorted(set(choose(rows, BalanceSettings(**limits, below_floor="repeat")))) == [0, 1]
    assert len(choose(rows, BalanceSettings(**limits, below_floor="repeat"))) == 3
    with pytest.raises(
        PairsError, match=r"^interval \[0.0, 0.1\) has 2 rows, fewer than --floor 3: annotate more pairs"
    ):
        choose(rows, BalanceSettings(**limits, below_floor="stop"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"floor": 6, "cap": 5}, "--floor 6 is more than --cap 5"),
        ({"floor": -1}, "--floor=-1: Input should be greater than or equal to 0"),
        ({"floor": 0, "cap": 0}, "--cap=0: Input should be greater than or equal to 1"),
        ({"max_repeats": 0}, "--max-repeats=0: Input should be greater than or equal to 1"),
        ({"test_fraction": 1.0}, "--test-fraction=1.0: Input should be less than 1"),
        ({"val_fraction": -0.1}, "--val-fraction=-0.1: Input should be greater than or equal to 0"),
        ({"below_floor": "drop"}, "--below-floor='drop': Input should be 'warn', 'repeat' or 'stop'"),
        (
            {"test_fraction": 0.5, "val_fraction": 0.5},
            "--test-fraction and --val-fraction leave nothing for training",
        ),
    ],
)
def test_impossible_settings(wrong, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        BalanceSettings(**wrong)
