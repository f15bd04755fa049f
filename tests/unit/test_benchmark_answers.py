"""Local data of each harness, and the answers of all harnesses scored by one rule."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from data_preprocess.schema import RL_SCHEMA, rl_row
from examples.benchmarks import bare_answers, local_data, rescore
from examples.benchmarks.harness_logs import LogError, read_answers

GOOD = "<think>two and one</think><answer>{}</answer>"


def png(color: str) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (56, 28), color).save(data, "PNG")
    return data.getvalue()


def rows(**changes: Any) -> list[dict[str, Any]]:
    """A question of each of three types; the numerical one has two images, one in the middle of its text."""
    common = {"data_source": "made", "split": "val"}
    return [
        {
            **rl_row(
                **common, index=0, question="count <image> and\t<image>", problem_type="numerical", answer="3",
                images=[png("red"), png("blue")],
            ),
            **changes,
        },
        rl_row(
            **common, index=1, question="which?", problem_type="multiple choice", answer="B", options=["red", "blue"],
            images=[png("blue")],
        ),
        rl_row(**common, index=2, question='name "it"\n{question}', problem_type="free-form", answer="a circle"),
    ]  # fmt: skip


def write_rows(path: Path, content: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(content, RL_SCHEMA), path)
    return path


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("local")
    data = write_rows(folder / "rows.parquet", rows())
    assert local_data.main([str(data), "--out", str(folder / "out")]) == 0
    return folder / "out"


def test_local_data_keeps_words_images_and_truths(local):
    first, second, third = map(json.loads, (local / "questions.jsonl").read_text().splitlines())
    assert [part["type"] for part in first["content"]] == ["text", "image", "text", "image"]
    assert Path(first["content"][3]["value"]).read_bytes() == png("blue")
    assert second["content"][1]["value"] == "which?\nA. red\nB. blue"
    assert third["content"] == [{"type": "text", "value": 'name "it"\n{question}'}]
    assert [first["answer"], second["answer"], third["answer"]] == ["3", "B", "a circle"]


def test_lmms_eval_finds_a_task_for_each_type(local):
    folder = local / "lmms_eval"
    group = yaml.safe_load((folder / "sophiavl_local.yaml").read_text())
    assert group["task"] == [f"sophiavl_local_{kind}" for kind in ("numerical", "multiple_choice", "free_form")]
    text = (folder / "sophiavl_local_numerical.yaml").read_text()
    task = yaml.safe_load(text.replace("!function ", ""))
    [line] = Path(task["dataset_kwargs"]["data_files"]["test"]).read_text().splitlines()
    spec = importlib.util.spec_from_file_location("utils", folder / "utils.py")
    utils = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(utils)
    [message] = utils.doc_to_messages(json.loads(line))
    assert [part["type"] for part in message["content"]] == ["text", "image", "text", "image"]
    for function in re.findall(r"!function utils\.(\w+)", text):
        assert callable(getattr(utils, function))
    assert utils.process_results({"answer": "Teal"}, [" teal "]) == {"accuracy": 1.0}
    assert utils.process_results({"answer": "teal"}, ["steal"]) == {"accuracy": 0.0}


def test_evalscope_gets_choices_and_messages(local):
    [choice] = map(json.loads, (local / "evalscope/vmcq/default_val.jsonl").read_text().splitlines())
    assert choice["question"] == "<image 1>which?\nA. red\nB. blue"
    assert (choice["options"], choice["answer"]) == (["red", "blue"], "B")
    assert Path(choice["image_1"]).is_file()
    [asked] = map(json.loads, (local / "evalscope/vqa/numerical.jsonl").read_text().splitlines())
    [message] = asked["messages"]
    assert [part["type"] for part in message["content"]] == ["text", "image_url", "text", "image_url"]


def test_vlmevalkit_gets_a_table(local):
    table = pd.read_csv(local / "LMUData/sophiavl_local.tsv", sep="\t")
    assert table["index"].tolist() == [0, 1, 2]
    assert table["question"].tolist()[2] == 'name "it"\n{question}'
    assert Path(table["image_path"][1]).is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": []}, "row 0: prompt has 2 <image> marks, but images has 0"),
        ({"images": [{"bytes": b"GIF8", "path": None}] * 2}, "row 0: cannot identify image file"),
        ({"prompt": [{"role": "user", "content": "see <image 1>"}]}, "row 0: prompt holds <image 1>"),
        (
            {"extra_info": {**rows()[0]["extra_info"], "problem_type": "riddle"}},
            "row 0: extra_info.problem_type='riddle'",
        ),
    ],
)
def test_a_bad_row_is_named(tmp_path, capsys, changes, message):
    data = write_rows(tmp_path / "rows.parquet", rows(**changes))
    assert local_data.main([str(data), "--out", str(tmp_path / "out")]) == 1
    assert f"{data}, {message}" in capsys.readouterr().err
    assert not (tmp_path / "out/questions.jsonl").exists()


def test_local_data_removes_no_folder_of_others(tmp_path):
    data = write_rows(tmp_path / "rows.parquet", rows())
    with pytest.raises(SystemExit):
        local_data.main([str(data), "--out", str(tmp_path)])
    assert data.exists()


# --- answers


def lmms_eval_log(folder: Path, responses: dict[str, str], *, date: str = "20260101_000000") -> Path:
    """A folder as lmms-eval leaves it, with the answer to the only question of each type."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, response in responses.items():
        line = {"doc_id": 0, "target": "3", "resps": response, "filtered_resps": "", "accuracy": 1.0, "input": "?"}
        (folder / f"{date}_samples_sophiavl_local_{kind}.jsonl").write_text(json.dumps(line) + "\n")
    return folder


def evalscope_log(folder: Path, files: dict[str, str]) -> Path:
    """A folder as EvalScope leaves it: the reasoning is taken out of the response."""
    reviews = folder / "reviews/model"
    reviews.mkdir(parents=True)
    for name, answer in files.items():
        reply = [
            {"type": "reasoning", "reasoning": "two and one"},
            {"type": "text", "text": f"<answer>{answer}</answer>"},
        ]
        line = {
            "index": 0,
            "target": ["3"],
            "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": reply}],
            "sample_score": {"score": {"value": {"acc": 0.0}, "main_score_name": "acc"}},
        }
        (reviews / f"{name}.jsonl").write_text(json.dumps(line) + "\n")
    return folder


def vlmevalkit_log(folder: Path, responses: list[str]) -> Path:
    folder.mkdir()
    columns = {"index": range(len(responses)), "question": "?", "answer": "NA", "prediction": responses}
    pd.DataFrame(columns).to_csv(folder / "model_sophiavl_local.tsv", sep="\t", index=False, quoting=csv.QUOTE_ALL)
    return folder


def test_all_harnesses_are_scored_by_one_rule(local, tmp_path, capsys):
    good = {
        "numerical": GOOD.format("3.0"),
        "multiple_choice": GOOD.format("(b)"),
        "free_form": GOOD.format("a Circle."),
    }
    runs = {
        "lmms": lmms_eval_log(tmp_path / "lmms", good),
        "scope": evalscope_log(
            tmp_path / "scope",
            {"general_vqa_numerical": "3.0", "general_vmcq_default": "A", "general_vqa_free_form": "x"},
        ),
        "kit": vlmevalkit_log(tmp_path / "kit", [GOOD.format("3.0"), GOOD.format("B"), "no format"]),
    }
    out = tmp_path / "rows.jsonl"
    arguments = [f"{name}={path}" for name, path in runs.items()]
    arguments += ["--questions", str(local / "questions.jsonl"), "--rows", str(out)]
    assert rescore.main([*arguments, "--max-difference", "0.7"]) == 0
    found = {(row["harness"], row["key"]): row for row in map(json.loads, out.read_text().splitlines())}
    assert {key: row["correct"] for key, row in found.items()} == {
        ("lmms", "0"): True, ("lmms", "1"): True, ("lmms", "2"): True,
        ("scope", "0"): True, ("scope", "1"): False, ("scope", "2"): False,
        ("kit", "0"): True, ("kit", "1"): True, ("kit", "2"): False,
    }  # fmt: skip
    assert found["kit", "1"]["kind"] == "multiple choice"
    printed = capsys.readouterr().out
    assert "scope, question 0: truth 3" in printed  # its own rule says wrong
    assert "lmms, scope: 3 questions answered by both, 1 in the same words" in printed
    assert "lmms, scope: decided otherwise by our rule: 2" in printed
    assert rescore.main([*arguments, "--max-difference", "0.6"]) == 1
    assert "accuracies differ by 0.6667" in capsys.readouterr().err


def test_our_own_evaluation_is_read_in_the_order_of_its_data(local, tmp_path):
    lines = [
        {
            "id": f"digest{number}",
            "sample": 0,
            "question": "?",
            "truth": truth,
            "response": response,
            "correct": correct,
        }
        for number, (truth, response, correct) in enumerate(
            [("3", GOOD.format("3"), True), ("B", None, None), ("a circle", GOOD.format("a square"), False)]
        )
    ]
    (tmp_path / "scored.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    questions = rescore.read_questions(local / "questions.jsonl")
    found = rescore.score(read_answers(tmp_path), questions, None, rescore.OutcomeSettings())
    assert {key: (row.correct, row.own) for key, row in found.items()} == {
        "0": (True, True),
        "1": (None, None),
        "2": (False, False),
    }
    (tmp_path / "scored.jsonl").write_text(json.dumps({**lines[0], "sample": 1}))
    with pytest.raises(LogError, match="several samples of a question"):
        read_answers(tmp_path)


def test_an_answer_that_never_came_is_no_wrong_answer(local, tmp_path):
    failed = "[LMMS_EVAL_REQUEST_FAILED after 5 retries] Connection error."
    folder = lmms_eval_log(tmp_path / "lmms", {"numerical": failed, "free_form": GOOD.format("a circle")})
    found = rescore.score(
        read_answers(folder), rescore.read_questions(local / "questions.jsonl"), None, rescore.OutcomeSettings()
    )
    assert [(row.correct, row.own) for row in found.values()] == [(True, True), (None, None)]
    assert rescore.accuracy(row.correct for row in found.values()) == 1.0


def test_of_several_runs_the_last_counts(tmp_path):
    folder = tmp_path / "lmms"
    lmms_eval_log(folder, {"numerical": GOOD.format("new")}, date="20260102_000000")
    lmms_eval_log(folder, {"numerical": GOOD.format("old")}, date="20260101_000000")
    assert [answered.response for answered in read_answers(folder)] == [GOOD.format("new")]


def test_without_the_questions_the_harness_own_truth_counts(tmp_path):
    folder = vlmevalkit_log(tmp_path / "kit", [GOOD.format("na")])
    [row] = rescore.score(read_answers(folder), None, None, rescore.OutcomeSettings()).values()
    assert (row.truth, row.kind, row.correct) == ("NA", "free-form", True)
    kinds = {truth: rescore.guessed_type(truth) for truth in ("B", "(C).", "1,200", "-3.5%", "Yes", "12 apples")}
    assert list(kinds.values()) == ["multiple choice"] * 2 + ["numerical"] * 2 + ["free-form"] * 2


def test_bare_answers_keep_the_response(tmp_path):
    folder = vlmevalkit_log(
        tmp_path / "kit", [GOOD.format(" B "), "no tags", '<answer>A</answer> or <answer>"C"\n</answer>']
    )
    for _ in range(2):
        assert bare_answers.main([str(folder)]) == 0
        table = pd.read_csv(folder / "model_sophiavl_local.tsv", sep="\t", keep_default_na=False)
        assert table["prediction"].tolist() == ["B", "no tags", '"C"']
    assert read_answers(folder)[0].response == GOOD.format(" B ")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("20260101_000000_samples_x.jsonl", '{"doc_id": 0', "line 1: no JSON"),
        ("20260101_000000_samples_x.jsonl", '{"doc_id": 0, "target": "1"}\n', "line 1: KeyError: 'resps'"),
        ("20260101_000000_samples_x.jsonl", "[1]\n", "line 1: no JSON object"),
        ("20260101_000000_samples_x.jsonl", "", "holds no answers"),
        ("model_x.tsv", "index\tprediction\n0\tx\n", "no column answer, question"),
        ("model_x.tsv", "index\tprediction\tanswer\tquestion\nzero\tx\ty\tz\n", "index 'zero' is no whole number"),
        ("notes.txt", "hello", "no answers of lmms-eval, EvalScope, VLMEvalKit or recipe.sophiavl.evaluate there"),
    ],
)
def test_damaged_answers_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(LogError, match=re.escape(message)):
        read_answers(tmp_path)


def test_hostile_text_is_shown_as_words(local, tmp_path, capsys):
    folder = lmms_eval_log(tmp_path / "lmms", {"numerical": GOOD.format("\x1b[31m[bold]\u202e4\n")})
    other = lmms_eval_log(tmp_path / "other", {"numerical": GOOD.format("3")})
    assert rescore.main([f"a={folder}", f"b={other}", "--questions", str(local / "questions.jsonl")]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\u202e" not in printed
    assert r"\x1b[31m[bold]\u202e4\n" in printed
