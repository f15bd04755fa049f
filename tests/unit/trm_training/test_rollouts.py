"""Rollout dumps that a killed run left, that are broken, or that say something else than they should."""

import pytest

from recipe.sophiavl.trm_training.collect import CollectSettings
from recipe.sophiavl.trm_training.pairs import (
    PairsError,
)
from tests.support.rollouts import dumped, full_run, names_of, pairs_of, question_row, write_data, write_dump


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "train.parquet", [question_row(i) for i in range(10)])


def test_a_torn_last_line_of_a_killed_run_is_left_out(tmp_path, data, caplog):
    write_dump(tmp_path / "run", 1, [dumped(0, "Round.")])
    file = write_dump(tmp_path / "run", 10, [dumped(1, "Round.", 10), dumped(2, "Größe: rund.", 10)])
    whole = file.read_bytes()
    for end in (whole.index(b"\n") + 2, whole.rindex("ö".encode()) + 1, len(whole) - 2):  # one inside a character
        file.write_bytes(whole[:end])
        pairs, collected = pairs_of(tmp_path, data)
        assert (names_of(pairs), collected.responses) == ([(1, 0, "Round."), (10, 1, "Round.")], 2)
    assert f"{file}:2: torn line left out" in caplog.text


def test_a_last_line_that_only_lacks_its_end_is_kept(tmp_path, data):
    file = write_dump(tmp_path / "run", 1, [dumped(0, "Round.")])
    file.write_bytes(file.read_bytes()[:-1])
    assert len(pairs_of(tmp_path, data)[0]) == 1


@pytest.mark.parametrize("steps", [None, (1, 1)])
def test_a_torn_line_elsewhere_is_an_error(tmp_path, data, steps):
    file = write_dump(tmp_path / "run", 1, [dumped(0, "Round."), dumped(1, "Round.")])
    file.write_bytes(file.read_bytes()[:-5])
    write_dump(tmp_path / "run", 2, [dumped(0, "Round.", 2)])
    with pytest.raises(PairsError, match=f"^{file}:2: no JSON: "):
        pairs_of(tmp_path, data, CollectSettings(steps=steps))


def test_a_broken_line_in_the_middle_is_an_error(tmp_path, data):
    file = write_dump(tmp_path / "run", 1, [dumped(0, "Round.")] * 3)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + lines[1][:20] + b"\n" + lines[2])
    with pytest.raises(PairsError, match=f"^{file}:2: no JSON: "):
        pairs_of(tmp_path, data)


def test_a_line_that_is_no_object_is_an_error(tmp_path, data):
    file = write_dump(tmp_path / "run", 1, [dumped(0, "Round."), ["list"]])
    with pytest.raises(PairsError, match=f"^{file}:2: no JSON object but list$"):
        pairs_of(tmp_path, data)


def test_dumps_of_older_versions_say_so(tmp_path, data):
    line = dumped(0, "Round.")
    for name in ("data_source", "split", "index"):
        del line[name]
    file = write_dump(tmp_path / "run", 1, [line])
    with pytest.raises(PairsError, match=f"^{file}:1: lacks data_source, split, index; dumps of older versions can't"):
        pairs_of(tmp_path, data)


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        ("output", 3, "string"),
        ("step", "1", "integer"),
        ("step", True, "integer"),
        ("outcome_reward", float("nan"), "equal to"),
        ("outcome_reward", 1.5, "less than or equal to 1"),
        ("outcome_reward", "1", "number"),
        ("group", 5, "string"),
        ("data_source", 5, "string"),
        ("split", 5, "string"),
        ("index", "0", "integer"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, data, field, value, what):
    file = write_dump(tmp_path / "run", 1, [dumped(0, "Round."), dumped(1, "Round.") | {field: value}])
    with pytest.raises(PairsError, match=f"^{file}:2, field {field}: {value!r}: Input should be .*{what}"):
        pairs_of(tmp_path, data)


def test_a_missing_field_is_named(tmp_path, data):
    file = write_dump(tmp_path / "run", 1, [dumped(0, "Round.", gts=None)])
    with pytest.raises(PairsError, match=f"^{file}:1: lacks gts; "):
        pairs_of(tmp_path, data)


def test_no_dumps(tmp_path, data):
    (tmp_path / "run").mkdir()
    with pytest.raises(PairsError, match=r"run: no rollout dumps \(STEP.jsonl\); train with trainer.rollout_data_dir"):
        pairs_of(tmp_path, data)


def test_no_dumps_of_these_steps(tmp_path, data):
    full_run(tmp_path, steps=2)
    with pytest.raises(PairsError, match=r"rollouts: no rollout dumps of steps 3 to 9, only of 1 to 2$"):
        pairs_of(tmp_path, data, CollectSettings(steps=(3, 9)))


def test_no_thinking_at_all_writes_nothing(tmp_path, data):
    write_dump(tmp_path / "run", 1, [dumped(0, None), dumped(1, None)])
    with pytest.raises(PairsError, match=r"run: none of the 2 responses has thinking in the required format$"):
        pairs_of(tmp_path, data)
    assert not (tmp_path / "pairs.parquet").exists()
