"""A real vLLM server as a child process, on CPU."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from recipe.sophiavl.verl_support import cpu_resources
from recipe.sophiavl.verl_support.environment import cpu_environment

START_LIMIT_S = 420
STOP_LIMIT_S = 15


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class VllmServer:
    """`vllm serve` with one model, from `start` to `stop`; it can be killed and started again on the same port.

    Args:
        model: folder of the model.
        log: file that its output is appended to.
        flags: further command line flags.
        name: of the model, for its clients.
        environment: variables beside those of this process. It takes the number format and the threads of an engine
            that works beside others.
    """

    def __init__(
        self,
        model: Path,
        log: Path,
        flags: Sequence[str] = (),
        name: str = "tiny",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.root = f"http://127.0.0.1:{self.port}"
        self._log = log
        inherited = {**os.environ, **(environment or {})}
        variables, _ = cpu_environment(inherited)
        self._environment = {
            **inherited,
            **variables,
            cpu_resources.THREADS: variables[cpu_resources.SERVER_THREADS],
            "HF_HUB_OFFLINE": "1",
            "VLLM_LOGGING_LEVEL": "WARNING",
        }
        self._command = [
            *(sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(model)),
            *("--served-model-name", name, "--host", "127.0.0.1", "--port", str(self.port)),
            *("--enforce-eager", "--max-num-seqs", "16"),
            *("--dtype", variables[cpu_resources.DTYPE]),
            *flags,
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> VllmServer:
        """Start the process; with `wait`, return when it serves."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=subprocess.STDOUT, env=self._environment, start_new_session=True
            )
        if wait:
            self.wait_until_ready()
        return self

    def wait_until_ready(self) -> None:
        """Wait until it serves.

        Raises:
            RuntimeError: it ended, or did not serve in time; the message holds the end of its log.
        """
        limit = time.monotonic() + START_LIMIT_S
        while time.monotonic() < limit:
            if self._process is None or self._process.poll() is not None:
                break
            if self._is_healthy():
                return
            time.sleep(0.25)
        tail = self._log.read_text(errors="replace")[-3000:]
        self.stop()
        raise RuntimeError(f"vLLM does not serve; the end of {self._log}:\n{tail}")

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.root}/health", timeout=2) as answer:
                return answer.status == 200
        except OSError:  # refused, reset, or an HTTP error
            return False

    def kill(self) -> None:
        """End it at once, with all its processes, as a crash would."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order, and by force where that does not work."""
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        group = self._process.pid  # it leads a session of its own
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_LIMIT_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        self._process.wait(STOP_LIMIT_S)
        self._process = None

    def __enter__(self) -> VllmServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
