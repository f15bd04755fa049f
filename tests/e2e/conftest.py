"""Shared by the end-to-end tests: the quickstart's real models and data, and a real vLLM server for the TRM."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_preprocess.easy_vqa import load_images, make_rows
from data_preprocess.schema import RL_SCHEMA, rl_row
from testbed.training import REPOSITORY
from testbed.vllm_server import VllmServer
from tests.support.lying_trm import LyingProxy

MODELS = REPOSITORY / "examples/quickstart/models"


@pytest.fixture(scope="session")
def trm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """The quickstart's thinking reward model on a real vLLM server."""
    log = tmp_path_factory.mktemp("trm") / "server.log"
    with VllmServer(MODELS / "trm", log, ("--max-model-len", "4096", "--max-num-seqs", "64"), name="trm") as server:
        yield server


@pytest.fixture(scope="session")
def lying_trm(trm: VllmServer) -> Iterator[LyingProxy]:
    """The same model, with its scores turned upside down."""
    with LyingProxy(trm.root) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def data_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Real easy-VQA rows, with a text-only question after every third one, as the published data mixes them."""
    folder = tmp_path_factory.mktemp("data")
    images = load_images("train")[-64:]
    files = {}
    for split, size in (("train", 48), ("val", 12)):
        rows = list(make_rows(images, size, split, random.Random(split)))
        texts = [
            rl_row(
                data_source="text_only",
                question=f"how many shapes are {a} and {b} shapes?",
                problem_type="numerical",
                answer=str(a + b),
                split=split,
                index=1000 + a,
            )
            for a, b in ((i, 1) for i in range(size // 3))
        ]
        mixed = [row for i, image_row in enumerate(rows) for row in (image_row, *texts[i // 3 : i // 3 + (i % 3 == 2)])]
        files[split] = folder / f"{split}.parquet"
        pq.write_table(pa.Table.from_pylist(mixed, schema=RL_SCHEMA), files[split])
    return files
