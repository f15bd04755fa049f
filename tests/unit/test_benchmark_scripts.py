"""Benchmark scripts: what they would run, the local data of each harness, and its answers scored by one rule."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from data_preprocess.schema import RL_SCHEMA, SYSTEM_PROMPT, rl_row
from examples.benchmarks import bare_answers, local_data, rescore
from examples.benchmarks.harness_logs import LogError, read_answers

FOLDER = Path(__file__).parents[2] / "examples/benchmarks"
HARNESSES = ("lmms_eval.sh", "evalscope.sh", "vlmevalkit.sh")
SCRIPTS = (*HARNESSES, "prove_agreement.sh")
GOOD = "<think>two and one</think><answer>{}</answer>"


def settings_of(script: str) -> set[str]:
    text = (FOLDER / script).read_text() + (FOLDER / "settings.sh").read_text()
    return set(re.findall(r'^(?:export )?([A-Z_]+)="\$\{\1:-[^}]*\}" *#', text, re.MULTILINE))


def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in settings_of(script)}
    return subprocess.run(
        ["bash", f"examples/benchmarks/{script}", *arguments],
        cwd=FOLDER.parents[1],
        env={**inherited, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def commands(done: subprocess.CompletedProcess[str]) -> list[list[str]]:
    """The commands that a dry run printed, as a shell reads them."""
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    return [shlex.split(after) for before, after in pairwise(lines) if before == "# command"]


def flag(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


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


# --- scripts


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_names_every_setting(script):
    done = run(script, "--help")
    assert done.returncode == 0
    settings = settings_of(script)
    assert {"BASE_URL", "MAX_PIXELS", "PROMPT"} <= settings
    assert not {name for name in settings if name not in done.stdout}


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_stop_at_the_first_error(script):
    assert "\nset -euo pipefail\n" in (FOLDER / script).read_text()


def test_our_prompt_is_that_of_the_data():
    assert (FOLDER / "prompts/ours.txt").read_text() == SYSTEM_PROMPT + "\n"
    assert "</think> tagsdd. The final answer" in (FOLDER / "prompts/released_7b.txt").read_text()


def test_lmms_eval_is_told_prompt_pixels_length_and_where_the_answer_is():
    done = run(
        "lmms_eval.sh", "--dry-run", "--limit", "8", MAX_TOKENS="700", MAX_PIXELS="2000000", PROMPT="released_7b"
    )
    scored, answered = commands(done)
    settings = dict(pair.split("=", 1) for pair in flag(scored, "--model_args").split(","))
    assert settings["max_pixels"] == "2000000"
    assert Path(settings["system_prompt"]).read_text().count("tagsdd") == 1
    assert flag(scored, "--gen_kwargs") == "max_new_tokens=700,temperature=0"
    assert flag(scored, "--tasks").split(",") == ["mmmu_val", "mme", "mmstar", "chartqa", "mmbench_en_dev_static"]
    assert scored[-2:] == ["--limit", "8"]
    assert "--predict_only" in answered
    assert flag(answered, "--tasks").count("mathverse_testmini_") == 5
    assert '"max_pixels": 2000000' in done.stdout.split("vllm serve")[1].splitlines()[0]


def test_the_reasoning_tags_leave_lmms_eval_the_bare_answer():
    tags = json.loads(flag(commands(run("lmms_eval.sh", "--dry-run"))[0], "--reasoning_tags"))
    text = GOOD.format("B")
    for start, end in tags:  # what lmms-eval does with each pair
        begin = text.find(start)
        text = text[:begin] + text[text.find(end, begin) + len(end) :]
    assert text == "B"


def test_a_judge_scores_what_needs_one():
    [command] = commands(run("lmms_eval.sh", "--dry-run", JUDGE="gpt", BENCHMARKS="MathVista"))
    assert "--predict_only" not in command
    *_, last = commands(run("vlmevalkit.sh", "--dry-run", JUDGE="gpt", JUDGE_URL="http://j/v1"))
    assert (flag(last, "--judge"), flag(last, "--judge-base-url")) == ("gpt", "http://j/v1")
    assert "MathVista_MINI" in last
    [command] = commands(run("evalscope.sh", "--dry-run", JUDGE="gpt", JUDGE_URL="http://j/v1"))
    assert json.loads(flag(command, "--judge"))["models"] == [{"model_id": "gpt", "api_url": "http://j/v1"}]


def test_evalscope_is_told_prompt_sampling_and_where_the_answer_is():
    done = run("evalscope.sh", "--dry-run", TEMPERATURE="0.5")
    [command] = commands(done)
    assert json.loads(flag(command, "--generation-config"))["temperature"] == 0.5
    arguments = json.loads(flag(command, "--dataset-args"))
    assert set(arguments) == {"mmmu", "mm_star", "chartqa", "mm_bench", "math_vista", "math_verse"}
    assert arguments["mm_bench"]["subset_list"] == ["en"]
    assert {given["system_prompt"] for given in arguments.values()} == {SYSTEM_PROMPT}
    extract = arguments["chartqa"]["filters"]["extract"]
    found = re.findall(extract["regex_pattern"], "<answer>A</answer>" + GOOD.format("B"))
    assert found[extract["group_select"]] == "B"
    assert "MME is left out" in done.stdout


def test_vlmevalkit_answers_bares_and_scores():
    infer, bare, score = commands(run("vlmevalkit.sh", "--dry-run", PROMPT="released_7b"))
    assert json.loads(flag(infer, "--extra-body"))["system_prompt"].count("tagsdd") == 1
    assert "MathVista_MINI" in infer
    assert "examples.benchmarks.bare_answers" in bare
    assert flag(bare, "examples.benchmarks.bare_answers") == flag(infer, "--work-dir")
    assert flag(score, "--judge") == "exact_matching"
    assert not any(word.startswith("Math") for word in score)


def test_local_data_takes_the_place_of_the_benchmarks(local):
    [command] = commands(run("lmms_eval.sh", "--dry-run", LOCAL_DATA=str(local)))
    assert flag(command, "--include_path") == str(local / "lmms_eval")
    [command] = commands(run("evalscope.sh", "--dry-run", LOCAL_DATA=str(local)))
    arguments = json.loads(flag(command, "--dataset-args"))
    assert arguments["general_vqa"]["subset_list"] == ["free_form", "numerical"]
    assert arguments["general_vmcq"]["prompt_template"] == "{question}"
    [command] = commands(run("vlmevalkit.sh", "--dry-run", LOCAL_DATA=str(local)))
    assert f"LMUData={local}/LMUData" in command
    assert flag(command, "--mode") == "infer"


def test_the_proof_asks_all_with_the_same_settings():
    ours = commands(run("prove_agreement.sh", "--dry-run", MAX_TOKENS="99"))[1]
    assert flag(ours, "--max-tokens") == "99"
    assert Path(flag(ours, "--system-prompt").removeprefix("@")).read_text().strip() == SYSTEM_PROMPT


@pytest.mark.parametrize("script", HARNESSES)
def test_the_key_is_in_no_command(script):
    done = run(script, "--dry-run", OPENAI_API_KEY="sk-secret")
    assert "sk-secret" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("MAX_TOKENS", "many", "MAX_TOKENS=many: must be a whole number above 0"),
        ("TEMPERATURE", "-1", "TEMPERATURE=-1: must be a number of 0 or more"),
        ("MIN_PIXELS", "99999999", "MIN_PIXELS=99999999 is more than MAX_PIXELS=12845056"),
        ("BASE_URL", "127.0.0.1:8000", "BASE_URL=127.0.0.1:8000: must be like http"),
        ("MODEL", "a,b", "MODEL=a,b: must be a name without blank, comma or ="),
        ("PROMPT", "theirs", "PROMPT=theirs: must be one of ours released_7b, or a file"),
        ("BENCHMARKS", "MMMU MMLU", "BENCHMARKS=MMLU: must be of MMMU MME MMStar ChartQA MMBench MathVista MathVerse"),
        ("LOCAL_DATA", "/nowhere", "LOCAL_DATA=/nowhere holds no questions.jsonl"),
    ],
)
def test_a_wrong_setting_is_named(setting, value, message):
    done = run("lmms_eval.sh", "--dry-run", **{setting: value})
    assert done.returncode == 1
    assert message in done.stderr


def test_nothing_is_started_without_a_clone_or_a_server(tmp_path):
    done = run("vlmevalkit.sh", VLMEVALKIT=str(tmp_path))
    assert done.returncode == 1
    assert "holds no run.py: see --help" in done.stderr
    requirements = (FOLDER / "requirements-evalscope.txt").read_bytes()
    stamp = subprocess.run(["sha256sum"], input=requirements, capture_output=True, check=True).stdout[:16].decode()
    (tmp_path / f".installed-{stamp}").touch()  # an environment that is there already
    done = run("evalscope.sh", EVALSCOPE_VENV=str(tmp_path), BASE_URL="http://127.0.0.1:9/v1")
    assert done.returncode == 1
    assert "no OpenAI-compatible server answers at http://127.0.0.1:9/v1/models" in done.stderr


@pytest.mark.parametrize(("file", "pin"), [("lmms-eval", "lmms-eval==0.7.3"), ("evalscope", "evalscope==1.14.1")])
def test_the_environments_are_pinned(file, pin):
    lines = (FOLDER / f"requirements-{file}.txt").read_text().splitlines()
    assert pin in lines
    assert all(line.startswith("# ") or re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)


# --- local data


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
