"""Rows of parquet files: all, or chosen by number, without reading what is not asked for."""

import pyarrow.parquet as pq
import pytest

from data_preprocess.core.errors import SourceError
from data_preprocess.core.parquet import read_rows
from tests.support.rollouts import question_row, write_data


def test_all_rows_and_chosen_ones_of_many_row_groups(tmp_path):
    file = write_data(tmp_path / "t.parquet", [question_row(i) for i in range(200)], row_group_size=70)
    for numbers in (None, [], [0], [69, 70, 139, 140, 199], list(range(200)), list(range(64, 70)), range(3, 150)):
        found = [row["extra_info"]["index"] for row in read_rows(file, numbers=numbers)]
        assert found == list(range(200) if numbers is None else numbers)
    assert list(read_rows(file, ["ability", "other"], [5])) == [{"ability": "vqa"}]


def test_row_groups_without_chosen_rows_are_not_read(tmp_path):
    file = write_data(tmp_path / "t.parquet", [question_row(i) for i in range(9)], row_group_size=3)
    group = pq.read_metadata(file).row_group(2)
    column = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema.endswith(".bytes"))
    with file.open("r+b") as broken:
        broken.seek(column.dictionary_page_offset or column.data_page_offset)
        broken.write(bytes(column.total_compressed_size))
    assert len(list(read_rows(file, ["images"], [0, 5]))) == 2
    with pytest.raises(SourceError, match=f"^{file}: cannot be read as parquet"):
        list(read_rows(file, ["images"], [0, 7]))
