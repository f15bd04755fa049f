"""Data files by pattern: the preprocessors write shards, and verl's datasets take a list of files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import DictConfig, ListConfig

from recipe.sophiavl.validation import SettingsError

_KEYS = ("train_files", "val_files")


def expand_patterns(data: DictConfig) -> None:
    """Put the files themselves, sorted, in the place of each pattern (``*``, ``?``) in ``data.{train,val}_files``.

    Raises:
        SettingsError: a pattern that no file matches.
    """
    for key in _KEYS:
        given = data[key]
        if given is None:
            continue
        files = [file for name in listed(given) for file in _files(f"data.{key}", name)]
        data[key] = files if isinstance(given, list | ListConfig) or len(files) > 1 else files[0]


def listed(files: Any) -> list[str]:
    """The value of ``data.{train,val}_files``, one file, a list or None, as a list."""
    if files is None:
        return []
    return [str(file) for file in (files if isinstance(files, list | ListConfig) else [files])]


def training_rows(data: DictConfig) -> int | None:
    """The number of rows of ``data.train_files``, from the files' footers, at most ``train_max_samples``.

    Returns:
        None where no file is given, or one is not there.

    Raises:
        SettingsError: one is not parquet.
    """
    given = listed(data.train_files)
    try:
        files = [Path(file).expanduser() for name in given for file in _files("data.train_files", name)]
    except SettingsError:  # a pattern that no file matches
        return None
    if not files or not all(file.is_file() for file in files):
        return None
    rows = 0
    for file in files:
        try:
            rows += pq.read_metadata(file).num_rows
        except (OSError, pa.ArrowException) as error:  # OSError: a damaged footer
            raise SettingsError(f"data.train_files={file}: not a parquet file ({error})") from error
    return min(rows, data.train_max_samples) if data.train_max_samples > 0 else rows


def _files(key: str, name: str) -> list[str]:
    path = Path(name).expanduser()
    if path.exists() or not any(sign in name for sign in "*?"):
        return [name]
    found = sorted(map(str, Path(path.anchor).glob(str(path.relative_to(path.anchor)))))
    if not found:
        raise SettingsError(f"{key}={name}: no file matches. Make them with one of the scripts in data_preprocess/")
    return found
