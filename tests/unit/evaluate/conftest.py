"""Rows, files and servers that the tests of the evaluation share."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_preprocess.schema import RL_SCHEMA, rl_row


def picture(colour: str, kind: str = "PNG") -> bytes:
    """An encoded image of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(buffer, kind)
    return buffer.getvalue()


def row(question: str, answer: str = "4", images: Sequence[bytes] = (), **changes: Any) -> dict[str, Any]:
    """One RL row."""
    given = {"data_source": "here", "problem_type": "numerical", "split": "val", "index": 0, **changes}
    return rl_row(question=question, answer=answer, images=images, **given)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows as a parquet file and returns its path."""

    def written(*rows: dict[str, Any], name: str = "val.parquet") -> Path:
        file = tmp_path / name
        pq.write_table(pa.Table.from_pylist(list(rows), schema=RL_SCHEMA), file)
        return file

    return written
