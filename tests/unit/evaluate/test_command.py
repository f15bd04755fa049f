"""The whole command against a server: what it asks, keeps, counts and tells."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from recipe.sophiavl.evaluate import evaluation
from recipe.sophiavl.evaluate.__main__ import main, read_scoring
from recipe.sophiavl.validation import SettingsError
from testbed.vllm_server import free_port
from tests.support.policy_server import PolicyServer, completion, question_of
from tests.unit.evaluate.conftest import picture, row

RED, BLUE, GREEN = picture("red"), picture("blue"), picture("green")


def said(answer: str, thinking: str = "I count") -> str:
    return f"<think>{thinking}</think><answer>{answer}</answer>"


def counting(body: dict[str, Any]) -> str:
    """Right about 4, wrong about everything else."""
    return said("4")


def results(out: Path) -> dict[str, Any]:
    return json.loads((out / "results.json").read_text())


def lines(out: Path, name: str = "scored.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / name).read_text().splitlines()]


@pytest.fixture
def data(write) -> Path:
    """Four questions, two of them about one image; two that 4 is the answer to."""
    return write(
        row("how many?", "4", [RED]),
        row("how many edges?", "5", [RED]),
        row("2 + 2?", "4"),
        row("which?", "B", [BLUE], problem_type="multiple choice", options=["4", "5"], data_source="there"),
    )


def test_answers_are_scored_by_type_and_source(data, tmp_path, capsys):
    with PolicyServer(counting).running() as server:
        assert main([server.url, str(data), "--out", str(tmp_path / "out")]) == 0
    found = results(tmp_path / "out")
    values = {group: one["accuracy"]["value"] for group, one in found["figures"].items()}
    assert values == {
        "all": 0.5,
        "source/here": pytest.approx(2 / 3),
        "source/there": 0.0,
        "type/multiple choice": 0.0,
        "type/numerical": pytest.approx(2 / 3),
    }
    assert found["counts"]["errors"] == {}
    assert found["settings"]["model"] == "policy"
    assert [line["correct"] for line in lines(tmp_path / "out")] == [True, False, True, False]
    assert "0.500" in capsys.readouterr().out
    page = (tmp_path / "out/results.html").read_text()
    assert "2 wrong answers" in page
    assert "I count" in page


def test_a_second_start_asks_only_what_is_missing(data, write, tmp_path, capsys):
    out = tmp_path / "out"
    with PolicyServer(counting).running() as server:
        command = [server.url, str(data), "--out", str(out)]
        assert main([*command, "--limit", "2"]) == 0
        assert len(server.asked) == 2
        first = (out / "answers.jsonl").read_bytes()
        assert main(command) == 0
        assert len(server.asked) == 4
        assert (out / "answers.jsonl").read_bytes().startswith(first)
        assert main([*command, "--threshold", "numerical=1"]) == 0
        assert len(server.asked) == 4
        assert "4 of 4 answers are there already" in capsys.readouterr().err
    assert main(command) == 0, "nothing is missing: the server may have gone"


def test_other_settings_or_another_model_in_the_same_folder_are_refused(data, write, tmp_path, capsys):
    out = tmp_path / "out"
    with PolicyServer(counting).running() as server:
        command = [server.url, str(data), "--out", str(out)]
        assert main(command) == 0
        before = (out / "results.json").read_bytes()
        assert main([*command, "--max-tokens", "5"]) == 2
        assert ["max_tokens", "1024", "5"] in [line.split() for line in capsys.readouterr().err.splitlines()]
        assert main([server.url, str(write(row("other?"), name="o.parquet")), "--out", str(out)]) == 2
        server.models[0]["root"] = "weights-2"
        assert main(command) == 2
        assert "weights-2" in capsys.readouterr().err
        assert len(server.asked) == 4
    assert (out / "results.json").read_bytes() == before


def test_a_row_that_is_refused_is_an_error_and_no_wrong_answer(data, tmp_path, capsys):
    def reply(body):
        refused = (400, {"error": {"message": "maximum context length \x1b[31m"}})
        return refused if "edges" in question_of(body) else counting(body)

    out = tmp_path / "out"
    with PolicyServer(reply).running() as server:
        command = [server.url, str(data), "--out", str(out)]
        assert main(command) == 0
        found = results(out)
        assert found["counts"]["errors"] == {"http_400": 1}
        assert (found["figures"]["all"]["accuracy"]["value"], found["figures"]["all"]["accuracy"]["n"]) == (
            pytest.approx(2 / 3),
            3,
        )
        assert lines(out)[1]["correct"] is None
        told = capsys.readouterr().out
        assert (
            f"1 of 4 answers are missing (http_400 1): every figure is of the others. The first: {data}, row 1" in told
        )
        assert "\x1b[31m" not in told
        server.reply = counting
        assert main(command) == 0
        assert len(server.asked) == 4, "what was refused is not asked again"
        assert main([*command, "--retry-errors"]) == 0
        assert len(server.asked) == 5
    assert results(out)["counts"]["errors"] == {}


def test_an_image_that_is_none_is_named_and_the_rest_is_answered(write, tmp_path, capsys):
    file = write(row("a?", images=[RED]), row("b?", images=[b"no image"]), row("c?"))
    with PolicyServer(counting).running() as server:
        assert main([server.url, str(file), "--out", str(tmp_path / "out")]) == 0
    assert len(server.asked) == 2
    assert results(tmp_path / "out")["counts"]["errors"] == {"the row itself": 1}
    assert f"{file}, row 1: image 0: no image of a known kind" in capsys.readouterr().out


def test_what_a_server_writes_in_odd_ways_is_counted_as_what_it_is(write, tmp_path):
    replies = {
        "empty": completion(""),
        "null": completion(None),
        "parted": completion("<answer>4</answer>", reasoning_content="I count"),
        "thinks": completion(None, finish_reason="length", reasoning_content="I count and count"),
        "cut": completion("<think>I count", finish_reason="length"),
        "long": completion(said("4", "x" * 2**20)),
    }
    file = write(*(row(name) for name in replies))
    with PolicyServer(lambda body: replies[question_of(body)]).running() as server:
        assert main([server.url, str(file), "--out", str(tmp_path / "out")]) == 0
    found = {line["question"]: (line["correct"], line["format_ok"], line["cut"]) for line in lines(tmp_path / "out")}
    assert found == {
        "empty": (False, False, False),
        "null": (False, False, False),
        "parted": (True, True, False),
        "thinks": (False, False, True),
        "cut": (False, False, True),
        "long": (True, True, False),
    }
    assert any("parts the thinking from 2 answers" in note for note in results(tmp_path / "out")["notes"])


def test_samples_give_pass_at_k_and_a_majority(data, tmp_path):
    def sampled(body):
        return said("4" if body["seed"] % 3 else "5")

    out = tmp_path / "out"
    with PolicyServer(sampled).running() as server:
        assert main([server.url, str(data), "--out", str(out), "--samples", "8", "--temperature", "1"]) == 0
        assert len({body["seed"] for body in server.asked}) == 32
    figures = results(out)["figures"]["all"]
    assert figures["pass@8"]["value"] >= figures["pass@4"]["value"] >= figures["pass@2"]["value"]
    assert figures["pass@2"]["value"] >= figures["accuracy"]["value"]
    assert figures["majority"]["n"] == 4
    correct = [line["correct"] for line in lines(out)]
    assert figures["accuracy"]["value"] == pytest.approx(sum(correct) / 32)
    assert main([server.url, str(data), "--out", str(out), "--samples", "8"]) == 2


def test_two_models_are_compared_over_the_questions_that_both_answered(data, tmp_path, capsys):
    def refuses_edges(body):
        return (400, {}) if "edges" in question_of(body) else said("4")

    def right_about_edges(body):
        return said("5") if "edges" in question_of(body) else said("6")

    one, two = tmp_path / "one", tmp_path / "two"
    with PolicyServer(refuses_edges).running() as server:
        assert main([server.url, str(data), "--out", str(one), "--name", "first"]) == 0
        server.reply = right_about_edges
        assert main([server.url, str(data), "--out", str(two), "--compare", str(one)]) == 0
    (compared,) = results(two)["compared"]
    assert (compared["name"], compared["both"], compared["only_here"], compared["only_there"]) == ("first", 3, 1, 0)
    assert compared["differences"]["all"]["accuracy"]["value"] == pytest.approx(-2 / 3)
    told = capsys.readouterr().out
    assert "Difference from first" in told
    assert "asked or scored otherwise" not in told
    other_way = ["--max-tokens", "9", "--outcome", "tolerance=0.1"]
    with PolicyServer(right_about_edges).running() as server:
        assert main([server.url, str(data), "--out", str(tmp_path / "3"), "--compare", str(one), *other_way]) == 0
    told = capsys.readouterr().out
    assert "otherwise: max_tokens 1024 there, 9 here; tolerance 0.0 there, 0.1 here" in told
    (tmp_path / "no").mkdir()
    assert main([server.url, str(data), "--out", str(two), "--compare", str(tmp_path / "no")]) == 2
    assert "no evaluation of this command" in capsys.readouterr().err


def test_thinking_is_scored_once_each_and_a_missing_score_is_counted(data, tmp_path, capsys):
    def reply(body):
        if body["model"] != "trm":
            return said("4", f"about {question_of(body)[:8]}") if "which" not in question_of(body) else "no format"
        return "0.6" if "how many" in question_of(body) else "hard to say"

    out = tmp_path / "out"
    with PolicyServer(reply).running() as server:
        trm = ["--trm-url", server.url, "--trm-model", "trm", "--trm-structured-output", "off"]
        command = [server.url, str(data), "--out", str(out), *trm]
        assert main(command) == 0
        asked = len(server.asked)
        assert main(command) == 0
        assert len(server.asked) == asked
        assert main([*command, "--trm-temperature", "1"]) == 2
        assert "asked otherwise" in capsys.readouterr().err
    found = results(out)
    assert [line["thinking_reward"] for line in lines(out)] == [0.6, 0.6, None, 0.0], "without the format it is 0"
    assert found["counts"]["missing_thinking"] == {"unparsable": 1}
    assert found["figures"]["all"]["thinking"]["value"] == pytest.approx(0.4)
    assert "1 thinking rewards are missing (unparsable 1)" in "".join(found["notes"])


def test_a_server_that_refuses_everything_ends_it_early(write, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(evaluation, "_MOST_ERRORS", 5)
    file = write(*(row(f"{n}?") for n in range(300)))
    with PolicyServer(lambda _: (404, {"error": {"message": "no images here"}})).running() as server:
        assert main([server.url, str(file), "--out", str(tmp_path / "out"), "--concurrency", "2"]) == 1
        assert len(server.asked) < 10
    assert "the last 5 questions were all refused: http_404: no images here" in capsys.readouterr().err
    assert not (tmp_path / "out/results.json").exists()


def test_a_server_that_goes_away_keeps_what_it_answered(write, tmp_path, capsys):
    file, out, port = write(*(row(f"{n}?") for n in range(60))), tmp_path / "out", free_port()
    command = [f"http://127.0.0.1:{port}/v1", str(file), "--out", str(out), "--concurrency", "2"]

    def goes_away(body):
        if len(first.asked) < 20:
            return counting(body)
        threading.Thread(target=first.stop).start()
        return None

    first = PolicyServer(goes_away, port=port)
    with first.running():
        assert main([*command, "--wait-s", "0.5"]) == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{command[0]} has not answered for 0.5 s" in told
    assert "the same command" in told
    kept = lines(out, "answers.jsonl")
    assert len(kept) == 19
    assert not (out / "results.json").exists()
    with PolicyServer(counting, port=port).running() as again:
        assert main(command) == 0
    assert len(again.asked) == 60 - 19
    assert results(out)["counts"]["answers"] == 60


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["http://127.0.0.1:{port}/v1", "{data}"], 1, "nobody answers there"),
        (["http://user:pass@host/v1", "{data}"], 2, "a URL holds a user name or password"),
        (["http://a b/v1", "{data}"], 2, "no base URL"),
        (["{tmp}/none", "{data}"], 2, "MODEL={tmp}/none: no such folder"),
        (["{tmp}", "{data}"], 2, "this folder has no config.json"),
        (["{url}", "{tmp}/none.parquet"], 2, "none.parquet: no such file"),
        (["{url}", "{data}", "--model", "polcy"], 2, "serves policy (did you mean"),
        (["{url}", "{data}", "--serve-flags", "--seed 1"], 2, "--serve-flags"),
        (["{url}", "{data}", "--threshold", "essay=0.5"], 2, "--threshold=essay=0.5"),
        (["{url}", "{data}", "--trm-model", "trm"], 2, "--trm-url and --trm-model go together"),
        (["{url}", "{data}", "--trm-url", "http://127.0.0.1:{port}/v1", "--trm-model", "trm"], 1, "127.0.0.1:{port}"),
        (["{url}", "{data}", "--api-key-env", "NO_SUCH_KEY"], 2, "--api-key-env=NO_SUCH_KEY"),
        (["{url}", "{data}", "--samples", "2"], 2, "--samples=2 with --temperature 0"),
    ],
)
def test_bad_input_is_one_clear_sentence(arguments, status, says, data, tmp_path, capsys):
    with PolicyServer(counting).running() as server:
        names = {"port": free_port(), "data": data, "tmp": tmp_path / "x", "url": server.url}
        names["tmp"].mkdir()
        filled = [argument.format(**names) for argument in arguments]
        assert main([*filled, "--out", str(tmp_path / "out")]) == status
        assert server.asked == []
    told = capsys.readouterr().err
    assert says.format(**names) in told
    assert len(told.strip().splitlines()) == 1
    assert "pass" not in told or "password" in told


def test_what_counts_as_right_can_be_set():
    scoring = read_scoring(["0.7", "ocr=0.9"], ["tolerance=0.05", "require_unit=true"])
    assert [scoring.correct(0.8, kind) for kind in ("OCR", "free-form")] == [False, True]
    assert (scoring.outcome.tolerance, scoring.outcome.require_unit) == (0.05, True)
    for thresholds, outcome in ((["0"], []), (["x"], []), ([], ["tolerance=2"]), ([], ["colour=red"])):
        with pytest.raises(SettingsError):
            read_scoring(thresholds, outcome)


def test_text_of_a_model_and_of_the_data_cannot_write_to_terminal_or_page(write, tmp_path, capsys):
    evil = "\x1b[2J\u202e<script>alert(1)</script>"
    file = write(row("a?", data_source=evil, images=[GREEN]))
    with PolicyServer(lambda _: said("4", evil)).running() as server:
        assert main([server.url, str(file), "--out", str(tmp_path / "out"), "--name", "x\x1b[31m"]) == 0
    told = capsys.readouterr()
    page = (tmp_path / "out/results.html").read_text()
    for text in (told.out, told.err, page):
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "<script>alert" not in page
