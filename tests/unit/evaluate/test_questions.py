"""Rows become questions: what is sent, what tells them apart, and what is wrong with a row."""

from __future__ import annotations

import base64
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_preprocess.schema import SYSTEM_PROMPT
from recipe.sophiavl.evaluate.questions import (
    BadRowError,
    DataError,
    check_files,
    images_of,
    messages_of,
    read_questions,
    stream,
)
from tests.unit.evaluate.conftest import picture, row

RED, BLUE = picture("red"), picture("blue")


def test_the_messages_are_the_rows_own_with_each_image_in_its_place():
    asked = row("is <image> as red as <image>?", images=[RED, BLUE])
    system, user = messages_of(asked, images_of(asked))
    assert system == {"role": "system", "content": [{"type": "text", "text": SYSTEM_PROMPT}]}
    kinds = [part["type"] for part in user["content"]]
    assert kinds == ["text", "image_url", "text", "image_url", "text"]
    sent = [part["image_url"]["url"] for part in user["content"] if part["type"] == "image_url"]
    assert sent == [f"data:image/png;base64,{base64.b64encode(image).decode()}" for image in (RED, BLUE)]


def test_a_text_only_row_is_sent_as_text():
    asked = row("2 + 2?")
    assert messages_of(asked, [])[1] == {"role": "user", "content": "2 + 2?"}


@pytest.mark.parametrize(("given", "roles"), [("Be brief.", ["system", "user"]), ("", ["user"])])
def test_another_system_prompt_takes_the_place(given, roles):
    messages = messages_of(row("2 + 2?"), [], given)
    assert [message["role"] for message in messages] == roles
    assert messages[0]["content"] == (given or "2 + 2?")


def test_an_image_by_path_is_read(tmp_path):
    (tmp_path / "red.png").write_bytes(RED)
    assert images_of({"images": [{"bytes": None, "path": str(tmp_path / "red.png")}]}) == [RED]
    with pytest.raises(BadRowError, match=r"image 1: image file .*gone\.png cannot be read"):
        images_of({"images": [{"bytes": RED}, {"bytes": None, "path": "gone.png"}]})


def test_a_question_has_one_id_whatever_its_file_and_encoding(write):
    one = write(row("a?", images=[RED]), row("b?"), name="one.parquet")
    other = write(row("b?"), row("a?", images=[picture("red", "BMP")], index=7), name="other.parquet")
    first, second = (read_questions([file]) for file in (one, other))
    assert [question.id for question in first] == [question.id for question in reversed(second)]
    assert first[0].keys == second[1].keys


def test_ids_tell_apart_what_is_asked_and_what_is_right(write):
    rows = [
        row("a?"),
        row("a?", "5"),
        row("a?", images=[RED]),
        row("a?", data_source="there"),
        row("a?", problem_type="OCR"),
    ]
    assert len({question.id for question in read_questions([write(*rows)])}) == len(rows)


def test_a_question_that_stands_there_again_is_asked_again(write):
    questions = read_questions([write(row("a?"), row("b?"), row("a?")), write(row("a?"), name="again.parquet")])
    first = questions[0].id
    assert [question.id for question in questions if question.id.startswith(first)] == [
        first,
        f"{first}-2",
        f"{first}-3",
    ]
    assert len({question.keys for question in questions}) == 2, "they are no independent trials"


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (row("a?", images=[b"no image"]), r"image 0: no image of a known kind"),
        (row("a?", images=[RED[:60]]), r"does not decode"),
        (row("a?", problem_type="essay"), r"problem_type='essay'; known are numerical"),
        (row("a?", ""), r"ground_truth=''"),
        ({**row("a?", images=[RED]), "images": [{"bytes": RED, "path": None}] * 2}, "1 <image> marks for 2 images"),
        ({**row("a?"), "prompt": []}, r"prompt: must be a list of messages"),
        ({**row("a?"), "extra_info": None}, r"problem_type=None"),
    ],
)
def test_a_row_that_cannot_be_asked_says_why_and_the_others_stay(write, bad, says):

    file = write(row("x?"), bad, row("y?"))
    good, broken, other = read_questions([file])
    assert re.search(says, broken.fault)
    assert broken.where == f"{file}, row 1"
    assert (good.fault, other.fault) == (None, None)


def test_a_limit_is_of_each_file_and_rows_are_found_again_by_number(write):
    files = [write(*(row(f"{name}{n}?") for n in range(100)), name=f"{name}.parquet") for name in "ab"]
    questions = read_questions(files, limit=70)
    assert [question.number for question in questions] == [*range(70), *range(100, 170)]
    chosen = [questions[139], questions[3], questions[70]]
    found = [(question.number, asked["extra_info"]["question"]) for question, asked in stream(files, chosen)]
    assert found == [(3, "a3?"), (100, "b0?"), (169, "b69?")]


def test_a_file_that_is_none_is_refused(tmp_path, write):
    with pytest.raises(DataError, match=r"DATA .*none\.parquet: no such file"):
        check_files([tmp_path / "none.parquet"])
    (tmp_path / "text.parquet").write_text("question,answer")
    with pytest.raises(DataError, match=r"text\.parquet: not a parquet file"):
        check_files([tmp_path / "text.parquet"])
    pq.write_table(pa.table({"question": ["a?"]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match=r"the columns prompt, data_source, reward_model\.ground_truth, .* are missing"):
        check_files([tmp_path / "other.parquet"])
    file = write(row("a?"))
    with pytest.raises(DataError, match="is named twice"):
        check_files([file, file.parent / "." / file.name])
    with pytest.raises(DataError, match="no rows"):
        read_questions([write(name="empty.parquet")])
