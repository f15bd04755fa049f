"""What a watched run looks like, in terminals of any size and whatever its model writes."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from recipe.sophiavl.watch.frame import WATCHED_NAMES, frame
from recipe.sophiavl.watch.reading import WatchedRun
from tests.support.watched_runs import append, logged, plan, response, trained

HOSTILE = "\x1b[31mred\x1b[2J\x07 [red]markup[/red] [link=x] :smile: ‮gnorw⁦ \x9b1m \r\n\ttab \x00"
STYLE = re.compile(r"\x1b\[[0-9;]*m")


def shown(folder: Path, width: int = 100, height: int | None = None) -> str:
    """The frame as a terminal gets it."""
    run = WatchedRun(folder, WATCHED_NAMES)
    run.update()
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, height=height or 50, highlight=False)
    console.print(frame(run, console, height))
    return out.getvalue()


def plain(text: str) -> str:
    return STYLE.sub("", text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    plan(tmp_path, 40)
    steps = [
        trained(step, step / 25, thinking_reward__mean=0.5, trust__gamma_mean=0.9, actor__kl_loss=0.001)
        for step in range(1, 21)
    ]
    validation = logged(0, validation__greedy__outcome_reward__mean=0.25)
    append(tmp_path / "metrics-001.jsonl", validation, *steps)
    append(tmp_path / "rollouts/20.jsonl", *(response("a", f"<think>r{i}</think>") for i in range(8)))
    return tmp_path


def test_progress_and_metrics(folder: Path) -> None:
    lines = [" ".join(line.split()) for line in plain(shown(folder)).splitlines()]
    assert any(line.startswith("step 20 of 40, under a minute left, logged ") for line in lines)
    assert any(line.endswith("greedy validation 0.25") for line in lines)
    # the last ten outcomes are 11/25 … 20/25, the ten before 1/25 … 10/25
    assert any(line.startswith("outcome 0.800 0.620 +0.400 ▁") for line in lines)
    assert any(line.startswith("KL 0.0010 0.0010 +0.0000 ▄") for line in lines)
    assert not any(line.startswith("entropy") for line in lines), "not measured"
    assert any("question How many?" in line for line in lines)
    assert any("outcome 1.00 thinking 0.50 <think>r7</think>" in line for line in lines)


def test_a_run_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    assert "no such folder yet" in shown(tmp_path / "none")
    assert "no metrics*.jsonl in it yet" in shown(tmp_path)


def test_text_of_a_model_is_shown_and_never_obeyed(folder: Path) -> None:
    append(
        folder / "rollouts/21.jsonl",
        response("b", HOSTILE, input=f"user\n{HOSTILE}\nassistant\n", gts=HOSTILE, thinking_error=HOSTILE),
    )
    text = plain(shown(folder, width=200))
    parts = ("␛[31mred␛[2J␇", "[red]markup[/red]", "[link=x]", ":smile:", "⟨U+202E⟩gnorw⟨U+2066⟩", "⟨U+009B⟩1m")
    assert all(text.count(part) >= 3 for part in parts)
    assert all(char.isprintable() or char == "\n" or "\u2800" <= char <= "\u28ff" for char in text)


@pytest.mark.parametrize(
    "fields",
    [
        {"outcome_reward": "x", "thinking_reward": None, "gamma": [1], "mu_correct": True},
        {"input": None, "gts": {"a": HOSTILE}, "output": 5, "thinking_error": 3},
        {"input": "x" * 10**6, "output": "y " * 10**6, "gts": "漢字" * 10**4},
    ],
)
def test_fields_of_any_kind_are_shown(folder: Path, fields: dict) -> None:
    append(folder / "rollouts/21.jsonl", response("b", "z", **fields))
    text = plain(shown(folder, height=50))
    assert "newest group (step 21)" in text
    assert len(text.splitlines()) <= 50
    assert "\x1b" not in text


def test_what_is_no_number_is_said(folder: Path) -> None:
    append(folder / "metrics-001.jsonl", trained(21, 0.5, actor__kl_loss=None))
    text = plain(shown(folder))
    assert re.search(r"KL +nan +0.0010", text)
    assert "! not a number in the newest step: actor/kl_loss" in text


@pytest.mark.parametrize("width", [20, 60, 80, 130, 250])
@pytest.mark.parametrize("height", [10, 24, 40, 80])
def test_it_fits_a_terminal_of_any_size(folder: Path, width: int, height: int) -> None:
    append(folder / "rollouts/21.jsonl", *(response("b", f"{i}" + "漢字 long " * 50) for i in range(20)))
    lines = plain(shown(folder, width, height)).splitlines()
    assert max(cell_len(line) for line in lines) <= width
    assert "step 20 of 40" in " ".join(lines)
    assert any(line.startswith("outcome") for line in lines[:height])
    if width >= 60 and height >= 24:
        assert len(lines) <= height
        assert any("newest group" in line for line in lines)
    assert any("more" in line for line in lines) or height < 24 or width < 60 or height == 80
