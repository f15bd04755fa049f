"""The answers that lmms-eval, EvalScope, VLMEvalKit and ``recipe.sophiavl.evaluate`` leave, as one kind of record."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

# What a harness writes in the place of a response that it did not get.
_FAILED = ("[LMMS_EVAL_REQUEST_FAILED", "[LMMS_EVAL_BUDGET_EXCEEDED]", "Failed to obtain answer via API")
_STEM = re.compile(r"\d+_\d+_samples_(?P<task>.+)")  # of lmms-eval: DATE_TIME_samples_TASK


@dataclass(frozen=True)
class Answered:
    """One answer as a harness kept it.

    Attributes:
        task: what the harness calls the set it belongs to.
        position: number of the question in that set, from 0.
        question: its text, as far as the harness keeps it.
        response: the model's whole output; None where the harness got none.
        truth: the true answer; None where the harness does not keep it.
        options: of multiple choice, where the harness keeps them.
        own: the harness' own score of it; None where it gives no number.
    """

    task: str
    position: int
    question: str
    response: str | None
    truth: str | None
    options: tuple[str, ...] = ()
    own: float | None = None


class LogError(ValueError):
    """Files that are no answers of a known harness, or damaged ones; the message names file and line."""


def read_answers(path: Path) -> list[Answered]:
    """All answers in a file, or in the files of known names below a folder.

    Raises:
        LogError: no such file, no answers, or a file that is damaged.
        OSError: one that cannot be read.
    """
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if _reader(file))
    if not files:
        raise LogError(f"{path}: no answers of lmms-eval, EvalScope, VLMEvalKit or recipe.sophiavl.evaluate there")
    found: dict[tuple[str, int], Answered] = {}
    for file in files:
        reader = _reader(file)
        if reader is None:
            raise LogError(f"{file}: not named like the answers of a known harness")
        # The names begin with the time, so that of several runs the last one counts.
        found |= {(answered.task, answered.position): answered for answered in reader(file)}
    if not found:
        raise LogError(f"{path}: holds no answers")
    return list(found.values())


def _reader(file: Path) -> Callable[[Path], Iterator[Answered]] | None:
    if file.suffix == ".jsonl" and _STEM.fullmatch(file.stem):
        return _lmms_eval
    if file.suffix == ".jsonl" and file.parent.parent.name == "reviews":
        return _evalscope
    if file.name == "scored.jsonl":
        return _evaluate
    if file.suffix in (".tsv", ".xlsx") and file.parent.name != "LMUData":
        return _vlmevalkit
    return None


def _lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{file}, line {number}"
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise LogError(f"{where}: no JSON ({error})") from error
            if not isinstance(record, dict):
                raise LogError(f"{where}: no JSON object")
            yield where, record


def _parsed(file: Path, parse: Callable[[dict[str, Any]], Answered]) -> Iterator[Answered]:
    for where, record in _lines(file):
        try:
            yield parse(record)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise LogError(f"{where}: {type(error).__name__}: {error}") from error


def _lmms_eval(file: Path) -> Iterator[Answered]:
    task = _STEM.fullmatch(file.stem)["task"]
    given = {"doc_id", "target", "resps", "filtered_resps", "token_counts", "doc_hash", "input_media", "input"}

    def parse(record: dict[str, Any]) -> Answered:
        response = record["resps"]
        while isinstance(response, list):  # as it keeps several requests of one question
            [response] = response
        scores = [value for name, value in record.items() if name not in given and isinstance(value, int | float)]
        own = float(scores[0]) if len(scores) == 1 else None
        return Answered(
            task, int(record["doc_id"]), str(record.get("input", "")), _text(response), _text(record["target"]), (), own
        )

    return _parsed(file, parse)


def _evalscope(file: Path) -> Iterator[Answered]:
    def parse(record: dict[str, Any]) -> Answered:
        asked = [message for message in record["messages"] if message["role"] == "user"][-1]
        score = record["sample_score"]["score"]
        replies = [message for message in record["messages"] if message["role"] == "assistant"]
        target = record["target"]
        if isinstance(target, list):
            [target] = target
        own = score["value"].get(score["main_score_name"])
        response = _rejoined(replies[-1]["content"]) if replies else None
        return Answered(file.stem, int(record["index"]), _rejoined(asked["content"]), response, _text(target), (), own)

    return _parsed(file, parse)


def _rejoined(content: str | list[Mapping[str, Any]]) -> str:
    """A message of EvalScope's, which takes the first ``<think>…</think>`` out of a response, as one text again."""
    if isinstance(content, str):
        return content
    tagged = {"reasoning": "<think>{}</think>", "text": "{}"}
    return "".join(tagged[part["type"]].format(part[part["type"]]) for part in content if part["type"] in tagged)


def _evaluate(file: Path) -> Iterator[Answered]:
    seen: dict[str, int] = {}

    def parse(record: dict[str, Any]) -> Answered:
        if record["sample"] != 0:
            raise ValueError("several samples of a question: only evaluations of one are compared here")
        own = None if record["correct"] is None else float(record["correct"])
        position = seen.setdefault(record["id"], len(seen))
        return Answered("evaluate", position, record["question"], record["response"], record["truth"], (), own)

    return _parsed(file, parse)


def _vlmevalkit(file: Path) -> Iterator[Answered]:
    try:
        if file.suffix == ".xlsx":
            table = pd.read_excel(file, dtype=str, keep_default_na=False)
        else:
            table = pd.read_csv(file, sep="\t", dtype=str, keep_default_na=False)
    except ImportError as error:
        raise LogError(f"{file}: pip install openpyxl to read it, or run with PRED_FORMAT=tsv") from error
    except (ValueError, OSError) as error:
        raise LogError(f"{file}: {error}") from error
    if "prediction" not in table or "hit" in table:  # another table of its work folder, or what it made of the answers
        return
    if missing := {"index", "question", "answer"} - set(table.columns):
        raise LogError(f"{file}: no column {', '.join(sorted(missing))}: it holds no predictions of VLMEvalKit")
    for row in table.to_dict("records"):
        response = row.get("response") or row["prediction"]
        if "response" not in row and row.get("thinking"):  # SPLIT_THINK took it out
            response = f"<think>{row['thinking']}</think>{response}"
        options = tuple(row[letter] for letter in "ABCDEFGHI" if row.get(letter))
        if not re.fullmatch(r"\d+", row["index"]):
            raise LogError(f"{file}: index {row['index']!r} is no whole number")
        yield Answered(file.stem, int(row["index"]), row["question"], _text(response), row["answer"], options)


def _text(value: Any) -> str | None:
    """A response or a truth as text; None for what tells that there is none."""
    text = None if value is None else str(value)
    return None if text is None or text.lstrip().startswith(_FAILED) else text
