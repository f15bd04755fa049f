"""A Ray cluster of several nodes on one machine, whose workers know nothing of the process that uses it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from aiohttp import web
from ray._private.services import node_ip_address_from_perspective

from testbed.stand_in import Handler, completion, make_app
from testbed.vllm_server import START_LIMIT_S, free_port

NODES = ("127.0.0.2", "127.0.0.3")

# What a login on a node has; nothing of the driver's environment.
_ENVIRONMENT = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": "/tmp", "RAY_USAGE_STATS_ENABLED": "0"}
_OBJECT_STORE_BYTES = 200_000_000


class Cluster:
    """Two nodes, each with a loopback address of its own, one logical GPU and a working directory without anything.

    Args:
        folder: for logs; Ray's session goes to a short path beside it, since sockets have short names.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._session = Path(f"/tmp/ray-{os.getpid()}")
        self._port = free_port()
        self._processes: list[subprocess.Popen[bytes]] = []
        self.address = f"{NODES[0]}:{self._port}"

    def __enter__(self) -> Cluster:
        self._start(NODES[0], "--head", f"--port={self._port}", f"--temp-dir={self._session}")
        self._start(NODES[1], f"--address={self.address}")
        limit = time.monotonic() + START_LIMIT_S
        while not all("Ray runtime started" in log.read_text() for log in self._folder.rglob("ray.log")):
            if time.monotonic() > limit:
                self.__exit__()
                raise RuntimeError(f"the nodes do not start; their logs lie in {self._folder}")
            time.sleep(0.2)
        return self

    def _start(self, ip: str, *arguments: str) -> None:
        home = self._folder / ip
        home.mkdir(parents=True)
        command = [str(Path(sys.executable).parent / "ray"), "start", "--block", f"--node-ip-address={ip}"]
        command += ["--num-gpus=1", "--num-cpus=16", f"--object-store-memory={_OBJECT_STORE_BYTES}", *arguments]
        with (home / "ray.log").open("wb") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=_ENVIRONMENT, cwd=home, start_new_session=True
            )
        self._processes.append(process)

    def logs(self) -> Iterator[Path]:
        """Every file that Ray and its workers wrote: logs, and what else lies in the session's folder."""
        yield from (path for path in self._session.rglob("*") if path.is_file() and not path.is_symlink())
        yield from self._folder.rglob("ray.log")

    def __exit__(self, *_: object) -> None:
        started = [psutil.Process(process.pid) for process in self._processes if process.poll() is None]
        for process in [child for parent in started for child in parent.children(recursive=True)] + started:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for process in self._processes:
            process.wait(20)
        shutil.rmtree(self._session, ignore_errors=True)


class KeyedTrm:
    """A stand-in TRM that wants an API key, and sees which node each request comes from. Serves while in its context.

    It listens on the machine's own address: a loopback one is refused for several nodes.

    Attributes:
        url: base URL to ask.
        port: its port.
        asked_from: addresses of the nodes (`NODES`) whose processes asked for a score.
        processes: (title, node) of every Ray process on the machine when a reward worker asked first.
        refused: requests without the key.
    """

    def __init__(self, key: str) -> None:
        self.asked_from: set[str] = set()
        self.processes: set[tuple[str, str]] = set()
        self.refused = 0
        self._key = key
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> KeyedTrm:
        self._thread.start()
        self.url = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)

    async def _start(self) -> str:
        app = make_app(self._score, model="trm")
        app.middlewares.append(self._check_key)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "0.0.0.0", 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]
        return f"http://{node_ip_address_from_perspective()}:{self.port}/v1"

    @web.middleware
    async def _check_key(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self._key}":
            self.refused += 1
            return web.Response(status=401)
        return await handler(request)

    async def _score(self, request: web.Request) -> web.Response:
        body = await request.read()
        title, node = await asyncio.to_thread(_process_of, request.transport.get_extra_info("peername")[1])
        if "RewardLoopWorker" in title:  # and not the preflight
            self.asked_from.add(node)
            self.processes = self.processes or set(filter(None, map(_node_of, psutil.process_iter())))
        return web.json_response(completion(f"{hashlib.sha256(body).digest()[0] % 11 / 10:.1f}"))


def _process_of(port: int) -> tuple[str, str]:
    """Title and node of the process whose socket has this local port; two empty texts for one of no node."""
    for connection in psutil.net_connections("tcp"):
        if connection.laddr and connection.laddr.port == port and connection.pid:
            return _node_of(psutil.Process(connection.pid)) or ("", "")
    return "", ""


def _node_of(process: psutil.Process) -> tuple[str, str] | None:
    """Title of a process of Ray and the node that it belongs to, told by its working directory; None for others."""
    with contextlib.suppress(psutil.Error):
        home = Path(process.cwd()).name
        return (" ".join(process.cmdline()), home) if home in NODES else None
    return None
