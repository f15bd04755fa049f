"""The evaluation and infer against a real `vllm serve` of the quickstart's policy."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_preprocess.easy_vqa import main as make_data
from recipe.sophiavl.evaluate.__main__ import main
from recipe.sophiavl.infer import main as infer
from testbed.vllm_server import VllmServer

pytestmark = pytest.mark.e2e

POLICY = Path(__file__).resolve().parents[2] / "examples/quickstart/models/policy"
FLAGS = ("--max-model-len", "512", "--max-num-seqs", "64")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quickstart's validation questions."""
    folder = tmp_path_factory.mktemp("data")
    assert make_data(["--out", str(folder)]) in (0, None)
    return folder / "val.parquet"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """A server of the policy. A test that kills it must have it running again when it ends."""
    policy = VllmServer(POLICY, tmp_path_factory.mktemp("policy") / "vllm.log", FLAGS, name="policy")
    try:
        yield policy.start()
    finally:
        policy.stop()


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_killed_in_the_middle_the_same_command_goes_on(server, data, tmp_path, capsys):
    out = tmp_path / "out"
    command = [server.url, str(data), "--out", str(out), "--max-tokens", "64", "--concurrency", "4"]
    status: list[int] = []
    asking = threading.Thread(target=lambda: status.append(main([*command, "--wait-s", "1"])))
    asking.start()
    while asking.is_alive() and not ((out / "answers.jsonl").is_file() and len(lines(out / "answers.jsonl")) > 30):
        time.sleep(0.01)
    server.kill()
    asking.join()
    assert status == [1]
    assert "has not answered for 1 s" in capsys.readouterr().err
    kept = lines(out / "answers.jsonl")
    assert 30 < len(kept) < 384
    server.start()
    assert main(command) == 0
    whole = lines(out / "answers.jsonl")
    assert whole[: len(kept)] == kept
    assert len({line["id"] for line in whole}) == len(whole) == 384
    results = json.loads((out / "results.json").read_text())
    assert results["counts"]["errors"] == {}
    assert 0.3 < results["figures"]["all"]["accuracy"]["value"] < 0.95
    assert results["figures"]["all"]["format"]["value"] > 0.95, "it was asked as in training"


def test_a_prompt_that_is_too_long_is_that_rows_error(server, data, tmp_path):
    out = tmp_path / "out"
    given = ["--max-tokens", "64", "--limit", "3", "--system-prompt", "look " * 600]
    assert main([server.url, str(data), "--out", str(out), *given]) == 1
    results = json.loads((out / "results.json").read_text())
    assert (results["counts"]["answers"], results["counts"]["errors"]) == (0, {"http_400": 3})
    assert "512" in results["first_errors"][0], "it says how long a prompt may be"


def test_served_by_us_or_by_others_it_answers_alike(server, data, tmp_path, capsys):
    """And infer answers as the evaluation."""
    there, here = tmp_path / "there", tmp_path / "here"
    given = [str(data), "--limit", "24", "--max-tokens", "64"]
    assert main([server.url, *given, "--out", str(there)]) == 0
    flags = ["--serve-flags", " ".join(FLAGS)]
    assert main([str(POLICY), *given, "--out", str(here), *flags, "--compare", str(there)]) == 0
    answers = [[line["response"] for line in lines(folder / "scored.jsonl")] for folder in (there, here)]
    assert answers[0] == answers[1]
    (compared,) = json.loads((here / "results.json").read_text())["compared"]
    assert (compared["both"], compared["differences"]["all"]["accuracy"]["value"]) == (24, 0.0)
    capsys.readouterr()
    assert infer([server.url, str(data), "--json", "--max-tokens", "64"]) == 0
    said = [json.loads(line)["response"] for line in capsys.readouterr().out.splitlines()]
    assert said[:24] == answers[0]
