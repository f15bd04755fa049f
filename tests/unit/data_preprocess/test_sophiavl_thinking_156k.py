"""SophiaVL-R1-Thinking-156k: scored reasoning comes out as plain columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from preprocess_builders import output_rows, png, rejected_rows

from data_preprocess import sophiavl_thinking_156k
from data_preprocess.schema import THINKING_SCHEMA
from data_preprocess.sophiavl_thinking_156k import reasoning_of


def scored(number: int, **changes: Any) -> dict[str, Any]:
    row = {
        "question": f"How many cubes are there in {number}?",
        "thinking": f"I count {number} cubes.",
        "score": 0.7,
        "path": f"./Math/CLEVR-Math/images/{number}.png",
        "data_source": "CLEVR-Math",
    }
    return row | changes


def write(root: Path, image_rows: list[dict], text_rows: list[dict] = ()) -> Path:
    (root / "Math/CLEVR-Math/images").mkdir(parents=True)
    for number in range(10):
        (root / f"Math/CLEVR-Math/images/{number}.png").write_bytes(png(number))
    (root / "multimodal_part.json").write_text(json.dumps(image_rows))
    (root / "text_part.json").write_text(json.dumps(text_rows))
    return root


def convert(source: Path, out: Path, *options: str) -> int:
    return sophiavl_thinking_156k.main([str(source), "--out", str(out), "--workers", "1", *options])


def test_a_row_field_by_field(tmp_path: Path) -> None:
    text = scored(2, question="What is 1 + 1?", path="", data_source="gsm8k", score="1")
    assert convert(write(tmp_path / "in", [scored(1)], [text]), tmp_path / "out") == 0
    first, second = output_rows(tmp_path / "out")
    assert first == {
        "data_source": "CLEVR-Math",
        "question": "<image>How many cubes are there in 1?",
        "images": [{"bytes": png(1), "path": None}],
        "thinking": "I count 1 cubes.",
        "score": 0.7,
        "split": "train",
        "index": 0,
    }
    assert (second["question"], second["images"], second["score"]) == ("What is 1 + 1?", [], 1.0)
    assert pq.read_schema(tmp_path / "out" / "train-00000.parquet").equals(THINKING_SCHEMA)


@pytest.mark.parametrize(
    ("changes", "field", "fault"),
    [
        ({"score": 1.2}, "score", "bad_score"),
        ({"score": None}, "score", "bad_score"),
        ({"score": "good"}, "score", "bad_score"),
        ({"thinking": ""}, "thinking", "bad_field"),
        ({"thinking": "<think> </think><answer>4</answer>"}, "thinking", "bad_field"),
        ({"question": None}, "question", "bad_field"),
        ({"question": "<image><image>Which?"}, "question", "image_marks"),
        ({"path": "./Math/none.png"}, "path", "missing_image"),
        ({"path": "/etc/passwd"}, "path", "outside_image_root"),
        ({"path": "", "data_type": "image"}, "path", "missing_image"),
        ({"thinking": "x" * 5000}, "thinking", "prompt_too_long"),
    ],
)
def test_bad_rows_are_rejected_and_cost_no_good_row(
    tmp_path: Path, changes: dict[str, Any], field: str, fault: str
) -> None:
    source = write(tmp_path / "in", [scored(1), scored(2, **changes), scored(3)])
    assert convert(source, tmp_path / "out", "--max-prompt-chars", "4000") == 0
    assert [row["index"] for row in output_rows(tmp_path / "out")] == [0, 2]
    (rejected,) = rejected_rows(tmp_path / "out")
    assert (rejected["row"], rejected["field"], rejected["fault"]) == (1, field, fault)


def test_other_field_names(tmp_path: Path) -> None:
    aliased = {"problem": "Q", "response": "<think>because</think><answer>4</answer>", "reward": 0.25, "image": "1.png"}
    source = write(tmp_path / "in", [aliased | {"image": "./Math/CLEVR-Math/images/1.png"}])
    convert(source, tmp_path / "out")
    (row,) = output_rows(tmp_path / "out")
    assert (row["thinking"], row["score"], row["images"][0]["bytes"]) == ("because", 0.25, png(1))
    own = write(tmp_path / "in2", [scored(1, judged=0.5, thought="so")])
    convert(own, tmp_path / "out2", "--field", "score=judged", "--field", "thinking=thought")
    (row,) = output_rows(tmp_path / "out2")
    assert (row["thinking"], row["score"]) == ("so", 0.5)


def test_an_unknown_column_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(write(tmp_path / "in", [scored(1)]), tmp_path / "out", "--field", "colour=c") == 1
    assert "--field 'colour=c'" in capsys.readouterr().err


def test_sides_share_no_image(tmp_path: Path) -> None:
    rows = [scored(number % 10, thinking=f"attempt {number}") for number in range(100)]
    convert(write(tmp_path / "in", rows), tmp_path / "out", "--val-fraction", "0.4")
    sides = [{row["images"][0]["bytes"] for row in output_rows(tmp_path / "out", side)} for side in ("train", "val")]
    assert len(sides[0]) + len(sides[1]) == 10
    assert not sides[0] & sides[1]
    assert {row["split"] for row in output_rows(tmp_path / "out", "val")} == {"val"}


@pytest.mark.parametrize(
    ("written", "reasoning"),
    [
        ("just a thought", "just a thought"),
        ("<think> a </think><answer>5</answer>", "a"),
        ("a</think><answer>5</answer>", "a"),
        ("<think>a<answer>5</answer>", "a"),
        ("<think>never ends", "never ends"),
        ("a <answer>5</answer>", "a"),
    ],
)
def test_the_final_answer_is_no_part_of_the_reasoning(written: str, reasoning: str) -> None:
    assert reasoning_of(written) == reasoning
