"""The command in a real terminal and without one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from recipe.sophiavl.watch.__main__ import main
from tests.support.watched_runs import append, plan, response, trained

REPOSITORY = Path(__file__).resolve().parents[3]
LIMIT_S = 180  # of what would hang; a busy machine takes its time


class Watching:
    """The command in a process of its own, at a pseudo-terminal."""

    def __init__(self, folder: Path) -> None:
        self.screen = b""
        self._descriptor, terminal = pty.openpty()
        self.resize(24, 80)
        environment = {**os.environ, "TERM": "xterm-256color"}
        for name in ("COLUMNS", "LINES"):
            environment.pop(name, None)
        command = [sys.executable, "-m", "recipe.sophiavl.watch", str(folder), "--poll", "0.05"]
        self.process = subprocess.Popen(
            command,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            cwd=REPOSITORY,
            env=environment,
            # a shell's background job ignores Ctrl-C, and so do its children
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        os.close(terminal)
        os.set_blocking(self._descriptor, False)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait_for(self, text: str) -> None:
        """Wait until the terminal has been given this since the last call."""
        limit = time.monotonic() + LIMIT_S
        seen = b""
        while text not in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode(errors="ignore")):
            assert time.monotonic() < limit, seen[-3000:]
            assert self.process.poll() is None, self.screen
            seen += self.read()
            time.sleep(0.01)

    def read(self) -> bytes:
        found = b""
        with contextlib.suppress(BlockingIOError, OSError):  # OSError: the other end is closed
            while chunk := os.read(self._descriptor, 65536):
                found += chunk
        self.screen += found
        return found

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        limit = time.monotonic() + LIMIT_S
        while self.process.poll() is None:
            self.read()
            assert time.monotonic() < limit
            time.sleep(0.01)
        self.read()
        return self.process.returncode

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._descriptor)


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watching]:
    started = Watching(tmp_path / "run")
    yield started
    started.close()


def test_in_a_terminal_through_the_life_of_a_run(watching: Watching, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    watching.wait_for("no such folder yet")
    plan(folder, 9)
    append(folder / "metrics-001.jsonl", trained(1), trained(2))
    watching.wait_for("step 2 of 9")
    append(folder / "metrics-002.jsonl", trained(3)[:12])
    append(folder / "rollouts/2.jsonl", response("a", "\x1b]0;owned\x07<think>hm"))
    watching.wait_for("␛]0;owned␇<think>hm")
    append(folder / "metrics-002.jsonl", trained(3)[12:])
    watching.wait_for("step 3 of 9")
    watching.resize(40, 130)
    watching.wait_for("─" * 120)
    shutil.rmtree(folder)
    watching.wait_for("no such folder yet")
    plan(folder, 5)
    append(folder / "metrics-001.jsonl", trained(1))
    watching.wait_for("step 1 of 5")
    assert watching.end(signal.SIGINT) == 0
    left = watching.screen.rpartition(b"\x1b[?1049l")[2].decode()
    assert "step 1 of 5" in left, "the last frame stays"
    assert watching.screen.count(b"\x1b[?25l") == watching.screen.count(b"\x1b[?25h") > 0, "the cursor is there again"
    assert b"Traceback" not in watching.screen
    assert b"\x1b]0;" not in watching.screen


def test_a_terminal_is_left_clean_by_sigterm_too(watching: Watching) -> None:
    watching.wait_for("no such folder yet")
    assert watching.end(signal.SIGTERM) == 143
    assert b"\x1b[?1049l" in watching.screen
    assert watching.screen.count(b"\x1b[?25l") == watching.screen.count(b"\x1b[?25h") > 0


def test_without_a_terminal_each_step_is_a_line(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "recipe.sophiavl.watch", str(folder), "--poll", "0.01"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY, text=True) as process:
        assert process.stdout.readline() == f"waiting for the first step of {folder}\n"
        plan(folder, 3)
        append(folder / "metrics-001.jsonl", trained(1, 0.25))
        assert process.stdout.readline() == "step 1 of 3: outcome 0.25, 2.0 s, under a minute left\n"
        append(folder / "metrics-001.jsonl", "{\n", trained(2))
        said = {process.stdout.readline() for _ in range(2)}
        assert said == {
            "step 2 of 3: outcome 0.50, 2.0 s, under a minute left\n",
            "metrics-001.jsonl, line 2: no metrics of a step\n",
        }
        append(folder / "metrics-002.jsonl", trained(3))
        append(folder / "finished", "3\n")
        assert process.stdout.read() == "step 3 of 3: outcome 0.50, 2.0 s\n"
        assert process.wait(LIMIT_S) == 0


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    append(tmp_path / "metrics-001.jsonl", trained(1))
    shell = f"{sys.executable} -m recipe.sophiavl.watch {tmp_path} --poll 0.01 | head -n 1"
    process = subprocess.Popen(["bash", "-c", shell], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=REPOSITORY)
    assert process.stdout.readline() == b"step 1: outcome 0.50\n"
    append(tmp_path / "metrics-001.jsonl", *(trained(step) for step in range(2, 99)))
    assert process.communicate(timeout=LIMIT_S) == (b"", b"")


def test_one_frame(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert main([str(tmp_path / "none"), "--once"]) == 1
    assert "no such folder yet" in capsys.readouterr().out
    append(tmp_path / "metrics-001.jsonl", trained(1))
    assert main([str(tmp_path), "--once"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^outcome +0\.500", out, re.MULTILINE)
    assert "\x1b" not in out


def test_a_terminal_without_unicode_gets_something(tmp_path: Path) -> None:
    append(tmp_path / "metrics-001.jsonl", trained(1), trained(2))
    append(tmp_path / "rollouts/2.jsonl", response("a", "漢字"))
    command = [sys.executable, "-m", "recipe.sophiavl.watch", str(tmp_path), "--once"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    out = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, check=True).stdout
    assert b"outcome" in out


def test_a_pause_must_be_a_pause(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for poll in ("0", "-1", "nan"):
        with pytest.raises(SystemExit):
            main([str(tmp_path), "--poll", poll])
        assert "--poll" in capsys.readouterr().err
