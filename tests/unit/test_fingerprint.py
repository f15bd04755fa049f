"""A change of content changes the fingerprint wherever it is, and nothing else does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recipe.sophiavl import fingerprint

MIB = 2**20


def parquet(file: Path, *answers: str) -> str:
    file.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({"answer": list(answers)}), file)
    return str(file)


def test_one_other_answer_is_other_data(tmp_path: Path) -> None:
    answers = ["A", "B", "C", "A", "B", "C"]
    same = parquet(tmp_path / "train.parquet", *answers)
    first = fingerprint.data_files([same])
    assert first.startswith("train.parquet, 6 rows, sha256 ")
    assert fingerprint.data_files([parquet(tmp_path / "elsewhere/train.parquet", *answers)]) == first
    answers[1], answers[2] = answers[2], answers[1]  # the same size, rows and bounds of the column
    assert fingerprint.data_files([parquet(tmp_path / "train.parquet", *answers)]) != first


def test_shards_count_in_their_order(tmp_path: Path) -> None:
    a, b = parquet(tmp_path / "a.parquet", "A"), parquet(tmp_path / "b.parquet", "B", "C")
    assert fingerprint.data_files([a, b]).startswith("2 files, 3 rows, ")
    assert fingerprint.data_files([a, b]) != fingerprint.data_files([b, a])


@pytest.mark.parametrize("place", [0, 3 * MIB // 2, 3 * MIB - 1])
def test_a_file_of_some_mebibytes_is_read_whole(tmp_path: Path, place: int) -> None:
    file = tmp_path / "x"
    content = bytearray(3 * MIB)
    file.write_bytes(content)
    before = fingerprint.text_file(file)
    content[place] = 1
    file.write_bytes(content)
    assert fingerprint.text_file(file) != before


def test_of_a_large_file_size_start_and_end_count_and_little_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x"
    with file.open("wb") as stream:
        stream.truncate(1024 * MIB)  # sparse
    read = []
    open_ = Path.open

    class Counted:
        def __init__(self, stream):
            self._stream = stream

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._stream.close()

        def seek(self, place):
            self._stream.seek(place)

        def read(self, size):
            read.append(size)
            return self._stream.read(size)

    monkeypatch.setattr(Path, "open", lambda self, *a: Counted(open_(self, *a)))
    found = [fingerprint.text_file(file)]
    assert sum(read) <= 33 * MIB
    monkeypatch.undo()
    for place in (5, 1024 * MIB - 5, 1024 * MIB):
        with file.open("r+b") as stream:
            stream.seek(place)
            stream.write(b"x")
        found.append(fingerprint.text_file(file))
    assert len(set(found)) == 4


def test_a_model_is_its_files_or_a_name(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "README.md"):
        (tmp_path / "policy").mkdir(exist_ok=True)
        (tmp_path / "policy" / name).write_text(name)
    before = fingerprint.model(str(tmp_path / "policy"))
    assert before.startswith("policy, sha256 ")
    shutil.copytree(tmp_path / "policy", tmp_path / "moved/policy")
    assert fingerprint.model(str(tmp_path / "moved/policy")) == before
    (tmp_path / "policy/README.md").write_text("no part of the model")
    assert fingerprint.model(str(tmp_path / "policy")) == before
    (tmp_path / "policy/model.safetensors").write_text("other weights")
    assert fingerprint.model(str(tmp_path / "policy")) != before
    assert fingerprint.model("Qwen/Qwen2.5-VL-7B-Instruct") == "Qwen/Qwen2.5-VL-7B-Instruct"
