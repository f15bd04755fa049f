"""A server of our own lives as long as it is needed; a small program stands in for vLLM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from recipe.sophiavl.evaluate import serving
from recipe.sophiavl.evaluate.serving import served
from recipe.sophiavl.server_process import ServerError

REPOSITORY = Path(__file__).resolve().parents[3]
STAND_IN = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
USER = """
import sys, time
from pathlib import Path
from recipe.sophiavl.evaluate import serving
serving._command = lambda model, port, flags: ([sys.executable, "-c", sys.argv[2], str(port)], {})
with serving.served("model", Path(sys.argv[1])) as server:
    print(server.process.pid, flush=True)
    time.sleep(60)
"""


def gone(pid: int) -> bool:
    for _ in range(100):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:  # nobody waits for an orphan in some containers
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def stand_in(monkeypatch):
    def command(model, port, flags):
        return [sys.executable, "-c", STAND_IN, str(port)], dict(os.environ)

    monkeypatch.setattr(serving, "_command", command)


def test_it_serves_until_the_block_is_left_however_that_is(stand_in, tmp_path):
    with served("model", tmp_path / "log") as server:
        assert server.died() is None
        assert server.url.endswith("/v1")
    assert gone(server.process.pid)
    with pytest.raises(KeyboardInterrupt), served("model", tmp_path / "log") as server:
        raise KeyboardInterrupt
    assert gone(server.process.pid)


def test_one_that_dies_says_so(stand_in, tmp_path):
    with served("model", tmp_path / "log") as server:
        server.process.kill()
        server.process.wait()
        assert f"exit status -9); its log is {tmp_path / 'log'}" in server.died()


def test_one_that_does_not_start_shows_the_end_of_its_log(monkeypatch, tmp_path):
    code = "print('no such kernel \\x1b[31m'); raise SystemExit(3)"
    monkeypatch.setattr(serving, "_command", lambda *_: ([sys.executable, "-c", f"print(); {code}"], dict(os.environ)))
    with (
        pytest.raises(ServerError, match=r"ended with exit status 3; .*log:\n.*no such kernel \\x1b"),
        served("model", tmp_path / "log"),
    ):
        pytest.fail("it must not come here")
    monkeypatch.setattr(serving, "_command", lambda *_: (["sleep", "60"], dict(os.environ)))
    with pytest.raises(ServerError, match="did not answer in time"), served("m", tmp_path / "log", start_limit_s=0.3):
        pytest.fail("it must not come here")


@pytest.mark.parametrize(("ended_by", "status"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGKILL, -9)])
def test_a_user_that_is_ended_leaves_no_server_behind(tmp_path, ended_by, status):
    with subprocess.Popen(
        [sys.executable, "-c", USER, str(tmp_path / "log"), STAND_IN],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    ) as user:
        pid = int(user.stdout.readline())
        user.send_signal(ended_by)
        assert user.wait(30) == status
    assert gone(pid)


def test_on_a_cpu_the_platform_says_number_format_and_threads(monkeypatch):
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    monkeypatch.setenv("SOPHIAVL_CPU_DTYPE", "bfloat16")
    command, environment = serving._command("models/policy/", 5, ["--max-model-len", "512"])
    assert " ".join(command[2:]).startswith("vllm.entrypoints.cli.main serve models/policy --host 127.0.0.1 --port 5")
    assert command[command.index("--served-model-name") + 1] == "policy"
    assert command[command.index("--dtype") + 1] == "bfloat16"
    assert command[-2:] == ["--max-model-len", "512"], "the user's flags last, since the last one counts"
    assert environment["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    monkeypatch.setenv("VERL_PLATFORM", "nvidia")
    command, environment = serving._command("models/policy", 5, [])
    assert "--dtype" not in command
    assert environment == dict(os.environ)
