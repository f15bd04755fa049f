"""The generic preprocessor: any columns, by a mapping."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from preprocess_builders import output_rows, png, rejected_rows

from data_preprocess import generic
from data_preprocess.core.errors import SourceError

OPTIONS = ["--column", "question=q", "--column", "answer=a", "--column", "images=picture"]
ROW = {"q": "What is it?", "a": "a bus", "picture": "1.png", "choices": ["a car", "a bus"], "kind": "multiple choice"}


def convert(source: Path, out: Path, *options: str) -> int:
    return generic.main([str(source), "--out", str(out), "--workers", "1", *options])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1.png").write_bytes(png(1))
    return tmp_path / "in"


def test_columns_and_constants_on_the_command_line(folder: Path, tmp_path: Path) -> None:
    (folder / "rows.jsonl").write_text(json.dumps(ROW))
    constants = ["--constant", "problem_type=free-form", "--constant", "data_source=mine", "--constant", "ability=cars"]
    assert convert(folder / "rows.jsonl", tmp_path / "out", *OPTIONS, *constants) == 0
    (row,) = output_rows(tmp_path / "out")
    assert row["prompt"][1]["content"] == "<image>What is it?"
    assert (row["data_source"], row["ability"]) == ("mine", "cars")
    assert row["reward_model"]["ground_truth"] == "a bus"


@pytest.mark.parametrize("write", [yaml.safe_dump, json.dumps])
def test_mapping_file_and_what_overrides_it(folder: Path, tmp_path: Path, write) -> None:
    (folder / "rows.json").write_text(json.dumps([ROW]))
    columns = {"question": "q", "answer": "a", "images": "picture", "options": "choices", "problem_type": "nonsense"}
    (tmp_path / "mapping").write_text(write({"columns": columns, "constants": {"data_source": "mine"}}))
    mapping = ["--mapping", str(tmp_path / "mapping"), "--column", "problem_type=kind"]
    assert convert(folder / "rows.json", tmp_path / "out", *mapping) == 0
    (row,) = output_rows(tmp_path / "out")
    assert row["prompt"][1]["content"] == "<image>What is it?\nA. a car\nB. a bus"
    assert row["reward_model"]["ground_truth"] == "B"


def test_a_folder_of_parquet_with_embedded_images(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    rows = [{"question": "Read.", "answer": "STOP", "problem_type": "OCR", "images": png(n)} for n in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in" / "deep" / "a.parquet")
    convert(tmp_path / "in", tmp_path / "out")
    made = output_rows(tmp_path / "out")
    assert [row["images"][0]["bytes"] for row in made] == [png(0), png(1), png(2)]
    assert {row["data_source"] for row in made} == {"deep/a.parquet"}


def test_several_images_and_an_image_root(folder: Path, tmp_path: Path) -> None:
    (folder / "2.png").write_bytes(png(2))
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW | {"q": "<image> or <image>?", "picture": ["1.png", "2.png"]}))
    options = ["--constant", "problem_type=free-form", "--image-root", str(folder)]
    convert(tmp_path / "rows.jsonl", tmp_path / "out", *OPTIONS, *options)
    (row,) = output_rows(tmp_path / "out")
    assert [image["bytes"] for image in row["images"]] == [png(1), png(2)]
    assert row["prompt"][1]["content"] == "<image> or <image>?"


def test_rows_without_images_are_text_only(tmp_path: Path) -> None:
    rows = [
        {"question": "1 + 1?", "answer": 2, "problem_type": "numerical", "images": empty} for empty in (None, "", [])
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    convert(tmp_path / "rows.json", tmp_path / "out")
    assert [(row["images"], row["ability"]) for row in output_rows(tmp_path / "out")] == [([], "text")] * 3


def test_a_table_of_text_with_lists_as_json(folder: Path, tmp_path: Path) -> None:
    (folder / "2.png").write_bytes(png(2))
    lines = [
        "question,answer,problem_type,images,options",
        'Which?,a bus,multiple choice,1.png,"[""a car"", ""a bus""]"',
        '<image> or <image>?,"two, of course",free-form,"[""1.png"", ""2.png""]",',
        "1 + 1?,2,numerical,,",
        "Which?,A,multiple choice,1.png,[a car]",
    ]
    (folder / "rows.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    assert convert(folder / "rows.csv", tmp_path / "out") == 0
    choice, both, text = output_rows(tmp_path / "out")
    assert choice["prompt"][1]["content"] == "<image>Which?\nA. a car\nB. a bus"
    assert choice["reward_model"]["ground_truth"] == "B"
    assert [image["bytes"] for image in both["images"]] == [png(1), png(2)]
    assert both["reward_model"]["ground_truth"] == "two, of course"
    assert (text["images"], text["ability"]) == ([], "text")
    assert [(bad["row"], bad["field"]) for bad in rejected_rows(tmp_path / "out")] == [(3, "options")]


def test_a_slip_in_a_column_name_is_an_error_and_makes_no_text_only_rows(folder: Path, tmp_path: Path, capsys) -> None:
    rows = [ROW | {"question": "?"}, ROW]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert convert(folder / "rows.jsonl", tmp_path / "out", *OPTIONS, "--column", "images=pictures") == 1
    message = capsys.readouterr().err
    for part in ("images='pictures'", "first 2 rows", "'picture'   '1.png'", "'choices'", "--column images=picture"):
        assert part in message
    assert not (tmp_path / "out").exists()


def test_a_column_that_only_a_later_row_has_is_no_slip(folder: Path, tmp_path: Path) -> None:
    plain = {"q": "1 + 1?", "a": "2"}
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, [plain, ROW])))
    constant = ["--constant", "problem_type=free-form"]
    assert convert(folder / "rows.jsonl", tmp_path / "out", *OPTIONS, *constant) == 0
    assert [len(row["images"]) for row in output_rows(tmp_path / "out")] == [0, 1]


def test_without_a_mapping_the_columns_are_listed_and_nothing_is_written(folder: Path, tmp_path: Path, capsys) -> None:
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, [ROW | {"a": ""}, ROW | {"q": "?" * 500}])))
    assert convert(folder / "rows.jsonl", tmp_path / "out") == 1
    message = capsys.readouterr().err
    assert "no column 'question', 'answer', 'problem_type' in the first 2 rows" in message
    for column in ("'q'        'What is it?'", "'a'        'a bus'", "'choices'  ['a car', 'a bus']"):
        assert f"  {column}\n" in message
    assert "--column question=NAME --column answer=NAME --column problem_type=NAME" in message
    assert "multiple choice" in message
    assert not (tmp_path / "out").exists()
    assert convert(folder / "rows.jsonl", tmp_path / "out", "--constant", "problem_type=OCR") == 1
    assert "problem_type" not in capsys.readouterr().err


def test_a_table_cannot_write_to_the_terminal(tmp_path: Path, capsys) -> None:
    names = ["\x1b[31mred", "a\x00b", ":car:", "[bold]x[/]", "\u202eabc", "\r", "long" * 100, "'"]
    row = dict.fromkeys(names, "\x1b]0;title\x07\x00\n" + "x" * 1000)
    (tmp_path / "rows.json").write_text(json.dumps([row | {f"c{number}": number for number in range(150)}]))
    assert convert(tmp_path / "rows.json", tmp_path / "out") == 1
    message = capsys.readouterr().err
    assert all(char.isprintable() for char in message.replace("\n", ""))
    for shown in (r"'\x1b[31mred'", r"'a\x00b'", "':car:'", "'[bold]x[/]'", r"'\u202eabc'", "and 58 more"):
        assert shown in message
    assert max(map(len, message.splitlines())) < 250


@pytest.mark.parametrize(("name", "content"), [("rows.csv", "question,answer\n"), ("rows.csv", ""), ("rows.jsonl", "")])
def test_a_source_without_rows(tmp_path: Path, capsys, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert convert(tmp_path / name, tmp_path / "out") == 1
    assert "no rows" in (told := capsys.readouterr().err) or "the file is empty" in told
    assert not (tmp_path / "out").exists()


def test_columns_of_one_name_are_named(tmp_path: Path, capsys) -> None:
    (tmp_path / "rows.csv").write_text("q,a,q\n1,2,3\n")
    assert convert(tmp_path / "rows.csv", tmp_path / "out") == 1
    assert "not two with 'q'" in capsys.readouterr().err


VALUES = [
    {"question": "Which?", "answer": 1, "problem_type": "mc", "options": ["rouge", "vert"], "data_source": "a"},
    {"question": "Right?", "answer": True, "problem_type": " ff", "options": None, "data_source": "b"},
    {"question": "2 = 2?", "answer": "n/a", "problem_type": None, "options": None, "data_source": ""},
]


def test_values_that_stand_for_others(tmp_path: Path, capsys) -> None:
    (tmp_path / "rows.json").write_text(json.dumps(VALUES))
    values = [
        "problem_type:mc=multiple choice",
        "problem_type:ff=free-form",
        "problem_type:=numerical",
        "answer:1=A",
        "answer:true=yes",
        "answer:n/a=",
        "options:rouge=red",
        "data_source:=none",
        "question:Which?=Which colour = right?",
    ]
    flags = [flag for value in values for flag in ("--value", value)]
    assert convert(tmp_path / "rows.json", tmp_path / "out", *flags) == 0
    choice, free = output_rows(tmp_path / "out")
    assert choice["prompt"][1]["content"] == "Which colour = right?\nA. red\nB. vert"
    assert (choice["extra_info"]["problem_type"], choice["reward_model"]["ground_truth"]) == ("multiple choice", "A")
    assert (free["extra_info"]["problem_type"], free["reward_model"]["ground_truth"]) == ("free-form", "yes")
    (bad,) = rejected_rows(tmp_path / "out")
    assert (bad["field"], bad["fault"]) == ("answer", "empty_truth")
    assert "--value" not in capsys.readouterr().err
    # In another order it is the same run.
    assert convert(tmp_path / "rows.json", tmp_path / "out", *reversed([f"--value={value}" for value in values])) == 0


def test_values_in_a_mapping_file_and_what_overrides_them(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps(VALUES[:2]))
    mapping = "values: {problem_type: {mc: OCR, ff: free-form}, answer: {'true': 'yes', '1': A}}"
    (tmp_path / "mapping.yaml").write_text(mapping)
    flags = ["--mapping", str(tmp_path / "mapping.yaml"), "--value", "problem_type:mc=multiple choice"]
    assert convert(tmp_path / "rows.json", tmp_path / "out", *flags) == 0
    kinds = [row["extra_info"]["problem_type"] for row in output_rows(tmp_path / "out")]
    assert kinds == ["multiple choice", "free-form"]


def test_values_of_a_list_that_is_written_as_json(tmp_path: Path, capsys) -> None:
    row = 'Which?,vert,multiple choice,"[""rouge"", ""vert""]"'
    (tmp_path / "rows.csv").write_text(f"question,answer,problem_type,options\n{row}\n")
    assert convert(tmp_path / "rows.csv", tmp_path / "out", "--value", "options:rouge=red") == 0
    (made,) = output_rows(tmp_path / "out")
    assert made["extra_info"]["options"] == ["red", "vert"]
    assert capsys.readouterr().err == ""


def test_a_value_that_no_row_has_is_told(tmp_path: Path, capsys) -> None:
    (tmp_path / "rows.json").write_text(json.dumps(VALUES[:1]))
    flags = [
        "--value",
        "problem_type:mc=multiple choice",
        "--value",
        "problem_type:nmu=numerical",
        "--value=answer:1=A",
    ]
    assert convert(tmp_path / "rows.json", tmp_path / "out", *flags) == 0
    assert "--value problem_type: no 'nmu' in the first 1 rows, which have 'mc'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("problem_typ:mc=OCR", "did you mean problem_type?"),
        ("mc=OCR", "FIELD:FROM=TO"),
        ("problem_type:mc", "FIELD:FROM=TO"),
        ("\x1b[31m", r"\x1b[31m"),
        ("problem_type:mc=multple choice", "did you mean multiple choice?"),
        ("ability:x=y", "one of question, answer, problem_type, options, images, data_source"),
    ],
)
def test_value_mappings_that_cannot_work(tmp_path: Path, capsys, value: str, message: str) -> None:
    (tmp_path / "rows.json").write_text(json.dumps(VALUES))
    assert convert(tmp_path / "rows.json", tmp_path / "out", "--value", value) == 1
    assert message in (told := capsys.readouterr().err)
    assert "\x1b" not in told


def test_mostly_rejected_rows_are_a_warning_with_the_commonest_reasons(folder: Path, tmp_path: Path, capsys) -> None:
    good = {"question": "?", "answer": "1", "problem_type": "numerical", "options": None}
    bad = [{"problem_type": "mc"}] * 4 + [{"answer": ""}] * 3 + [{"images": "no\x1b.png"}] * 2 + [{"question": ""}]
    rows = [good] * 9 + [good | change for change in bad]
    (folder / "rows.json").write_text(json.dumps(rows))
    assert convert(folder / "rows.json", tmp_path / "out") == 0
    told = capsys.readouterr().err
    assert "only 9 of 19 rows can be used" in told
    _, first, second, third = told.splitlines()
    assert "4 rows: field 'problem_type' (unknown_type); rows.json, row 9 (from 0): 'mc' is none of" in first
    assert "--value problem_type:mc=TYPE" in first
    assert "3 rows: field 'answer' (empty_truth); rows.json, row 13" in second
    assert "2 rows: field 'images' (missing_image); rows.json, row 16" in third
    assert "\x1b" not in told
    (folder / "rows.json").write_text(json.dumps(rows[:-1]))
    assert convert(folder / "rows.json", tmp_path / "half") == 0
    assert capsys.readouterr().err == ""  # 9 of 18: not more than half


@pytest.mark.parametrize("written", ["red|green | blue", "red;green;blue", "red\ngreen\nblue"])
def test_options_in_one_text_are_told_how_to_be_written(tmp_path: Path, capsys, written: str) -> None:
    row = {"question": "Which?", "answer": "red", "problem_type": "multiple choice", "options": written}
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    assert convert(tmp_path / "rows.json", tmp_path / "out") == 1
    hint = 'write the list as JSON, as ["red", "green", "blue"]'
    assert hint in rejected_rows(tmp_path / "out")[0]["reason"]
    assert hint in capsys.readouterr().err
    # Corrected, the same command goes through.
    (tmp_path / "rows.json").write_text(json.dumps([row | {"options": ["red", "green", "blue"]}]))
    assert convert(tmp_path / "rows.json", tmp_path / "out") == 0


@pytest.mark.parametrize(
    ("columns", "constants"),
    [(["colour=c"], []), (["question"], []), ([], ["answer=4"]), ([], ["ability="]), ([], ["problem_type=numericl"])],
)
def test_unknown_names_are_errors(columns: list[str], constants: list[str]) -> None:
    with pytest.raises(SourceError):
        generic.read_mapping(None, columns, constants)


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2]",
        "fields: {}",
        "columns: [question]",
        "columns: {question: 3}",
        "{",
        "values: [a]",
        "values: {answer: {1: A}}",
    ],
)
def test_unusable_mapping_files_are_errors(tmp_path: Path, text: str) -> None:
    (tmp_path / "mapping.yaml").write_text(text)
    with pytest.raises(SourceError):
        generic.read_mapping(tmp_path / "mapping.yaml", [], [])


def test_the_output_of_another_image_root_is_not_taken_for_this_one(folder: Path, tmp_path: Path, capsys) -> None:
    (folder / "rows.jsonl").write_text(json.dumps(ROW))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "1.png").write_bytes(png(7))
    constant = ["--constant", "problem_type=free-form"]
    assert convert(folder / "rows.jsonl", tmp_path / "out", *OPTIONS, *constant) == 0
    other = ["--image-root", str(tmp_path / "other")]
    assert convert(folder / "rows.jsonl", tmp_path / "out", *OPTIONS, *constant, *other) == 1
    assert "another run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "{folder}/out"], "is inside the source"),
        (["--out", "{folder}/rows.jsonl/out"], "rows.jsonl/out"),
        (["--image-root", "{folder}/none"], "no such folder"),
        (["--seed", "99999999999999999999"], "--seed must fit 64 bits"),
    ],
)
def test_settings_that_cannot_work(folder: Path, tmp_path: Path, capsys, options: list[str], message: str) -> None:
    (folder / "rows.jsonl").write_text(json.dumps({"question": "1 + 1?", "answer": "2", "problem_type": "numerical"}))
    assert convert(folder, tmp_path / "out", *(option.format(folder=folder) for option in options)) == 1
    assert message in capsys.readouterr().err


def test_unusable_sources_are_errors(tmp_path: Path) -> None:
    (tmp_path / "rows.xls").touch()
    with pytest.raises(SourceError, match=r"rows\.xls"):
        generic.open_source(str(tmp_path / "rows.xls"), None, "train")
    with pytest.raises(SourceError, match="no "):
        generic.open_source(str(tmp_path), None, "train")


@pytest.mark.parametrize("name", ["nofile.csv", "./no/such/folder", "/no/such/folder", "~/nothing/here"])
def test_what_looks_like_a_path_is_not_asked_for_on_the_hub(name: str) -> None:
    with pytest.raises(SourceError, match="no such file or folder"):
        generic.open_source(name, None, "train")


def test_a_column_that_nobody_named_is_told(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A forgotten image column would else train a model without its images."""
    (folder / "rows.json").write_text(json.dumps([ROW]))
    named = ("question=q", "answer=a", "options=choices", "problem_type=kind")
    assert (
        convert(folder / "rows.json", tmp_path / "out", *(part for name in named for part in ("--column", name))) == 0
    )
    assert "columns that no field is taken from: 'picture'" in capsys.readouterr().err
