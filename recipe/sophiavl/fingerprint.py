"""Files and models by their content, cheaply: what tells whether a path still names what it named."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pyarrow.parquet as pq

# A file of up to 32 MiB is read whole, of a larger one as much in as many places, and its end, where parquet has its
# footer: schema, rows, and the size and bounds of every column.
_BLOCK = 2**20
_BLOCKS = 32
_SHOWN = 12
_MODEL_FILES = ("*.json", "*.jinja", "*.safetensors", "*.bin", "*.pt", "*.model")


def data_files(paths: Sequence[str]) -> str:
    """Parquet files in one line: ``train.parquet, 48 rows, sha256 3fa2c1d05e6f``. Their folder does not matter.

    Raises:
        OSError, pyarrow.ArrowException: a file is missing, or not parquet.
    """
    files = [Path(path).expanduser() for path in paths]
    rows = sum(pq.read_metadata(file).num_rows for file in files)
    name = files[0].name if len(files) == 1 else f"{len(files)} files"
    return f"{name}, {rows:,} rows, {_digest(files)}"


def text_file(path: str | Path) -> str:
    """A file in one line, by its name and content. Raises OSError if it is missing."""
    file = Path(path).expanduser()
    return f"{file.name}, {_digest([file])}"


def model(path: str) -> str:
    """A model folder in one line, by its name and content; what is no folder is the name of a model on a hub."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return path
    files = sorted({file for pattern in _MODEL_FILES for file in folder.glob(pattern)})
    return f"{folder.resolve().name}, {_digest(files)}"


def _digest(files: Sequence[Path]) -> str:
    digest = sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as stream:
            for place in [*range(0, size, max(_BLOCK, size // _BLOCKS)), max(0, size - _BLOCK)]:
                stream.seek(place)
                digest.update(stream.read(_BLOCK))
    return f"sha256 {digest.hexdigest()[:_SHOWN]}"
