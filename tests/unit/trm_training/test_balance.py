"""Balanced training files: what is written to which file, inputs that cannot be used, and the command."""

import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_preprocess.core.images import pixel_digest
from data_preprocess.core.splits import VAL, SplitAssigner, leak_keys
from data_preprocess.schema import THINKING_SCHEMA
from recipe.sophiavl.trm_training.balance import (
    BalanceSettings,
    balance,
    main,
)
from recipe.sophiavl.trm_training.intervals import draw_distribution, interval
from recipe.sophiavl.trm_training.pairs import PAIR_SCHEMA, PairsError, read_pairs, write_pairs
from tests.support.scored_rows import make_row, write_rows

SMALL = {"floor": 2, "cap": 5, "test_fraction": 0.2}

# ---------------------------------------------------------------- files


def some_rows(questions=30, responses=11):
    return [make_row(q, r) for q in range(questions) for r in range(responses)]


def sides_of(out):
    files = {name: out / f"{name}.parquet" for name in ("train", "val", "test")}
    return {name: list(read_pairs(file)) for name, file in files.items() if file.exists()}


def side_of(row, limits):
    """The side of a row that shares no image with a row of another question."""
    keys = leak_keys(row["question"], [pixel_digest(image["bytes"]) for image in row["images"]])
    for name, share in (("test", limits.test_fraction), ("val", limits.test_fraction + limits.val_fraction)):
        if SplitAssigner(share, limits.seed).side(keys) == VAL:
            return name
    return "train"


def ids(rows):
    return [row["pair_id"] for row in rows]


def test_training_rows_are_balanced_and_test_rows_are_not(tmp_path):
    rows = some_rows()
    file = write_rows(tmp_path / "a.parquet", rows)
    result = balance([file], tmp_path / "out", BalanceSettings(**SMALL, val_fraction=0.2))
    found = sides_of(tmp_path / "out")
    assert result.rows == 330
    by_question = Counter(row["question_id"] for row in rows)
    for name in ("test", "val"):
        # whole questions, in the order of the input
        assert all(by_question[q] == n for q, n in Counter(row["question_id"] for row in found[name]).items())
        chosen = set(ids(found[name]))
        assert ids(found[name]) == [row["pair_id"] for row in rows if row["pair_id"] in chosen]
    assert Counter(interval(row["score"]) for row in found["train"]) == dict.fromkeys(range(10), 5)
    assert result.after == [5] * 10
    train_questions = 30 - len({row["question_id"] for name in ("test", "val") for row in found[name]})
    assert result.before == result.filtered == [train_questions] * 9 + [2 * train_questions]
    assert (result.train, result.val, result.test) == tuple(len(found[name]) for name in ("train", "val", "test"))


def test_validation_rows_are_filtered_and_test_rows_are_not(tmp_path):
    limits = BalanceSettings(floor=0, test_fraction=0.3, val_fraction=0.3)
    rows = [
        make_row(q, r, **({"thinking": "Hm."} if r == 1 else {}), pair_id=f"{q}/{r}") for q in range(30) for r in (0, 1)
    ]
    balance([write_rows(tmp_path / "a.parquet", rows)], tmp_path / "out", limits)
    short = {name: sum(row["thinking"] == "Hm." for row in found) for name, found in sides_of(tmp_path / "out").items()}
    assert short == {"train": 0, "val": 0, "test": len(sides_of(tmp_path / "out")["test"]) // 2}
    assert short["test"] > 0


def test_the_order_of_the_files_does_not_decide_which_rows_are_drawn(tmp_path):
    """Few questions with many rows in one interval: where most is left out."""
    rows = [make_row(q, r, score=0.55) for q in range(3) for r in range(11)]
    drawn = []
    for name, given_rows in (("one", rows), ("two", rows[::-1])):
        file = write_rows(tmp_path / f"{name}.parquet", given_rows)
        balance([file], tmp_path / name, BalanceSettings(floor=0, cap=6, test_fraction=0.0))
        drawn.append(ids(sides_of(tmp_path / name)["train"]))
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 6


def test_rows_are_written_whole(tmp_path):
    rows = {row["pair_id"]: row for row in some_rows(10)}
    file = write_rows(tmp_path / "a.parquet", [{**row, "reply": "0.5", "step": 3} for row in rows.values()])
    balance([file], tmp_path / "out", BalanceSettings(**SMALL))
    for name, found in sides_of(tmp_path / "out").items():
        for row in found:
            expected = (
                dict.fromkeys(PAIR_SCHEMA.names) | rows[row["pair_id"]] | {"reply": "0.5", "step": 3, "split": name}
            )
            assert row == expected


def test_training_rows_are_shuffled(tmp_path):
    file = write_rows(tmp_path / "a.parquet", some_rows())
    balance([file], tmp_path / "out", BalanceSettings(floor=0, cap=100))
    places = [interval(row["score"]) for row in sides_of(tmp_path / "out")["train"]]
    assert sum(a == b for a, b in pairwise(places)) < len(places) / 4


@settings(max_examples=15, deadline=None)
@given(
    shape=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 10)), min_size=1, max_size=80, unique=True),
    seed=st.integers(0, 9),
    cap=st.integers(1, 6),
    cut=st.floats(0, 1),
    order=st.randoms(use_true_random=False),
)
def test_properties_of_whole_runs(tmp_path_factory, shape, seed, cap, cut, order):
    folder = tmp_path_factory.mktemp("balance")
    rows = [make_row(q, r) for q, r in shape]
    limits = BalanceSettings(floor=0, cap=cap, test_fraction=0.3, val_fraction=0.2, seed=seed)
    shuffled = order.sample(rows, len(rows))
    at = int(cut * len(rows))
    first = write_rows(folder / "one.parquet", rows)
    parts = [write_rows(folder / "b.parquet", shuffled[:at]), write_rows(folder / "a.parquet", shuffled[at:])]
    if all(side_of(row, limits) != "train" for row in rows):
        with pytest.raises(PairsError, match="none is left to train on"):
            balance([first], folder / "one", limits)
        return
    result = balance([first], folder / "one", limits)
    balance(parts, folder / "two", limits)
    one, two = sides_of(folder / "one"), sides_of(folder / "two")
    assert one["train"] == two["train"]  # the same rows in the same order
    assert {name: sorted(ids(found)) for name, found in one.items()} == {
        name: sorted(ids(found)) for name, found in two.items()
    }
    questions = defaultdict(set)
    for name, found in one.items():
        for row in found:
            questions[row["question_id"]].add(name)
    assert all(len(names) == 1 for names in questions.values())
    assert max(result.after) <= cap
    assert sum(result.before) + result.test + result.val == len(rows)
    assert result.train == sum(result.after) == len(one["train"])


def test_what_is_rejected_is_written_with_its_reason(tmp_path):
    train = [q for q in range(40) if side_of(make_row(q), BalanceSettings(test_fraction=0.5)) == "train"]
    test = [q for q in range(40) if q not in train]
    rows = [
        *(make_row(q, 5) for q in range(40)),
        make_row(train[0], 7, thinking="Hm.", pair_id="short"),
        make_row(train[0], 8, score=None, pair_id="unscored"),
        make_row(train[1], 5, score=0.9),  # a pair again
        make_row(test[0], 7, thinking="Hm.", pair_id="short test"),
        make_row(test[0], 8, score=None, pair_id="unscored test"),
    ]
    file = write_rows(tmp_path / "a.parquet", rows)
    result = balance([file], tmp_path / "out", BalanceSettings(floor=0, test_fraction=0.5))
    lines = [json.loads(line) for line in (tmp_path / "out/rejected.jsonl").read_text().splitlines()]
    assert lines == [
        {"pair_id": "short", "rule": "too_short", "score": 0.7, "detail": "3 characters"},
        {"pair_id": "unscored", "rule": "no_score", "score": None, "detail": "no score"},
        {
            "pair_id": make_row(train[1], 5)["pair_id"],
            "rule": "duplicate_other_score",
            "score": 0.9,
            "detail": "an earlier row holds the same pair with score 0.5, which is the one that is used",
        },
        {"pair_id": "unscored test", "rule": "no_score", "score": None, "detail": "no score"},
    ]
    assert result.rejected == {"too_short": 1, "no_score": 2, "duplicate_other_score": 1}
    # what is tested on is not filtered
    assert "short test" in ids(sides_of(tmp_path / "out")["test"])
    assert result.rows == result.train + result.test + result.val + result.rejected.total()


def test_a_scored_row_counts_though_an_unscored_one_of_its_pair_came_first(tmp_path):
    first, second = (write_rows(tmp_path / f"{s}.parquet", [make_row(0, 5, score=s), make_row(1)]) for s in (None, 0.5))
    result = balance([first, second], tmp_path / "out", BalanceSettings(floor=0, test_fraction=0.0))
    assert (result.train, result.rejected) == (2, {"no_score": 1, "duplicate": 1})


def test_repeated_rows_are_written_repeatedly(tmp_path):
    file = write_rows(tmp_path / "a.parquet", [make_row(q, 5) for q in range(4)])
    limits = BalanceSettings(floor=10, cap=10, below_floor="repeat", test_fraction=0.0)
    result = balance([file], tmp_path / "out", limits)
    found = sides_of(tmp_path / "out")["train"]
    assert sorted(Counter(ids(found)).values()) == [2, 2, 3, 3]
    assert result.after[5] == 10
    assert result.filtered[5] == 4


def test_files_of_an_earlier_run_do_not_stay(tmp_path):
    file = write_rows(tmp_path / "a.parquet", some_rows())
    balance([file], tmp_path / "out", BalanceSettings(**SMALL, val_fraction=0.2))
    assert set(sides_of(tmp_path / "out")) == {"train", "val", "test"}
    balance([file], tmp_path / "out", BalanceSettings(floor=0, test_fraction=0.0))
    assert set(sides_of(tmp_path / "out")) == {"train"}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["rejected.jsonl", "train.parquet"]


# ---------------------------------------------------------------- inputs that cannot be used


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pair_id": None}, "row 1, field pair_id: must be text, not NoneType"),
        ({"question_id": None}, "row 1, field question_id: must be text, not NoneType"),
        ({"question": None}, "row 1, field question: must be text, not None"),
        ({"thinking": None}, "row 1, field thinking: must be text, not NoneType"),
        ({"score": 1.5}, "row 1, field score: score 1.5 is not in [0, 1]"),
        ({"score": float("nan")}, "row 1, field score: score nan is not in [0, 1]"),
    ],
)
def test_a_row_that_cannot_be_used(tmp_path, changes, message):
    file = write_rows(tmp_path / "a.parquet", [make_row(), make_row(1) | changes])
    with pytest.raises(PairsError, match=f"^{re.escape(f'{file}, {message}')}$"):
        balance([file], tmp_path / "out", BalanceSettings())


def test_scores_that_are_text(tmp_path):
    file = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist([make_row(score="0.5")]), file)
    with pytest.raises(PairsError, match=f"^{file}, row 0, field score: "):
        balance([file], tmp_path / "out", BalanceSettings())


def test_a_file_that_cannot_be_used(tmp_path):
    lacks = write_rows(tmp_path / "a.parquet", [make_row()], leave_out=("score", "images"))
    with pytest.raises(PairsError, match=f"^{lacks}: lacks the columns images, score$"):
        balance([lacks], tmp_path / "out", BalanceSettings())
    with pytest.raises(PairsError, match=r"missing.parquet: cannot be read as parquet"):
        balance([tmp_path / "missing.parquet"], tmp_path / "out", BalanceSettings())


def test_nothing_left_to_train_on(tmp_path):
    file = write_rows(tmp_path / "a.parquet", [make_row(q, score=None) for q in range(3)])
    with pytest.raises(
        PairsError, match=rf"^{file}: of 3 rows none is left to train on \(left out: no_score 3; test 0"
    ):
        balance([file], tmp_path / "out", BalanceSettings())
    empty = write_rows(tmp_path / "b.parquet", [])
    with pytest.raises(PairsError, match=rf"^{empty}: of 0 rows none is left to train on \(left out: none; test 0"):
        balance([empty], tmp_path / "out", BalanceSettings())


def test_an_input_is_not_overwritten(tmp_path):
    file = write_rows(tmp_path / "out/test.parquet", some_rows())
    before = file.read_bytes()
    with pytest.raises(PairsError, match=f"^{file}: would be overwritten; choose another --out$"):
        balance([file], tmp_path / "out" / ".." / "out", BalanceSettings())
    assert file.read_bytes() == before


# ---------------------------------------------------------------- command


def test_command(tmp_path, capsys):
    rows = [*some_rows(), *(make_row(q, 11, thinking="Hm.", pair_id=f"short {q}") for q in range(30))]
    files = [write_rows(tmp_path / "a.parquet", rows[:100]), write_rows(tmp_path / "b.parquet", rows[100:])]
    out = tmp_path / "out"
    given_args = [*map(str, files), "--out", str(out), "--floor", "2", "--cap", "15", "--test-fraction", "0.2"]
    assert main([*given_args, "--enable", "perfect_but_wrong", "--max-spread", "0.25"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"too_short +│ +2\d ", text)
    assert re.search(r"\[0\.9, 1\.0\] +│ +\d+ │ +\d+ │ +15 ", text)
    assert "below the floor" not in text
    assert f"written to {out}: train.parquet, test.parquet, rejected.jsonl" in text.replace("\n", " ")
    assert sorted(path.name for path in out.iterdir()) == [
        *("distribution.png", "rejected.jsonl", "summary.json", "test.parquet", "train.parquet")
    ]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["settings"]["cap"] == 15
    assert summary["limits"]["max_spread"] == 0.25
    assert summary["rules"][-1] == "perfect_but_wrong"
    assert summary["rejected"]["too_short"] == len((out / "rejected.jsonl").read_text().splitlines())
    assert sum(summary["after"]) == summary["train"] == len(list(read_pairs(out / "train.parquet")))


def test_a_pair_with_two_scores_is_counted_and_said(tmp_path, capsys):
    rows = [make_row(q, 5) for q in range(9)]
    files = [
        write_rows(tmp_path / "a.parquet", rows),
        write_rows(tmp_path / "b.parquet", [rows[0], rows[1] | {"score": 0.1}, rows[2] | {"score": 0.9}]),
    ]
    given_args = [*map(str, files), "--out", str(tmp_path / "out"), "--test-fraction", "0", "--floor", "0"]
    assert main(given_args) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "2 rows hold a pair that an earlier row holds with another score" in text
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["rejected"] == {"duplicate": 1, "duplicate_other_score": 2}
    assert {row["score"] for row in read_pairs(tmp_path / "out/train.parquet")} == {0.5}
    assert main([str(files[0]), *given_args[2:]]) == 0
    assert "another score" not in capsys.readouterr().out


def test_command_twice_gives_the_same_bytes(tmp_path):
    file = write_rows(tmp_path / "a.parquet", some_rows())
    for name in ("one", "two"):
        assert main([str(file), "--out", str(tmp_path / name), "--floor", "2", "--cap", "5"]) == 0
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    assert main([str(file), "--out", str(tmp_path / "three"), "--floor", "2", "--cap", "5", "--seed", "1"]) == 0
    assert ids(read_pairs(tmp_path / "three/train.parquet")) != ids(read_pairs(tmp_path / "one/train.parquet"))


def test_command_warns_below_the_floor(tmp_path, capsys):
    file = write_rows(tmp_path / "a.parquet", [make_row(q, 5) for q in range(9)])
    assert main([str(file), "--out", str(tmp_path / "out"), "--test-fraction", "0"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "below the floor of 5000: [0.0, 0.1), [0.1, 0.2)," in text


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--cap", "0"], "--cap=0: Input should be greater than or equal to 1"),
        (["--cap", "9"], "--floor 5000 is more than --cap 9"),
        (["--min-chars", "-1"], "--min-chars=-1: Input should be greater than or equal to 0"),
        (["--disable", "none"], "unknown rule 'none'; known: no_score"),
        (["--below-floor", "stop"], "fewer than --floor 5000: annotate more pairs"),
    ],
)
def test_command_with_wrong_settings(tmp_path, capsys, more, message):
    file = write_rows(tmp_path / "a.parquet", some_rows())
    assert main([str(file), "--out", str(tmp_path / "out"), *more]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*"))


def test_command_that_cannot_write(tmp_path, capsys):
    file = write_rows(tmp_path / "a.parquet", some_rows())
    (tmp_path / "file").write_text("")
    assert main([str(file), "--out", str(tmp_path / "file")]) == 1
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_rules_can_be_switched_by_the_command(tmp_path):
    file = write_rows(tmp_path / "a.parquet", [make_row(), make_row(1, thinking="Hm.", pair_id="short")])
    common = [str(file), "--out", str(tmp_path / "out"), "--test-fraction", "0"]
    assert main(common) == 0
    assert len(sides_of(tmp_path / "out")["train"]) == 1
    assert main([*common, "--disable", "too_short"]) == 0
    assert len(sides_of(tmp_path / "out")["train"]) == 2


def test_training_reads_what_is_written(tmp_path):
    """The columns of the published set, with their types."""
    assert all(PAIR_SCHEMA.field(field.name).type == field.type for field in THINKING_SCHEMA)


def test_picture(tmp_path):
    draw_distribution([0, 100, *range(8)], [0] * 10, 5, 50, tmp_path / "new/picture.png")
    with Image.open(tmp_path / "new/picture.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 800
        assert len(picture.convert("RGB").getcolors(10**6)) > 10
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["picture.png"]


def test_memory_does_not_grow_with_the_images(tmp_path):
    """Five times as many rows with images, in another order: 160 MB more on the disk."""
    code = (
        "import re, sys; from recipe.sophiavl.trm_training.balance import main; main(sys.argv[1:]); "
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    peaks = []
    for count in (400, 2000):
        file, out = tmp_path / f"{count}.parquet", tmp_path / str(count)
        write_pairs(file, (make_row(q, 5) | {"images": [{"bytes": os.urandom(100_000)}]} for q in range(count)))
        command = [sys.executable, "-c", code, str(file), "--out", str(out), "--test-fraction", "0"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        peaks.append(int(done.stdout.split()[-1]) / 1024)
        assert (out / "train.parquet").stat().st_size > count * 100_000
    assert peaks[1] - peaks[0] < 60, peaks
