"""The gallery shows what the dumps and the data say, bounded, and tells what it does not show."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_preprocess.schema import RL_SCHEMA, rl_row
from recipe.sophiavl.report.gallery import gallery
from recipe.sophiavl.report.problems import Problems
from recipe.sophiavl.report.run_data import Bounds, Gallery
from recipe.sophiavl.report.strata import StrataCollector
from tests.support.dumped import read, response
from tests.unit.report.test_data_rows import encoded

HOSTILE = "<script>alert('x')</script>\x1b[31mred\x1b[0m \u202eright to left\u2066 \x00 \ud83d &amp; 漢字"


def shown(folder: Path, rows: list[dict], files: list[Path] = (), **bounds: int) -> tuple[Gallery, list[str]]:
    collector = StrataCollector(size=bounds.get("groups", 120), seed=0)
    dump, problems = read(folder, rows)
    collector.add(dump, dump.numbers["outcome_reward"] >= 0.5)
    return gallery(collector, files, "images", Bounds(**bounds), problems), problems.texts()


def data(folder: Path, *rows: dict) -> list[Path]:
    pq.write_table(pa.Table.from_pylist(list(rows), schema=RL_SCHEMA), folder / "data.parquet")
    return [folder / "data.parquet"]


def data_row(**fields: object) -> dict:
    values = {"data_source": "s", "question": "How many?", "problem_type": "numerical", "answer": "2"}
    return rl_row(**values | {"split": "train", "index": 0} | fields)


def test_a_group_has_its_question_its_image_and_its_responses_side_by_side(tmp_path: Path) -> None:
    rows = [
        response("a", 1.0, 0.2, index=0, output="<think>no</think>", score=1.06, answer="2", gamma=0.5, mu_wrong=0.9),
        response("b", index=1),
        response("a", 0.0, None, index=0, thinking_error="server gone", format_ok=True, score=0.0),
    ]
    files = data(tmp_path, data_row(images=[encoded()], options=["1", "2"]))
    found, told = shown(tmp_path, rows, files)
    (group,) = (one for one in found.groups if one.size == 2)
    assert (group.question, group.options, group.truth, group.row) == ("How many?", ["1", "2"], "2", "s, train, 0")
    assert (group.gamma, group.mu_correct, group.mu_wrong, group.step) == (0.5, 0.8, 0.9, 1)
    assert [len(group.images), group.image_note, group.problem_type] == [1, "", "numerical"]
    first, second = group.responses
    assert (first.text, first.outcome, first.thinking_reward, first.reward) == ("<think>no</think>", 1.0, 0.2, 1.06)
    assert (first.flags, first.format_ok, first.thinking_asked) == (["wrong_thinking_right_answer"], True, True)
    assert (second.thinking_reward, second.thinking_error, second.flags) == (None, "server gone", ["missing_score"])
    assert found.note == "All groups of the run."
    assert told == []


def test_without_its_data_a_group_shows_its_prompt_and_says_so(tmp_path: Path) -> None:
    found, told = shown(tmp_path, [response("a", index=3)], [tmp_path / "gone.parquet"])
    (group,) = found.groups
    assert "How many?" in group.question
    assert "found in no data file" in group.image_note
    assert "gone.parquet" in told[0]


def test_a_row_with_another_truth_is_not_the_one_that_was_trained_on(tmp_path: Path) -> None:
    files = data(tmp_path, data_row(answer="3", images=[encoded()], question="Another?"))
    (group,) = shown(tmp_path, [response("a", index=0, gts="2")], files)[0].groups
    assert (group.images, group.truth) == ([], "2")
    assert "another truth" in group.image_note
    assert "How many?" in group.question


@pytest.mark.parametrize("index", [None, "0", True, 1.5, 2**70])
def test_an_index_that_is_none_finds_no_row(tmp_path: Path, index: object) -> None:
    (group,) = shown(tmp_path, [response("a", index=index)], data(tmp_path, data_row()))[0].groups
    assert group.row == ""


def test_hostile_text_comes_as_it_is_and_can_be_written(tmp_path: Path) -> None:
    texts = ("output", "answer", "gts", "thinking_error", "input", "data_source", "group")
    (group,) = shown(tmp_path, [response() | dict.fromkeys(texts, HOSTILE)])[0].groups
    (one,) = group.responses
    for text in (one.text, one.answer, group.truth, one.thinking_error, group.question, group.row):
        assert "<script>alert('x')</script>\x1b[31m" in text
        text.encode("utf-8")
    assert group.id.isalnum()


def test_long_texts_lose_their_middle_and_say_so(tmp_path: Path) -> None:
    text = "a" * 3000 + "b" * 3000
    (group,) = shown(tmp_path, [response("a", output=text)], text_chars=1000)[0].groups
    (one,) = group.responses
    assert one.cut == 5000
    assert one.text.startswith("a" * 500 + "\n[… 5000 characters left out …]\n" + "b" * 100)
    assert one.text.count("a" * 500) == 1 == one.text.count("b" * 500)


def test_of_many_responses_those_that_make_the_group_what_it_is_are_kept(tmp_path: Path) -> None:
    rows = [response("a", 1.0, 0.1 if place in (37, 55) else 0.9, output=str(place)) for place in range(64)]
    (group,) = shown(tmp_path, rows, responses=4)[0].groups
    assert (group.size, len(group.responses)) == (64, 4)
    assert [one.text for one in group.responses] == ["0", "1", "37", "55"]


def test_a_bounded_sample_says_how_it_was_drawn(tmp_path: Path) -> None:
    found, _ = shown(tmp_path, [response(str(i)) for i in range(50)], groups=10)
    assert len(found.groups) == len({group.id for group in found.groups}) == 10
    assert "drawn at random" in found.note


def test_a_dump_that_was_written_anew_meanwhile_costs_its_groups(tmp_path: Path) -> None:
    collector = StrataCollector(size=10, seed=0)
    dump, problems = read(tmp_path, [response("a"), response("b")])
    collector.add(dump, dump.numbers["outcome_reward"] >= 0.5)
    dump.file.write_text(json.dumps(response("a")) + "\n")
    found = gallery(collector, [], "images", Bounds(), problems)
    assert [group.size for group in found.groups] == [1]
    assert "written anew" in problems.texts()[0]
    dump.file.unlink()
    assert gallery(collector, [], "images", Bounds(), Problems()).groups == []


@pytest.mark.parametrize("value", [None, 5, ["x"], {"a": 1}])
def test_texts_of_another_kind_are_shown_as_text(tmp_path: Path, value: object) -> None:
    row = response("a", output=value, answer=value, gts=value, input=value, thinking_error=value, problem_type=value)
    (group,) = shown(tmp_path, [row])[0].groups
    assert group.responses[0].text == ("" if value is None else str(value))
