"""Pairs from rollout dumps: which responses become pairs of which rows, and what is said where they can't."""

import os
import subprocess
import sys
from collections import Counter

import pytest

from recipe.sophiavl.trm.questions import question_text
from recipe.sophiavl.trm_training.collect import CollectSettings, main
from recipe.sophiavl.trm_training.pairs import (
    PAIR_SCHEMA,
    PairsError,
    pair_digest,
    question_digest,
    read_pairs,
)
from tests.support.rollouts import dumped, full_run, image_of, names_of, pairs_of, question_row, write_data, write_dump


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "train.parquet", [question_row(i) for i in range(10)])


# ---------------------------------------------------------------- what becomes a pair


def test_a_response_becomes_a_pair_with_all_that_is_known(tmp_path, data):
    write_dump(tmp_path / "run", 7, [dumped(4, " It is round. ", 7, outcome_reward=0.25)])
    pairs, collected = pairs_of(tmp_path, data)
    text = "What shape is in image 4?\ncircle\nsquare"
    key = question_digest(text, [image_of(4)])
    assert pairs == [
        {
            **dict.fromkeys(PAIR_SCHEMA.names),
            "pair_id": pair_digest(key, "It is round."),
            "question_id": key,
            "data_source": "shapes",
            "question": text,
            "images": [{"bytes": image_of(4), "path": None}],
            "problem_type": "multiple choice",
            "response": "<think> It is round. </think><answer>A</answer>",
            "thinking": "It is round.",
            "outcome": 0.25,
            "group": "7/group4",
            "step": 7,
            "split": "train",
            "index": 4,
        }
    ]
    assert (collected.responses, collected.pairs, collected.left_out) == (1, 1, Counter())


def test_the_question_is_the_one_that_the_trm_is_asked(tmp_path, data):
    write_dump(tmp_path / "run", 1, [dumped(2, "Round.")])
    assert pairs_of(tmp_path, data)[0][0]["question"] == question_text(question_row(2)["extra_info"])


def test_a_question_without_images_or_options(tmp_path):
    row = question_row(0, images=[])
    row["extra_info"]["options"] = None
    write_dump(tmp_path / "run", 1, [dumped(0, "Round.")])
    (pair,), _ = pairs_of(tmp_path, write_data(tmp_path / "t.parquet", [row]))
    assert (pair["question"], pair["images"]) == ("What shape is in image 0?", [])


def test_what_is_left_out_is_counted_by_reason(tmp_path, data):
    lines = [dumped(0, "Round."), dumped(0, None), dumped(0, "  "), dumped(0, "Round."), dumped(1, "Round.")]
    write_dump(tmp_path / "run", 1, lines)
    write_dump(tmp_path / "run", 2, [dumped(0, "Round.", 2), dumped(0, "Square.", 2)])
    pairs, collected = pairs_of(tmp_path, data)
    assert names_of(pairs) == [(1, 0, "Round."), (2, 0, "Square."), (1, 1, "Round.")]
    assert (collected.responses, collected.pairs) == (7, 3)
    assert collected.left_out == {
        "no thinking in the required format": 2,
        "the same thinking about the same question": 2,
    }
    assert collected.responses == collected.pairs + collected.left_out.total()


def test_two_rows_that_ask_the_same_are_one_question(tmp_path):
    twin = question_row(1, images=question_row(0)["images"])
    twin["extra_info"]["question"] = question_row(0)["extra_info"]["question"]
    data = write_data(tmp_path / "t.parquet", [question_row(0), twin])
    write_dump(tmp_path / "run", 1, [dumped(1, "Round."), dumped(0, "Round."), dumped(1, "Square.")])
    pairs, collected = pairs_of(tmp_path, data)
    # the first of the dumps stays
    assert names_of(pairs) == [(1, 1, "Round."), (1, 1, "Square.")]
    assert collected.left_out == {"the same thinking about the same question": 1}
    assert len({pair["question_id"] for pair in pairs}) == 1


def test_lines_that_fill_verls_batch_are_passed_over(tmp_path, data):
    ours = ("outcome_reward", "group", "data_source", "split", "index", "answer", "problem_type", "gamma")
    padding = dumped(0, "Round.") | dict.fromkeys(ours)
    write_dump(tmp_path / "run", 1, [dumped(0, "Round."), padding])
    pairs, collected = pairs_of(tmp_path, data)
    assert (len(pairs), collected.responses, collected.left_out) == (1, 1, Counter())


def test_pairs_come_in_the_order_of_the_data(tmp_path):
    files = [
        write_data(tmp_path / "data" / f"{name}.parquet", [question_row(i) for i in indices])
        for name, indices in (("b", range(5, 12)), ("a", range(5)))
    ]
    full_run(tmp_path, questions=12, steps=11, responses=2)
    expected = [(step, i, f"Step {step}, thought {r}.") for i in range(12) for step in range(1, 12) for r in range(2)]
    folder = [tmp_path / "data"]  # its files are read by name
    first, _ = pairs_of(tmp_path, folder)
    assert names_of(first) == expected
    assert pairs_of(tmp_path, folder)[0] == first
    other, _ = pairs_of(tmp_path, files)
    assert sorted(map(repr, other)) == sorted(map(repr, first))
    assert [pair["images"][0]["bytes"] for pair in first] == [image_of(i) for i in range(12) for _ in range(22)]


@pytest.mark.parametrize("given", ["run", "run/rollouts"])
def test_the_run_or_its_dumps_may_be_given(tmp_path, data, given):
    full_run(tmp_path, steps=1)
    (tmp_path / "run/rollouts/notes.jsonl").write_text("no dump")
    assert len(pairs_of(tmp_path, data, run=given)[0]) == 50


# ---------------------------------------------------------------- limits


def test_steps(tmp_path, data):
    full_run(tmp_path)
    pairs, collected = pairs_of(tmp_path, data, CollectSettings(steps=(2, 3)))
    assert Counter(pair["step"] for pair in pairs) == {2: 50, 3: 50}
    assert collected.responses == 100


def test_a_limit_draws_whole_questions(tmp_path, data):
    full_run(tmp_path)
    pairs, collected = pairs_of(tmp_path, data, CollectSettings(limit=50))
    assert sorted(Counter(pair["index"] for pair in pairs).values()) == [10, 20, 20]
    assert collected.left_out == {"more than --limit": 150}
    assert pairs == sorted(pairs, key=lambda pair: (pair["index"], pair["step"]))


def test_a_limit_for_each_question_draws_whole_groups(tmp_path, data):
    full_run(tmp_path)
    pairs, collected = pairs_of(tmp_path, data, CollectSettings(max_per_question=8))
    groups = Counter((pair["index"], pair["step"]) for pair in pairs)
    for index in range(10):
        assert sorted(count for (i, _), count in groups.items() if i == index) == [3, 5]
    assert len({step for _, step in groups}) == 4  # not the first steps alone
    assert collected.left_out == {"more than --max-per-question": 120}


def test_limits_that_are_not_reached_leave_nothing_out(tmp_path, data):
    full_run(tmp_path)
    pairs, collected = pairs_of(tmp_path, data, CollectSettings(limit=200, max_per_question=20))
    assert (len(pairs), collected.left_out) == (200, Counter())


def test_the_seed_decides_about_the_draw(tmp_path, data):
    full_run(tmp_path)

    def drawn(seed):
        return pairs_of(tmp_path, data, CollectSettings(limit=30, max_per_question=6, seed=seed))[0]

    assert drawn(1) == drawn(1) != drawn(2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"limit": 0}, "--limit=0: Input should be greater than or equal to 1"),
        ({"max_per_question": -1}, "--max-per-question=-1: Input should be greater than or equal to 1"),
        ({"steps": (3, 2)}, "--steps 3-2: the first step is after the last"),
    ],
)
def test_impossible_limits(wrong, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        CollectSettings(**wrong)


# ---------------------------------------------------------------- data that does not fit


def test_a_row_that_no_file_has(tmp_path, data):
    file = write_dump(tmp_path / "run", 3, [dumped(0, "Round.", 3), dumped(10, None, 3)])
    key = r"\('shapes', 'train', 10\)"
    with pytest.raises(
        PairsError, match=rf"^{file}:2: \(data_source, split, index\) = {key} is in no row of {data}; give the files"
    ):
        pairs_of(tmp_path, data)


def test_another_truth_means_other_data(tmp_path, data):
    file = write_dump(tmp_path / "run", 1, [dumped(4, "Round.", gts="B")])
    with pytest.raises(PairsError, match=rf"^{file}:1: the ground truth is 'B', but 'A' in {data}, row 4, which"):
        pairs_of(tmp_path, data)


def test_two_files_with_the_same_key(tmp_path, data):
    other = write_data(tmp_path / "other.parquet", [question_row(20), question_row(3)])
    full_run(tmp_path, steps=1)
    with pytest.raises(PairsError, match=rf"^{data}, row 3 and {other}, row 1 are both \('shapes', 'train', 3\); "):
        pairs_of(tmp_path, [data, other])


@pytest.mark.parametrize("name", ["split", "index", "question", "problem_type"])
def test_a_row_without_a_needed_field(tmp_path, name):
    row = question_row(1)
    row["extra_info"][name] = None
    data = write_data(tmp_path / "t.parquet", [question_row(0), row])
    full_run(tmp_path, questions=1)
    with pytest.raises(PairsError, match=rf"^{data}, row 1: extra_info.{name} is missing"):
        pairs_of(tmp_path, data)


def test_an_image_without_bytes(tmp_path):
    data = write_data(tmp_path / "t.parquet", [question_row(0), question_row(1, images=[{"path": "a.png"}])])
    full_run(tmp_path, questions=2)
    with pytest.raises(PairsError, match=rf"^{data}, row 1, field images: an image without bytes; preprocess"):
        pairs_of(tmp_path, data)


def test_files_that_are_no_rl_parquet(tmp_path, data):
    full_run(tmp_path, steps=1)
    no_parquet = tmp_path / "broken.parquet"
    no_parquet.write_text("hello")
    with pytest.raises(PairsError, match=f"^{no_parquet}: cannot be read as parquet"):
        pairs_of(tmp_path, no_parquet)
    pairs_of(tmp_path, data)
    with pytest.raises(PairsError, match=r"pairs.parquet: lacks the columns reward_model, extra_info$"):
        pairs_of(tmp_path, tmp_path / "pairs.parquet")
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "missing.parquet", tmp_path / "empty"):
        with pytest.raises(PairsError, match=f"^{path}: no parquet file there$"):
            pairs_of(tmp_path, path)


# ---------------------------------------------------------------- command


def test_command(tmp_path, data, capsys):
    full_run(tmp_path)
    write_dump(tmp_path / "run", 5, [dumped(0, None, 5)])
    out = tmp_path / "new" / "pairs.parquet"
    given = [str(tmp_path / "run"), "--data", str(data), "--out", str(out)]
    assert main([*given, "--steps", "2-5", "--max-per-question", "10", "--limit", "95", "--seed", "3"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{out}: 95 pairs of 151 responses",
        "  left out: 50 (more than --max-per-question)",
        "  left out: 5 (more than --limit)",
        "  left out: 1 (no thinking in the required format)",
    ]
    assert len(list(read_pairs(out))) == 95
    assert [file.name for file in out.parent.iterdir()] == ["pairs.parquet"]
    assert main([*given, "--steps", "4"]) == 0


def test_command_with_wrong_settings(tmp_path, data, capsys):
    given = [str(tmp_path / "run"), "--data", str(data), "--out", str(tmp_path / "pairs.parquet")]
    assert main([*given, "--limit", "0"]) == 2
    assert capsys.readouterr().err == "--limit=0: Input should be greater than or equal to 1\n"
    assert main(given) == 2
    assert "no rollout dumps" in capsys.readouterr().err
    for steps in ("x", "1-", "2-x", "-3"):
        with pytest.raises(SystemExit):
            main([*given, f"--steps={steps}"])
        assert "give FIRST-LAST, such as 1-500" in capsys.readouterr().err


def test_command_that_cannot_write(tmp_path, data, capsys):
    full_run(tmp_path, steps=1)
    (tmp_path / "file").write_text("")
    given = [str(tmp_path / "run"), "--data", str(data), "--out", str(tmp_path / "file" / "pairs.parquet")]
    assert main(given) == 1
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_an_output_is_whole_or_not_there(tmp_path, data):
    full_run(tmp_path, steps=1)
    pairs_of(tmp_path, data)
    before = (tmp_path / "pairs.parquet").read_bytes()
    write_dump(tmp_path / "run", 2, [dumped(0, "Round.", 2, gts="B")])
    with pytest.raises(PairsError):
        pairs_of(tmp_path, data)
    assert (tmp_path / "pairs.parquet").read_bytes() == before


@pytest.mark.parametrize(
    ("given", "out"),
    [
        ("data/train.parquet", "data/train.parquet"),
        ("data", "data/train.parquet"),
        ("data/train.parquet", "run/../data/train.parquet"),
        ("link.parquet", "data/train.parquet"),
    ],
)
def test_the_data_is_not_overwritten(tmp_path, capsys, given, out):
    file = write_data(tmp_path / "data/train.parquet", [question_row(i) for i in range(10)])
    (tmp_path / "link.parquet").symlink_to(file)
    before = file.read_bytes()
    full_run(tmp_path, steps=1)
    assert main([str(tmp_path / "run"), "--data", str(tmp_path / given), "--out", str(tmp_path / out)]) == 2
    assert capsys.readouterr().err.endswith(f"{tmp_path / out}: is data of the run; choose another --out\n")
    assert file.read_bytes() == before


def test_without_verl(tmp_path, data):
    """Collecting needs no GPU stack: it is started on machines that only hold the dumps."""
    write_dump(tmp_path / "run", 1, [dumped(0, "Round.")])
    code = (
        "import sys; from recipe.sophiavl.trm_training.collect import main; code = main(sys.argv[1:]); "
        "print([name for name in ('verl', 'torch', 'vllm', 'ray') if name in sys.modules]); sys.exit(code)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run"), "--data", str(data), "--out", str(tmp_path / "p")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=120, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_memory_does_not_grow_with_the_images(tmp_path):
    """Five times as many rows with images: 160 MB more on the disk."""
    code = (
        "import re, sys; from recipe.sophiavl.trm_training.collect import main; main(sys.argv[1:]); "
        # not getrusage: its peak is inherited from the parent
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    peaks = []
    for count in (400, 2000):
        rows = (question_row(i, images=[{"bytes": os.urandom(100_000), "path": None}]) for i in range(count))
        data = write_data(tmp_path / f"{count}.parquet", list(rows), row_group_size=100)
        write_dump(tmp_path / str(count), 1, [dumped(i, "Round.") for i in range(count)])
        out = tmp_path / "pairs.parquet"
        command = [sys.executable, "-c", code, str(tmp_path / str(count)), "--data", str(data), "--out", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        peaks.append(int(done.stdout.split()[-1]) / 1024)
        assert out.stat().st_size > count * 100_000
    assert peaks[1] - peaks[0] < 60, peaks
