"""RL parquet rows as a local data set of each harness, in its own format; nothing is loaded from a hub.

    python -m examples.benchmarks.local_data data/mine/val-*.parquet --out outputs/local_data

Writes ``questions.jsonl`` (what ``rescore.py`` scores by), ``images/`` (the rows' files, untouched), and

- ``lmms_eval/``: a task for each answer type and the group ``sophiavl_local``, for ``--include_path``;
- ``evalscope/``: ``general_vmcq`` (multiple choice) and ``general_vqa`` (the other types), for ``local_path``;
- ``LMUData/sophiavl_local.tsv``: VLMEvalKit's custom VQA, for the environment variable ``LMUData``.

All three ask the same: the row's own user message with its images in their places (VLMEvalKit: in front of it). The
system prompt of the rows is left out, since the harness is told it (``PROMPT`` in ``settings.sh``). The files hold
absolute paths: make them anew rather than move them.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from PIL import Image, UnidentifiedImageError

from reward_score import PROBLEM_TYPES

NAME = "sophiavl_local"
QUESTIONS = "questions.jsonl"  # written last
CHOICE = "multiple choice"
_MARK = "<image>"
_PLACEHOLDER = re.compile(r"<(?:image|video|audio)[_ ]\d+>")  # EvalScope would put a medium in its place
_COLUMNS = ["data_source", "prompt", "images", "reward_model", "extra_info"]


def slug(problem_type: str) -> str:
    """The answer type as part of a file's name: ``multiple_choice``."""
    return re.sub(r"\W", "_", problem_type.lower())


def content(text: str, images: Sequence[str]) -> list[dict[str, str]]:
    """A user message in parts, ``{"type": "text" | "image", "value": ...}``, an image at each ``<image>``.

    Raises:
        ValueError: marks and images differ in number, or the text holds a placeholder of EvalScope's.
    """
    if found := _PLACEHOLDER.search(text):
        raise ValueError(f"prompt holds {found[0]}, which EvalScope would take for an image")
    pieces = text.split(_MARK)
    if len(pieces) - 1 != len(images):
        raise ValueError(f"prompt has {len(pieces) - 1} {_MARK} marks, but images has {len(images)}")
    parts = [{"type": "text", "value": pieces[0]}]
    for image, piece in zip(images, pieces[1:], strict=True):
        parts += [{"type": "image", "value": image}, {"type": "text", "value": piece}]
    return [part for part in parts if part["value"]]


def read_questions(files: Iterable[Path], images: Path) -> Iterator[dict[str, Any]]:
    """The questions of RL parquet files, numbered from 0; each image is written into the folder `images`.

    Raises:
        ValueError: a row that no question can be made of, with its file, number and field.
    """
    number = 0
    for file in files:
        for position, row in enumerate(_rows(file)):
            try:
                yield _question(row, number, images)
            except (KeyError, TypeError, AttributeError, ValueError, UnidentifiedImageError) as error:
                what = f"{error} is missing" if isinstance(error, KeyError) else error
                raise ValueError(f"{file}, row {position}: {what}") from error
            number += 1


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(file) as parquet:
        if missing := [name for name in _COLUMNS if name not in parquet.schema_arrow.names]:
            raise ValueError(f"{file} has no column {', '.join(missing)}: it is no RL parquet")
        for batch in parquet.iter_batches(batch_size=256, columns=_COLUMNS):
            yield from batch.to_pylist()


def _question(row: dict[str, Any], number: int, images: Path) -> dict[str, Any]:
    extra = row["extra_info"]
    if extra["problem_type"] not in PROBLEM_TYPES:
        raise ValueError(f"extra_info.problem_type={extra['problem_type']!r}: must be of {', '.join(PROBLEM_TYPES)}")
    [text] = [message["content"] for message in row["prompt"] if message["role"] == "user"]
    paths = []
    for order, image in enumerate(row["images"] or []):
        with Image.open(io.BytesIO(image["bytes"])) as opened:
            kind = opened.format.lower()
        path = images / f"{number:06d}-{order}.{kind}"
        path.write_bytes(image["bytes"])
        paths.append(str(path))
    return {
        "id": number,
        "data_source": row["data_source"],
        "problem_type": extra["problem_type"],
        "content": content(text, paths),
        "options": extra["options"] or [],
        "answer": row["reward_model"]["ground_truth"],
    }


def write_lmms_eval(questions: Sequence[dict[str, Any]], folder: Path) -> None:
    """A task of lmms-eval for each answer type, and a group of them."""
    shutil.copy(Path(__file__).parent / "lmms_eval_task.py", folder / "utils.py")
    tasks = []
    for kind, rows in _by_type(questions):
        tasks.append(f"{NAME}_{kind}")
        data = folder / f"{kind}.jsonl"
        _write_lines(data, rows)
        task = {
            "task": tasks[-1],
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}},
            "test_split": "test",
            "output_type": "generate_until",
            "doc_to_target": "answer",
            "metric_list": [{"metric": "accuracy", "aggregation": "mean", "higher_is_better": True}],
            "metadata": [{"version": 1.0}],
        }
        functions = "".join(
            f"{key}: !function utils.{key}\n"
            for key in ("doc_to_messages", "doc_to_text", "doc_to_visual", "process_results")
        )
        (folder / f"{tasks[-1]}.yaml").write_text(yaml.safe_dump(task, sort_keys=False) + functions, encoding="utf-8")
    (folder / f"{NAME}.yaml").write_text(yaml.safe_dump({"group": NAME, "task": tasks}), encoding="utf-8")


def write_evalscope(questions: Sequence[dict[str, Any]], folder: Path) -> None:
    """``vmcq/default_val.jsonl`` and ``vqa/TYPE.jsonl``, of the questions in their order."""
    for kind, rows in _by_type(questions):
        choice = kind == slug(CHOICE)
        target = folder / ("vmcq" if choice else "vqa")
        target.mkdir(exist_ok=True)
        _write_lines(
            target / ("default_val.jsonl" if choice else f"{kind}.jsonl"), map(_vmcq if choice else _vqa, rows)
        )


def _vqa(question: dict[str, Any]) -> dict[str, Any]:
    parts = [
        {"type": "text", "text": part["value"]}
        if part["type"] == "text"
        else {"type": "image_url", "image_url": {"url": part["value"]}}
        for part in question["content"]
    ]
    return {"messages": [{"role": "user", "content": parts}], "answer": question["answer"]}


def _vmcq(question: dict[str, Any]) -> dict[str, Any]:
    text, images = "", []
    for part in question["content"]:
        if part["type"] == "image":
            images.append(part["value"])
        text += part["value"] if part["type"] == "text" else f"<image {len(images)}>"
    media = {f"image_{number}": path for number, path in enumerate(images, 1)}
    return {"question": text, "options": question["options"], "answer": question["answer"], **media}


def write_vlmevalkit(questions: Sequence[dict[str, Any]], folder: Path) -> None:
    """A table of VLMEvalKit's custom VQA; it puts images in front of the question."""
    with (folder / f"{NAME}.tsv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="\t")
        table.writerow(["index", "image_path", "question", "answer"])
        for question in questions:
            images = [part["value"] for part in question["content"] if part["type"] == "image"]
            text = "".join(part["value"] for part in question["content"] if part["type"] == "text")
            table.writerow([question["id"], images[0] if len(images) == 1 else images, text, question["answer"]])


def _by_type(questions: Sequence[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for kind in PROBLEM_TYPES:
        if rows := [question for question in questions if question["problem_type"] == kind]:
            yield slug(kind), rows


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path, help="RL parquet files")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; what it held is removed")
    parser.add_argument("--limit", type=int, help="take at most this many questions")
    args = parser.parse_args(argv)
    if missing := [str(file) for file in args.data if not file.is_file()]:
        parser.error(f"{', '.join(missing)}: no such file")
    out = args.out.resolve()
    folders = {name: out / name for name in ("images", "lmms_eval", "evalscope", "LMUData")}
    if out.exists():
        if others := sorted({path.name for path in out.iterdir()} - {*folders, QUESTIONS}):
            parser.error(f"--out {args.out} holds other things, such as {others[0]}")
        shutil.rmtree(out)
    for folder in folders.values():
        folder.mkdir(parents=True)
    try:
        questions = list(islice(read_questions(args.data, folders["images"]), args.limit))
    except (ValueError, OSError) as error:
        print(f"local_data: {error}", file=sys.stderr)
        return 1
    write_lmms_eval(questions, folders["lmms_eval"])
    write_evalscope(questions, folders["evalscope"])
    write_vlmevalkit(questions, folders["LMUData"])
    _write_lines(out / QUESTIONS, questions)
    print(f"{out}: {len(questions)} questions")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
