"""Which rows are asked about, and what a file must hold."""

import io
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_preprocess.schema import THINKING_SCHEMA
from recipe.sophiavl.trm_training.evaluate.rows import read_evaluation_set, stream_rows, tied
from recipe.sophiavl.trm_training.pairs import PairsError
from tests.support.scored_rows import make_row, png, write_rows


def test_rows_of_the_published_schema_are_enough(tmp_path):
    row = {
        "data_source": "x",
        "question": "<image>Why?",
        "images": [{"bytes": png((1, 2, 3)), "path": None}],
        "thinking": "So.",
        "score": 0.5,
        "split": "test",
        "index": 0,
    }
    file = tmp_path / "test.parquet"
    other = {**row, "question": "<image>How?"}
    pq.write_table(pa.Table.from_pylist([row, other, {**row, "thinking": "Hm."}], schema=THINKING_SCHEMA), file)
    data = read_evaluation_set(file)
    assert data.columns == ()
    assert data.counts(np.arange(3)) == {"questions": 2, "images": 1}
    assert np.isnan(data.outcome).all()
    assert data.reference.tolist() == [0.5] * 3


def test_what_is_null_is_missing(tmp_path):
    rows = [make_row(), make_row(response=3, score=None, outcome=None, group=None, pair_id=None, question_id=None)]
    data = read_evaluation_set(write_rows(tmp_path / "t.parquet", rows))
    assert np.isnan(data.reference).tolist() == np.isnan(data.outcome).tolist() == [False, True]
    assert (data.rows[1].group, data.rows[1].pair_id) == (None, None)
    # Without an id, a question is known by its text and images: the same digest.
    assert data.rows[1].question_id == data.rows[0].question_id


def test_rows_are_tied_by_images_transitively_in_any_encoding(tmp_path):
    def image(colour, file_format="PNG"):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), colour).save(buffer, file_format)
        return {"bytes": buffer.getvalue(), "path": None}

    red, green, blue = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    images = [[image(red), image(green)], [image(green)], [image(blue)], [image(red, "BMP")], [], []]
    rows = [{**make_row(q), "images": own, "question_id": None} for q, own in enumerate(images)]
    rows.append({**rows[4], "question": "  How many shapes, VARIANT 4?\nA. circle\nB. square"})
    # Another question of the first row's, whatever its image is: an id that the file gives counts.
    rows += [{**make_row(9), "question_id": "same"}, {**make_row(8), "question_id": "same"}]
    data = read_evaluation_set(write_rows(tmp_path / "t.parquet", rows))
    assert data.cluster.tolist() == [0, 0, 1, 0, 2, 3, 2, 4, 4]
    assert data.counts(np.arange(4))["images"] == 3
    assert data.counts(np.arange(4, 7)) == {"questions": 3, "images": 0}


@given(st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=3), min_size=1, max_size=12))
def test_ties_are_connected_components(keys):
    numbers = tied(keys)
    reach = [set(mine) for mine in keys]
    for _ in keys:
        reach = [one.union(*(other for other in reach if one & other)) for one in reach]
    for i, one in enumerate(reach):
        assert [bool(one & other) for other in reach] == [numbers[i] == number for number in numbers]


def test_the_answer_is_read_from_a_response_of_the_required_format(tmp_path):
    responses = ["<think>Hm.</think> <answer> A  red\n</answer>", "A red", None]
    rows = [{**make_row(q), "response": response} for q, response in enumerate(responses)]
    data = read_evaluation_set(write_rows(tmp_path / "t.parquet", rows))
    assert [row.answer for row in data.rows] == ["a red", None, None]


def test_a_limit_draws_whole_questions(tmp_path):
    file = write_rows(tmp_path / "t.parquet", [make_row(q, r) for r in range(6) for q in range(10)])
    data = read_evaluation_set(file, limit=20, seed=1)
    assert len(data.rows) == 20
    assert sorted(Counter(row.question_id for row in data.rows).values()) == [2, 6, 6, 6]
    numbers = [row.number for row in data.rows]
    assert numbers == sorted(numbers)
    assert numbers == [row.number for row in read_evaluation_set(file, limit=20, seed=1).rows]
    assert numbers != [row.number for row in read_evaluation_set(file, limit=20, seed=2).rows]
    assert (data.total, len(read_evaluation_set(file, limit=999).rows)) == (60, 60)


def test_the_digest_tells_rows_apart(tmp_path):
    rows = [make_row(), make_row(1)]
    digests = {
        read_evaluation_set(write_rows(tmp_path / "t.parquet", some)).digest
        for some in (rows, rows[:1], [rows[0], {**rows[1], "score": 0.3}], [rows[0], {**rows[1], "thinking": "No."}])
    }
    assert len(digests) == 4
    # Columns that no figure of agreement needs do not matter.
    again = write_rows(tmp_path / "t.parquet", [{**row, "reply": "0.1"} for row in rows])
    assert read_evaluation_set(again).digest in digests


def test_chosen_rows_are_streamed_with_their_numbers(tmp_path):
    file = write_rows(tmp_path / "t.parquet", [make_row(q) for q in range(700)])
    found = list(stream_rows(file, [3, 400, 699]))
    assert [number for number, _ in found] == [3, 400, 699]
    assert found[1][1]["question"] == make_row(400)["question"]
    assert list(stream_rows(file, [])) == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"question": None}, "question"),
        ({"thinking": None}, "thinking"),
        ({"score": 1.5}, "score"),
        ({"score": -0.1}, "score"),
        ({"score": float("nan")}, "score"),
        ({"outcome": 2.0}, "outcome"),
        ({"images": [{"bytes": None, "path": "a.png"}]}, "images"),
        ({"images": [{"bytes": b"", "path": None}]}, "images"),
        ({"images": [None]}, "images"),
    ],
)
def test_a_bad_row_is_named(tmp_path, changes, field):
    file = write_rows(tmp_path / "t.parquet", [make_row(), {**make_row(1), **changes}])
    with pytest.raises(PairsError, match=rf"t\.parquet, row 1, field {field}: "):
        read_evaluation_set(file)


def test_files_that_hold_nothing_to_evaluate(tmp_path):
    with pytest.raises(PairsError, match="holds no rows"):
        read_evaluation_set(write_rows(tmp_path / "empty.parquet", []))
    with pytest.raises(PairsError, match="lacks the columns thinking, score"):
        read_evaluation_set(write_rows(tmp_path / "few.parquet", [make_row()], leave_out=("thinking", "score")))
    with pytest.raises(PairsError, match="cannot be read"):
        read_evaluation_set(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("text")
    with pytest.raises(PairsError, match="cannot be read"):
        read_evaluation_set(tmp_path / "text.parquet")
    whole = write_rows(tmp_path / "t.parquet", [make_row(q) for q in range(50)]).read_bytes()
    (tmp_path / "broken.parquet").write_bytes(whole[:200] + bytes(500) + whole[700:])
    with pytest.raises(PairsError, match=r"broken\.parquet"):
        read_evaluation_set(tmp_path / "broken.parquet")
