"""Rows read by number, and written in any order, without holding them all."""

import pyarrow.parquet as pq
import pytest

from recipe.sophiavl.trm_training import chosen_rows
from recipe.sophiavl.trm_training.chosen_rows import in_order, stream_rows
from recipe.sophiavl.trm_training.pairs import (
    PairsError,
)
from tests.support.rollouts import question_row, write_data


def test_chosen_rows_of_many_row_groups(tmp_path):
    file = write_data(tmp_path / "t.parquet", [question_row(i) for i in range(200)], row_group_size=70)
    for numbers in ([], [0], [69, 70, 139, 140, 199], list(range(200)), list(range(64, 70))):
        found = list(stream_rows(file, numbers))
        assert [(number, row["extra_info"]["index"]) for number, row in found] == [(n, n) for n in numbers]
    assert [row for _, row in stream_rows(file, [5], ["ability", "other"])] == [{"ability": "vqa"}]


def test_row_groups_without_chosen_rows_are_not_read(tmp_path):
    file = write_data(tmp_path / "t.parquet", [question_row(i) for i in range(9)], row_group_size=3)
    group = pq.read_metadata(file).row_group(2)
    column = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema.endswith(".bytes"))
    with file.open("r+b") as broken:
        broken.seek(column.dictionary_page_offset or column.data_page_offset)
        broken.write(bytes(column.total_compressed_size))
    assert [number for number, _ in stream_rows(file, [0, 5], ["images"])] == [0, 5]
    with pytest.raises(PairsError, match=f"^{file}: cannot be read as parquet"):
        list(stream_rows(file, [0, 7], ["images"]))


def test_any_order_in_small_stretches(tmp_path, monkeypatch):
    monkeypatch.setattr(chosen_rows, "_CHUNK_ROWS", 4)
    places = {row: [p for p in range(30) if p * 7 % 30 == row or (row == 3 and p == 29)] for row in range(30)}
    places[29 * 7 % 30].remove(29)
    rows = in_order(((where, {"row": row}) for row, where in places.items()), 30, tmp_path)
    assert [row["row"] for row in rows] == [p * 7 % 30 if p != 29 else 3 for p in range(30)]
    assert list(tmp_path.iterdir()) == []
    assert list(in_order([], 0, tmp_path)) == []
