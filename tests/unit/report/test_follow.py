"""Following a run without a terminal: a line a step, and a sign of life."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from recipe.sophiavl.report.follow import follow


def log(folder: Path, step: int, name: str = "metrics-1.jsonl", **data: float) -> None:
    with (folder / name).open("a") as file:
        file.write(json.dumps({"step": step, "data": {name.replace("__", "/"): v for name, v in data.items()}}) + "\n")


@pytest.fixture
def process() -> subprocess.Popen[bytes]:
    started = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield started
    started.kill()
    started.wait()


def followed(folder: Path, process: subprocess.Popen[bytes], *, terminal: bool = False, silence_s: float = 30) -> tuple:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120)
    arguments = (folder, 3, process.pid, console, 0.01, silence_s)
    thread = threading.Thread(target=follow, args=arguments)
    thread.start()
    return thread, out


def wait_for(text: str, capsys: pytest.CaptureFixture[str], seen: list[str]) -> None:
    limit = time.monotonic() + 60
    while text not in "".join(seen):
        assert time.monotonic() < limit, "".join(seen)
        seen.append(capsys.readouterr().out)
        time.sleep(0.01)


def test_without_a_terminal_each_step_is_a_line(
    tmp_path: Path, process: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []
    log(tmp_path, 0, validation__greedy__outcome_reward__mean=0.25, validation__greedy__outcome_reward__stderr=0.02)
    thread, _ = followed(tmp_path, process)
    wait_for("step 0 of 3: greedy validation 0.25 ± 0.02\n", capsys, seen)
    log(tmp_path, 1, outcome_reward__mean=0.5, trust__gamma_mean=0.9, timing_s__step=61.0)
    wait_for("step 1 of 3: outcome 0.50, gamma 0.90, 61.0 s, 2 min left\n", capsys, seen)
    log(tmp_path, 2, outcome_reward__mean=0.6, timing_s__step=61.0)
    wait_for("step 2 of 3: outcome 0.60, 61.0 s, 1 min left\n", capsys, seen)
    log(tmp_path, 3, outcome_reward__mean=0.7, timing_s__step=61.0)
    process.communicate(b"\n")  # it ends right after its last step
    thread.join(60)
    assert not thread.is_alive()
    wait_for("step 3 of 3: outcome 0.70, 61.0 s\n", capsys, seen)
    assert "".join(seen).count("step 1 of 3") == 1


def test_without_a_terminal_a_silent_run_shows_that_it_goes_on(
    tmp_path: Path, process: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []
    thread, _ = followed(tmp_path, process, silence_s=0.1)
    wait_for("starting Ray, FSDP and vLLM (about a minute); ", capsys, seen)
    log(tmp_path, 1, outcome_reward__mean=0.5)
    wait_for("step 1 of 3 was the last; ", capsys, seen)
    process.communicate(b"\n")
    thread.join(60)


def test_a_resumed_run_shows_where_it_stands_and_not_its_past(
    tmp_path: Path, process: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (1, 2):
        log(tmp_path, step, outcome_reward__mean=0.5)
    process.communicate(b"\n")
    thread, _ = followed(tmp_path, process)
    thread.join(60)
    assert capsys.readouterr().out == "step 2 of 3: outcome 0.50\n"


def test_a_terminal_gets_a_bar(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    log(tmp_path, 2, outcome_reward__mean=0.5, timing_s__step=61.0)
    process.communicate(b"\n")
    thread, out = followed(tmp_path, process, terminal=True)
    thread.join(60)
    assert "outcome 0.50, 1 min left" in out.getvalue()
    assert "2/3" in out.getvalue()
