"""Answers outlive whatever happens to the process, and those of two settings never meet."""

from __future__ import annotations

import json

import pytest

from recipe.sophiavl.evaluate.answers import ANSWERS, SETTINGS, Answers
from recipe.sophiavl.evaluate.policy import Answer
from recipe.sophiavl.trm_training.line_file import JournalError
from recipe.sophiavl.validation import SettingsError

SET = {"model": "policy", "temperature": 0.0}
LONG = Answer('<think>"ü\n\u2028\U0001f600</think>' + "x" * 2**20, cut=True, prompt_tokens=3, completion_tokens=5)


def test_an_answer_is_found_again_whole(tmp_path):
    with Answers(tmp_path / "new", SET) as answers:
        answers.add("a", 0, LONG)
        answers.add("a", 1, Answer(None, "http_400: too long"))
        assert len((tmp_path / "new" / ANSWERS).read_bytes().splitlines()) == 2, "before anything else happens"
    with Answers(tmp_path / "new", SET) as answers:
        assert answers.get("a", 0) == LONG
        assert answers.get("a", 1).error == "http_400: too long"
        assert answers.get("b", 0) is None
        assert answers.has("a", 1)
        assert not answers.has("a", 1, failed_too=False)
        answers.add("a", 1, Answer("now"))
        assert answers.get("a", 1).text == "now"


def test_a_line_that_was_cut_short_is_asked_again(tmp_path):
    with Answers(tmp_path, SET) as answers:
        answers.add("a", 0, Answer("one"))
        answers.add("b", 0, Answer("two"))
    file = tmp_path / ANSWERS
    file.write_bytes(file.read_bytes()[:-1])
    with Answers(tmp_path, SET) as answers:
        assert (answers.has("a", 0), answers.has("b", 0)) == (True, False)
        answers.add("b", 0, Answer("again"))
    with Answers(tmp_path, SET) as answers:
        assert answers.get("b", 0).text == "again"


@pytest.mark.parametrize("line", ["{", "[]", "3", '{"id": "a"}', '{"id": "a", "sample": 0, "text": "x", "colour": 1}'])
def test_a_broken_line_is_named_and_nothing_is_changed(tmp_path, line):
    with Answers(tmp_path, SET) as answers:
        answers.add("a", 0, Answer("one"))
    file = tmp_path / ANSWERS
    file.write_text(file.read_text() + line + "\n" + file.read_text())
    before = file.read_bytes()
    with pytest.raises(JournalError, match=r"answers\.jsonl, line 2: no answer of this command"):
        Answers(tmp_path, SET)
    assert file.read_bytes() == before


def test_other_settings_are_refused_with_what_differs(tmp_path):
    with Answers(tmp_path, SET) as answers:
        answers.add("a", 0, Answer("one"))
    with pytest.raises(SettingsError) as caught:
        Answers(tmp_path, {"model": "policy", "temperature": 1.0, "top_p": 0.9})
    table = str(caught.value)
    assert "asked for otherwise" in table
    assert [line.split() for line in table.splitlines() if line.startswith("temperature")] == [
        ["temperature", "0.0", "1.0"]
    ]
    assert "top_p" in table
    assert "model" not in table.partition(":\n")[2]
    with Answers(tmp_path, SET) as answers:
        assert answers.get("a", 0).text == "one"


def test_settings_that_never_had_an_answer_may_change(tmp_path):
    Answers(tmp_path, SET).__exit__()
    with Answers(tmp_path, {"model": "other"}):
        assert json.loads((tmp_path / SETTINGS).read_text()) == {"model": "other"}


def test_answers_of_nobody_knows_what_are_not_taken(tmp_path):
    (tmp_path / ANSWERS).write_text("notes\n")
    with pytest.raises(SettingsError, match=r"holds answers\.jsonl and no settings\.json"):
        Answers(tmp_path, SET)
    (tmp_path / SETTINGS).write_text("{")
    with pytest.raises(SettingsError, match=r"settings\.json is damaged"):
        Answers(tmp_path, SET)


def test_a_second_process_is_refused(tmp_path):
    with Answers(tmp_path, SET), pytest.raises(JournalError, match="another process"):
        Answers(tmp_path, SET)
