"""A server as a process of its own, which runs as long as somebody needs it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from recipe.sophiavl.trm.preflight import printable

_STOP_S = 15.0
_TAIL_CHARS = 2000
_ENDS_WITH_US = ("setpriv", "--pdeathsig", "TERM")


class ServerError(ConnectionError):
    """A server can't be used; the message says why and what to do."""


def free_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running_server(
    name: str, command: Sequence[str], environment: Mapping[str, str], url: str, log: Path, start_limit_s: float
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a server, wait until it answers, and end it with all its processes when the block is left.

    It also ends when the thread that called this does, however that is (Linux; ``setpriv`` of util-linux).

    Args:
        name: for messages.
        url: answers with HTTP 200 once the server is ready.
        log: takes what it prints.
        start_limit_s: seconds that it may take to start.

    Raises:
        ServerError: it does not start; the message has the end of its log.
    """
    with log.open("ab") as output, ended_by_sigterm():
        bound = [*_ENDS_WITH_US, *command] if shutil.which(_ENDS_WITH_US[0]) else command
        process = subprocess.Popen(bound, stdout=output, stderr=output, env=environment, start_new_session=True)
        try:
            _wait(name, url, process, log, start_limit_s)
            yield process
        finally:
            _stop(process)


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends this process as Ctrl-C does, so that no server stays behind."""

    def stop(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    # Not where it is ignored: nohup wants the process to outlive its terminal.
    heard = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(name: str, url: str, process: subprocess.Popen[bytes], log: Path, limit_s: float) -> None:
    limit = time.monotonic() + limit_s
    while process.poll() is None and time.monotonic() < limit:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
            if answer.status == 200:
                return
        time.sleep(0.25)
    why = "did not answer in time" if process.poll() is None else f"ended with exit status {process.returncode}"
    tail = "\n".join(map(printable, log.read_text(errors="replace")[-_TAIL_CHARS:].splitlines()[1:]))
    raise ServerError(f"{name} {why}; the end of {log}:\n{tail}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server with all its processes, by force where that does not work."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(_STOP_S)
