"""The questions of an evaluation: everything but their texts and images, which are streamed when they are needed."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from data_preprocess.core.errors import RowError, SourceError
from data_preprocess.core.images import pixel_digest, upright
from data_preprocess.core.parquet import read_rows
from data_preprocess.core.splits import leak_keys
from recipe.sophiavl.data_checks import check_row, missing_fields
from recipe.sophiavl.trm.images import BadImageError, data_url, digest_image, load_image
from recipe.sophiavl.trm.questions import digest_of, question_text
from recipe.sophiavl.validation import SettingsError
from reward_score import PROBLEM_TYPES

Row = Mapping[str, Any]
_TYPES = {name.lower(): name for name in PROBLEM_TYPES}
_MARK = "<image>"


class DataError(SettingsError):
    """A data file that cannot be evaluated; the message names it and says what is wrong."""


class BadRowError(ValueError):
    """A row that cannot be asked about; the message says why."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is kept of a row.

    Attributes:
        number: of the row, over all files.
        where: its file and row, for people.
        id: digest of what is asked and what is right, equal in any file; repetitions get ``-2``, ``-3`` …
        keys: what ties it to others: a digest of each image's pixels, or, without images, of its question.
        image_count: number of its images.
        fault: why it cannot be asked; None where it can.
    """

    number: int
    where: str
    id: str
    data_source: str
    problem_type: str
    keys: tuple[bytes, ...]
    image_count: int
    fault: str | None


def check_files(files: Sequence[Path]) -> None:
    """Check that these are parquet files of RL rows.

    Raises:
        DataError: one is missing, no parquet file, or lacks a column; or one is named twice.
    """
    for file in files:
        if not file.is_file():
            raise DataError(f"DATA {file}: no such file. Make it with one of the scripts in data_preprocess/")
        try:
            missing = missing_fields(pq.read_schema(file))
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"DATA {file}: not a parquet file ({error})") from error
        if missing:
            raise DataError(
                f"DATA {file}: the columns {', '.join(missing)} are missing. data_preprocess/ writes files with all"
            )
    if twice := [str(file) for file, count in Counter(file.resolve() for file in files).items() if count > 1]:
        raise DataError(f"DATA {twice[0]}: is named twice")


def read_questions(files: Sequence[Path], limit: int | None = None) -> list[Question]:
    """All questions of the files, in order; a row that cannot be asked has its fault.

    Args:
        limit: most rows of each file.

    Raises:
        DataError: a file breaks off, or there are no rows.
    """
    questions: list[Question] = []
    known: dict[bytes, bytes] = {}
    seen: Counter[str] = Counter()
    start = 0
    for file in files:
        total = pq.read_metadata(file).num_rows
        rows = tqdm(_rows(file, limit), f"reading {file.name}", min(total, limit or total), unit="row")
        for number, row in enumerate(rows):
            question = _question(start + number, f"{file}, row {number}", row, known)
            seen[question.id] += 1
            if seen[question.id] > 1:
                question = _again(question, seen[question.id])
            questions.append(question)
        start += total
    if not questions:
        raise DataError(f"DATA {', '.join(map(str, files))}: no rows")
    return questions


def stream(files: Sequence[Path], questions: Iterable[Question]) -> Iterator[tuple[Question, Row]]:
    """These questions, ascending, with their rows; a batch of rows in memory at a time.

    Raises:
        DataError: a file cannot be read any more.
    """
    left = sorted(questions, key=lambda question: question.number)
    start = 0
    for file in files:
        end = start + pq.read_metadata(file).num_rows
        inside = [question for question in left if start <= question.number < end]
        if inside:
            yield from zip(inside, _rows(file, None, [one.number - start for one in inside]), strict=True)
        start = end


def images_of(row: Row) -> list[bytes]:
    """The encoded images of a row, upright, as the policy sees them in training.

    Raises:
        BadRowError: one cannot be read, or is no image.
    """
    images = []
    for number, image in enumerate(row.get("images") or ()):
        try:
            images.append(upright(_encoded(image)))
        except RowError as error:
            raise BadRowError(f"image {number}: {error.reason}") from error
        except (BadImageError, TypeError) as error:
            raise BadRowError(f"image {number}: {error}") from error
    return images


def _encoded(image: Any) -> bytes:
    loaded = load_image(image)
    if not isinstance(loaded, bytes):
        raise TypeError(f"an image must be encoded, not {type(loaded).__name__}")
    return loaded


def messages_of(row: Row, images: Sequence[bytes], system_prompt: str | None = None) -> list[dict[str, Any]]:
    """The chat messages of a row in OpenAI's form: as `verl`'s data set builds them, image for ``<image>``.

    Args:
        images: encoded, in order.
        system_prompt: in place of the row's own; "" leaves it out, None keeps it.

    Raises:
        BadRowError: not as many marks as images.
    """
    prompt = list(row["prompt"])
    if system_prompt is not None:
        own = [{"role": "system", "content": system_prompt}] if system_prompt else []
        prompt = own + [message for message in prompt if message["role"] != "system"]
    marks = sum(message["content"].count(_MARK) for message in prompt)
    if not images:
        return [{"role": message["role"], "content": message["content"]} for message in prompt]
    if marks != len(images):
        raise BadRowError(f"prompt: {marks} {_MARK} marks for {len(images)} images")
    urls = iter([data_url(digest_image(image)) for image in images])
    return [{"role": message["role"], "content": _parts(message["content"], urls)} for message in prompt]


def messages_json(row: Row, system_prompt: str | None = None) -> bytes:
    """The messages of a row as JSON. Raises BadRowError."""
    return json.dumps(messages_of(row, images_of(row), system_prompt)).encode()


def _parts(content: str, urls: Iterator[str]) -> list[dict[str, Any]]:
    return [
        {"type": "image_url", "image_url": {"url": next(urls)}} if part == _MARK else {"type": "text", "text": part}
        for part in re.split(f"({_MARK})", content)
        if part
    ]


def _rows(file: Path, limit: int | None, numbers: Sequence[int] | None = None) -> Iterator[Row]:
    try:
        yield from islice(read_rows(file, numbers=numbers), limit)
    except (SourceError, UnicodeDecodeError) as error:
        raise DataError(f"DATA {file}: cannot be read on: {error}") from error


def _question(number: int, where: str, row: Row, known: dict[bytes, bytes]) -> Question:
    """What is kept of a row.

    Args:
        known: pixel digests by the digest of a file; takes new ones.
    """
    info, truth = row["extra_info"] or {}, (row["reward_model"] or {}).get("ground_truth")
    kind = _TYPES.get(str(info.get("problem_type")).strip().lower(), str(info.get("problem_type")))
    fault, digests = None, []
    try:
        check_row(info.get("problem_type"), truth, info.get("options") or ())
        text = _checked_text(row, info)
        images = images_of(row)
        if images and (marks := text.count(_MARK)) != len(images):
            raise BadRowError(f"prompt: {marks} {_MARK} marks for {len(images)} images")
        digests = [_digest(data, known) for data in images]
    except RowError as error:
        fault = error.reason
    except ValueError as error:  # BadRowError too
        fault = str(error)
    question = question_text(info) if isinstance(info.get("question"), str) else ""
    parts = (str(row["data_source"]), kind, question, str(truth), *([] if fault is None else [where]))
    identity = digest_of(*(part.encode("utf-8", "surrogatepass") for part in parts), *digests)
    keys = tuple(leak_keys(question, digests)) if fault is None else (identity,)
    return Question(number, where, identity.hex(), str(row["data_source"]), kind, keys, len(digests), fault)


def _checked_text(row: Row, info: Row) -> str:
    """All text of the prompt."""
    if not isinstance(info.get("question"), str):
        raise BadRowError(f"extra_info.question={info.get('question')!r}: must be a text")
    prompt = row["prompt"]
    if not prompt or not all(isinstance(message, dict) and isinstance(message["content"], str) for message in prompt):
        raise BadRowError("prompt: must be a list of messages with a text as content")
    return "".join(message["content"] for message in prompt)


def _digest(data: bytes, known: dict[bytes, bytes]) -> bytes:
    key = digest_of(data)
    if key not in known:
        known[key] = pixel_digest(data)
    return known[key]


def _again(question: Question, time: int) -> Question:
    values = {name: getattr(question, name) for name in question.__slots__}
    return Question(**values | {"id": f"{question.id}-{time}"})
