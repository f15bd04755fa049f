"""Single questions: where they come from, what is printed of them, and what a bad one does to the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from recipe.sophiavl.infer import main, questions_of, text_of
from recipe.sophiavl.validation import SettingsError
from tests.support.policy_server import PolicyServer, completion, question_of
from tests.unit.evaluate.conftest import picture

REPOSITORY = Path(__file__).resolve().parents[2]
SAID = "<think>I look</think><answer>red</answer>"


def echo(body) -> str:
    return f"<think>I look</think><answer>{question_of(body)}</answer>"


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two images and a file that is none."""
    for name, data in (("a.png", picture("red")), ("b.jpg", picture("blue", "JPEG")), ("c.png", b"no image")):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "notes.txt").write_text("not asked about")
    return tmp_path


def asked(capsys, *arguments: str, reply=echo, status: int = 0) -> list[dict]:
    """What ``--json`` prints."""
    with PolicyServer(reply).running() as server:
        assert main([server.url, *arguments, "--json"]) == status
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_an_image_and_a_question_are_answered(folder, capsys):
    with PolicyServer(lambda _: SAID).running() as server:
        assert main([server.url, "--image", str(folder / "a.png"), "--question", "what colour?"]) == 0
        system, user = server.asked[0]["messages"]
    assert "<think>" in system["content"][0]["text"], "the prompt of training"
    assert [part["type"] for part in user["content"]] == ["image_url", "text"]
    assert capsys.readouterr().out.splitlines()[1:4] == ["Question: what colour?", "Thinking: I look", "Answer: red"]


def test_a_folder_is_asked_image_by_image_and_a_bad_one_spoils_no_other(folder, capsys):
    found = asked(capsys, str(folder), "--question", "what?", status=1)
    assert [Path(one["images"][0]).name for one in found] == ["a.png", "b.jpg", "c.png"]
    assert [one["answer"] for one in found] == ["what?", "what?", None]
    assert "no image of a known kind" in found[2]["error"]


def test_files_of_every_kind_are_asked_in_order(folder, capsys):
    rows = [
        {"question": "one?", "image": "a.png"},
        {"question": "two?", "images": ["a.png", "b.jpg"]},
        {"question": "three?", "options": ["red", "blue"]},
        {"colour": "red"},
        {"question": "five?", "image": "gone.png"},
    ]
    (folder / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    found = asked(capsys, str(folder / "q.jsonl"), "--concurrency", "2", status=1)
    assert [one["answer"] for one in found] == ["one?", "two?", "three?\nA. red\nB. blue", None, None, None]
    assert [len(one["images"]) for one in found] == [1, 2, 0, 0, 1, 0]
    for one, part in zip(found[3:], ("no question", "gone.png", "not JSON"), strict=True):
        assert part in one["error"]
    (folder / "q.csv").write_text("question,image\nsix?,a.png\nseven?,\n")
    assert [one["answer"] for one in asked(capsys, str(folder / "q.csv"))] == ["six?", "seven?"]


def test_standard_input_is_answered_line_by_line_while_it_stays_open(folder):
    with PolicyServer(echo).running() as server:
        command = [sys.executable, "-m", "recipe.sophiavl.infer", server.url, "-", "--json"]
        with subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        ) as process:
            for line in (json.dumps({"question": "one?", "image": str(folder / "a.png")}), "two?"):
                process.stdin.write(line + "\n")
                process.stdin.flush()
                assert json.loads(process.stdout.readline())["answer"] in line
            process.stdin.close()
            assert process.wait(60) == 0


def test_a_server_that_goes_away_ends_it_though_standard_input_stays_open(tmp_path):
    server = PolicyServer(lambda _: None)
    with server.running():
        command = [sys.executable, "-m", "recipe.sophiavl.infer", server.url, "-", "--wait-s", "0.5"]
        with subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            server.reply = lambda _: threading.Thread(target=server.stop).start()
            process.stdin.write("one?\n")
            process.stdin.flush()
            assert process.wait(60) == 1
            assert "has not answered for 0.5 s" in process.stderr.read()


def test_the_thinking_gets_its_score(folder, capsys):
    def reply(body):
        return "0.8" if body["model"] == "trm" else SAID

    with PolicyServer(reply).running() as server:
        trm = ["--trm-url", server.url, "--trm-model", "trm", "--trm-structured-output", "off"]
        assert main([server.url, "--question", "what?", *trm]) == 0
        assert "Thinking reward: 0.80" in capsys.readouterr().out
        assert "I look" in json.dumps(server.asked[-1])
        server.reply = lambda body: "no score" if body["model"] == "trm" else SAID
        assert main([server.url, "--question", "what?", *trm]) == 0
        assert "Thinking reward: missing (unparsable)" in capsys.readouterr().out
        server.reply = lambda _: "without the format"
        before = len(server.asked)
        assert main([server.url, "--question", "what?", *trm]) == 0
        assert "Without the format" in capsys.readouterr().out
        assert [body["model"] for body in server.asked[before:]] == ["policy"]


def test_text_of_a_model_cannot_write_to_the_terminal(capsys):
    with PolicyServer(lambda _: "<think>\x1b[2J\u202e\nnext</think><answer>\x07</answer>").running() as server:
        assert main([server.url, "--question", "what?"]) == 0
    told = capsys.readouterr().out
    assert not {"\x1b", "\u202e", "\x07"} & set(told)
    assert "\nnext" in told, "a line end is one"


def test_an_answer_that_was_cut_says_so(capsys):
    (found,) = asked(capsys, "--question", "what?", reply=lambda _: completion("<think>on", finish_reason="length"))
    assert (found["cut"], found["answer"], found["response"]) == (True, None, "<think>on")
    assert "was cut at --max-tokens" in text_of(found)


@pytest.mark.parametrize(
    ("source", "images", "question", "says"),
    [
        (None, [], None, "nothing to ask"),
        ("/no/such", [], None, "SOURCE /no/such: no such file or folder"),
        ("{folder}", [], None, "a folder of images needs --question"),
        ("{folder}/a.png", [], "what?", "an image goes to --image"),
        ("{folder}/empty", [], "what?", "no images in it"),
        ("{folder}", ["a.png"], "what?", "--image=a.png"),
    ],
)
def test_what_cannot_be_asked_is_told_in_a_sentence(source, images, question, says, folder):
    (folder / "empty").mkdir()
    given = None if source is None else source.format(folder=folder)
    with pytest.raises(SettingsError, match=says):
        questions_of(given, images, question, threading.Event())


def test_a_reader_that_stops_ends_it(folder):
    """As ``| head -1`` does."""
    file = folder / "q.jsonl"
    file.write_text('{"question": "what?"}\n' * 500)
    with PolicyServer(lambda _: SAID).running() as server:
        out, into = os.pipe()
        os.close(out)
        done = subprocess.run(
            [sys.executable, "-m", "recipe.sophiavl.infer", server.url, str(file)],
            cwd=REPOSITORY,
            stdout=into,
            stderr=subprocess.PIPE,
            timeout=60,
        )
        os.close(into)
    assert done.returncode == 1
    assert len(server.asked) < 500
