"""Sources: streams in a fixed order, whatever the file kind."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_preprocess.core import sources
from data_preprocess.core.errors import SourceError
from data_preprocess.core.sources import HubSource, LocalSource, SourceFile, files_under, read_file

ROWS = [{"a": number, "b": f"text {number}", "c": [0.5, None]} for number in range(100)]


def write(path: Path, rows: list[dict] = ROWS) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    else:
        path.write_text(json.dumps(rows))
    return path


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.parquet"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    assert [fields for fields, _ in read_file(write(tmp_path / name))] == ROWS


def test_json_lines_under_the_name_json(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl").rename(tmp_path / "a.json")
    assert [fields for fields, _ in read_file(tmp_path / "a.json")] == ROWS


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.json", b" \n"),
        ("a.json", b"[1,"),
        ("a.parquet", b"no"),
        ("a.xls", b"a,b"),
        ("a.csv", b""),
        ("a.csv", b"a,a\n1,2"),
        ("a.csv", b'"a,b\n1,2'),
        ("a.json", b'[{"a": 1} {"a": 2}]'),
        ("a.json", b'[{"a": 1}] 2'),
        ("a.json", b'[{"a": 1},]'),
        ("a.json", b'[{"a": "\xff"}]'),
        ("a.json", b"[" * 100_000),
        ("a.tsv", b"a\tb\n1\t\xff"),
    ],
)
def test_unusable_files_are_source_errors_that_name_them(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceError, match=name):
        list(read_file(tmp_path / name))


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.tsv", "\t")])
def test_tables_of_text(tmp_path: Path, name: str, delimiter: str) -> None:
    lines = [["a", "b"], ["1", '"two\nlines"'], [], ["", "x" * 200_000], ["1"], ["1", "2", "3"], ["5", "é"]]
    (tmp_path / name).write_text("\r\n".join(map(delimiter.join, lines)), encoding="utf-8")
    assert list(read_file(tmp_path / name)) == [
        ({"a": "1", "b": "two\nlines"}, None),
        ({"a": None, "b": "x" * 200_000}, None),
        (None, "has 1 cells, the header has 2"),
        (None, "has 3 cells, the header has 2"),
        ({"a": "5", "b": "é"}, None),
    ]


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 8, 100_000])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_array_with_what_only_python_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int, indent: int | None
) -> None:
    """Wherever the pieces end that the file is read in."""
    monkeypatch.setattr(sources, "_PIECE_CHARS", piece)
    rows = [{"a": float("inf"), "b": 2**70}, 12345, {"a": [{"b": "]"}]}, {}]
    (tmp_path / "a.json").write_text("\n\n" + json.dumps(rows, indent=indent))
    (tmp_path / "nan.json").write_text('[{"a": NaN}, {"a": 1}]')
    (tmp_path / "empty.json").write_text(" [  ] \n")
    assert [fields for fields, _ in read_file(tmp_path / "a.json")] == [rows[0], None, *rows[2:]]
    nan, one = (fields for fields, _ in read_file(tmp_path / "nan.json"))
    assert nan["a"] != nan["a"]
    assert one == {"a": 1}
    assert list(read_file(tmp_path / "empty.json")) == []


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("rows", [ROWS[0], {"data": ROWS}])
def test_an_object_over_several_lines_is_told_in_one_sentence(tmp_path: Path, name: str, rows: dict) -> None:
    (tmp_path / name).write_text(json.dumps(rows, indent=2))
    with pytest.raises(SourceError, match=rf"{name}: its first line is the beginning of JSON that goes on"):
        list(read_file(tmp_path / name))


@pytest.mark.parametrize("name", ["A.JSON", "A.JSONL", "A.Parquet"])
def test_endings_in_capital_letters(tmp_path: Path, name: str) -> None:
    write(tmp_path / name.lower()).rename(tmp_path / name)
    assert [fields for fields, _ in read_file(tmp_path / name)] == ROWS
    assert files_under(tmp_path, ["*"]) == [tmp_path / name]
    known = LocalSource(tmp_path, (SourceFile(tmp_path / name),), tmp_path).total_rows()
    assert known == (100 if name == "A.Parquet" else None)


@pytest.mark.parametrize("bad", ['2,"a"b', '2,"never closed'])
def test_one_badly_quoted_row_of_a_table_is_one_bad_row(tmp_path: Path, bad: str) -> None:
    (tmp_path / "a.csv").write_text("\n".join(["a,b", '1,"two\nlines"', bad, "3,c", bad, "4,d", bad]))
    rows = list(read_file(tmp_path / "a.csv"))
    good = [{"a": "1", "b": "two\nlines"}, None, {"a": "3", "b": "c"}, None, {"a": "4", "b": "d"}, None]
    assert [fields for fields, _ in rows] == good
    assert all(error.startswith("badly quoted: ") and bad in error for fields, error in rows if fields is None)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_mark_before_the_text_is_passed_over(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert [fields for fields, _ in read_file(path)] == ROWS


def test_another_image_root_is_another_source(tmp_path: Path) -> None:
    file = SourceFile(write(tmp_path / "a.jsonl"))
    one, other = (LocalSource(tmp_path, (file,), tmp_path / name).identity() for name in ("x", "y"))
    assert one != other


def test_files_are_read_in_turns(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{name}.json", ROWS[:count]) for name, count in (("x", 3), ("y", 1), ("z", 2))]
    source = LocalSource(tmp_path, tuple(SourceFile(path) for path in files), tmp_path)
    order = [("x.json", 0), ("y.json", 0), ("z.json", 0), ("x.json", 1), ("z.json", 1), ("x.json", 2)]
    for _ in range(2):
        assert [(row.file, row.row) for row in source.rows()] == order


def test_memory_of_a_json_array_does_not_grow_with_its_rows(tmp_path: Path) -> None:
    peaks = []
    for count in (500, 20_000):
        path = write(tmp_path / f"{count}.json", [{"text": "x" * 200}] * count)
        tracemalloc.start()
        assert sum(1 for _ in read_file(path)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_identity_changes_with_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json")
    source = LocalSource(tmp_path, (SourceFile(path),), tmp_path)
    before = source.identity()
    assert source.identity() == before
    write(path, ROWS[:50])
    assert source.identity() != before


def test_total_rows_is_known_for_parquet_only(tmp_path: Path) -> None:
    parquet, array = write(tmp_path / "a.parquet"), write(tmp_path / "b.json")
    assert LocalSource(tmp_path, (SourceFile(parquet),) * 2, tmp_path).total_rows() == 200
    assert LocalSource(tmp_path, (SourceFile(parquet), SourceFile(array)), tmp_path).total_rows() is None


def test_files_under_are_sorted_known_and_listed_once(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.json", "a.jsonl", "deep/c.parquet", "notes.txt"):
        (tmp_path / name).touch()
    found = files_under(tmp_path, ["**/*", "*.json"])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["a.jsonl", "b.json", "deep/c.parquet"]


def test_no_files_is_a_source_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no \.json"):
        LocalSource(tmp_path, (), tmp_path)


def test_a_hub_data_set_streams_with_its_images_undecoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`load_dataset` takes a folder for a hub name: the same code path without a network."""
    import datasets
    from preprocess_builders import png

    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    features = datasets.Features({"images": datasets.Sequence(datasets.Image()), "problem": datasets.Value("string")})
    rows = {"images": [[{"bytes": png(n), "path": None}] for n in range(5)], "problem": [str(n) for n in range(5)]}
    (tmp_path / "data").mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    source = HubSource(str(tmp_path), (("train", None),))
    made = list(source.rows())
    assert [row.fields["problem"] for row in made] == rows["problem"]
    assert [row.fields["images"][0]["bytes"] for row in made] == [png(n) for n in range(5)]
    assert made[0].file == f"{tmp_path}:train"


def test_a_name_that_the_hub_does_not_give_is_a_source_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match="nobody/nothing"):
        list(HubSource("nobody/nothing", (("train", None),)).rows())
