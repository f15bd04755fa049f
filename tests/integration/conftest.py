"""A real vLLM server on CPU, with a random tiny Qwen2.5-VL, for all integration tests of a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.tiny_vl import build_tiny_vl
from testbed.vllm_server import VllmServer

CONTEXT = 8192
SERVER_FLAGS = (
    *("--max-model-len", str(CONTEXT), "--block-size", "32", "--max-num-batched-tokens", str(CONTEXT)),
    *("--enable-prefix-caching", "--enable-prompt-tokens-details", "--limit-mm-per-prompt", '{"image": 4}'),
)


@pytest.fixture(scope="session")
def tiny_vl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny model."""
    return build_tiny_vl(tmp_path_factory.mktemp("tiny_vl"))


@pytest.fixture(scope="session")
def vllm_server(tiny_vl: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """The server. A test that kills it must have it running again when it ends."""
    server = VllmServer(tiny_vl, tmp_path_factory.mktemp("vllm") / "vllm.log", SERVER_FLAGS)
    try:
        yield server.start()
    finally:
        server.stop()
