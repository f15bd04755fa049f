"""The answers of an evaluation, kept the moment they arrive, in a folder that holds those of one setting only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from data_preprocess.core.files import write_json
from recipe.sophiavl.evaluate.policy import Answer
from recipe.sophiavl.experiment import NOT_SET, table
from recipe.sophiavl.trm_training.line_file import JournalError, LineFile
from recipe.sophiavl.validation import SettingsError

ANSWERS, SETTINGS = "answers.jsonl", "settings.json"


class _Place(NamedTuple):
    offset: int
    size: int
    failed: bool


class Answers:
    """The answers in a folder, locked until they are closed; a later one to the same question takes the place.

    Args:
        folder: made where it is missing.
        defining: what all of its answers have in common, as JSON values.

    Raises:
        SettingsError: the folder's answers were asked for otherwise, with a table of the differences; or it holds
            answers of nobody knows what.
        JournalError: another process writes there, or a line is broken.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, defining: Mapping[str, Any]) -> None:
        self.folder = folder
        self._places: dict[tuple[str, int], _Place] = {}
        self._lines = LineFile(folder / ANSWERS)
        try:
            self._check(defining)
            for number, (start, line) in enumerate(self._lines.lines(), 1):
                if not line.endswith(b"\n"):  # its write was cut short
                    self._lines.cut(start)
                else:
                    self._take(number, start, line)
        except BaseException:
            self._lines.close()
            raise

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()

    def has(self, question: str, sample: int, *, failed_too: bool = True) -> bool:
        """Whether there is an answer; with `failed_too`, or an error in its place."""
        place = self._places.get((question, sample))
        return place is not None and (failed_too or not place.failed)

    def get(self, question: str, sample: int) -> Answer | None:
        """The answer, from the file; None where there is none."""
        place = self._places.get((question, sample))
        if place is None:
            return None
        kept = json.loads(self._lines.read(place.offset, place.size))
        return Answer(**{name: value for name, value in kept.items() if name not in ("id", "sample")})

    def add(self, question: str, sample: int, answer: Answer) -> None:
        """Write an answer down.

        Raises:
            OSError: it cannot be written; the file is then as it was before.
        """
        offset, size = self._lines.append(json.dumps({"id": question, "sample": sample, **asdict(answer)}))
        self._places[question, sample] = _Place(offset, size, answer.error is not None)

    def _check(self, defining: Mapping[str, Any]) -> None:
        file, here = self.folder / SETTINGS, json.loads(json.dumps(defining))
        there = stored_settings(self.folder)
        if there is None and self._lines.size:
            raise SettingsError(f"{self.folder}: holds {ANSWERS} and no {SETTINGS}: take another --out")
        if there is not None and self._lines.size:
            keys = sorted(there.keys() | here.keys())
            pairs = [(key, there.get(key, NOT_SET), here.get(key, NOT_SET)) for key in keys]
            if found := [pair for pair in pairs if pair[1] != pair[2]]:
                raise SettingsError(
                    f"{self.folder}: its answers were asked for otherwise. Set the old values again, or take another "
                    f"--out:\n{table(found)}"
                )
        write_json(file, here)

    def _take(self, number: int, start: int, line: bytes) -> None:
        try:
            kept = json.loads(line)
            question, sample = kept.pop("id"), kept.pop("sample")
            self._places[question, sample] = _Place(start, len(line), Answer(**kept).error is not None)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise JournalError(
                f"{self._lines.file}, line {number}: no answer of this command ({type(error).__name__}). Remove the "
                "line, and its question is asked again"
            ) from error


def stored_settings(folder: Path) -> dict[str, Any] | None:
    """What the answers in a folder were asked with; None where nothing is there.

    Raises:
        SettingsError: the file is damaged.
    """
    file = folder / SETTINGS
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise SettingsError(f"{file} is damaged ({error}): take another --out") from error
    if not isinstance(stored, dict):
        raise SettingsError(f"{file} is damaged: take another --out")
    return stored
