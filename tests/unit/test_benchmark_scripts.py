"""Benchmark scripts: what they would run, and what they refuse."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from data_preprocess.schema import SYSTEM_PROMPT

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


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A folder as local_data.py leaves it, as far as the scripts look into it."""
    (tmp_path / "evalscope/vqa").mkdir(parents=True)
    (tmp_path / "evalscope/vmcq").mkdir()
    for name in ("questions.jsonl", "evalscope/vqa/free_form.jsonl", "evalscope/vqa/numerical.jsonl"):
        (tmp_path / name).touch()
    return tmp_path


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
