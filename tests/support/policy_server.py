"""A stand-in for a served policy in a thread of its own, for commands that run an event loop themselves."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
Reply = str | Body | tuple[int, Body] | None
"""The text of a completion, a whole body, a status with a body, or None: the connection is closed."""


class PolicyServer:
    """An OpenAI-compatible server that answers as `reply` says.

    Attributes:
        url: its base URL.
        asked: bodies of the chat requests, in order.
        models: what it says it serves; entries of ``/v1/models``.
    """

    def __init__(self, reply: Callable[[Body], Reply], port: int = 0) -> None:
        self.reply = reply
        self.asked: list[Body] = []
        self.models = [{"id": "policy", "root": "weights-1"}]
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                known = self.path == "/v1/models"
                self._send(200 if known else 404, {"data": server.models} if known else {"detail": "Not Found"})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.asked.append(body)
                reply = server.reply(body)
                if reply is None:
                    self.connection.close()
                    return
                status, content = reply if isinstance(reply, tuple) else (200, reply)
                self._send(status, completion(content) if isinstance(content, str) else content)

            def _send(self, status: int, content: Body) -> None:
                raw = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    @contextmanager
    def running(self) -> Iterator[PolicyServer]:
        """Serve until the block is left."""
        thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.stop()
            thread.join()

    def stop(self) -> None:
        """Stop serving; not from a handler, which it waits for."""
        self._http.shutdown()
        self._http.server_close()


def completion(text: str | None, *, finish_reason: str = "stop", **message: Any) -> Body:
    """A chat completion."""
    message = {"role": "assistant", "content": text, **message}
    return {
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 7, "completion_tokens": len((text or "").split())},
    }


def question_of(body: Body) -> str:
    """The text of the last message of a request."""
    content = body["messages"][-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")
