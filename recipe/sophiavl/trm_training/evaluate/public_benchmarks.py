"""Public benchmarks of multimodal reward models, read in the layouts in which they are published.

- VL-RewardBench (arXiv 2411.17451): parquet files ``data/test-*.parquet`` with id, query, image, response (two texts)
  and human_ranking (rank 0 is better), or ``data.jsonl`` with image_path;
- Multimodal RewardBench (arXiv 2502.14191): ``all_data.json`` with ID, Text, Image (a path), Output1, Output2, Better
  and Category;
- VisualProcessBench (arXiv 2503.10291): ``test.jsonl`` with image (paths), question, data_source and response
  {steps, process_correctness}.

A folder may be given with or without its ``data/``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from recipe.sophiavl.trm.questions import digest_of
from recipe.sophiavl.trm_training.evaluate.rows import tied, tying_keys
from recipe.sophiavl.trm_training.evaluate.statistics import Rows
from recipe.sophiavl.trm_training.pairs import PairsError, read_pairs

STEPS = "visual_process_bench"


@dataclass(frozen=True)
class Case:
    """One question of a benchmark with the texts to be scored about it, and what people say of each.

    Attributes:
        name: its id, or where it stands.
        group: its category or source.
        images: encoded images.
        labels: of a pair 1 for the better response and 0 for the other; of steps 1 right, 0 neutral, -1 wrong.
    """

    name: str
    group: str
    question: str
    images: tuple[bytes, ...]
    texts: tuple[str, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark that was read once, all of it checked; `read` gives its cases again, with images and texts.

    Attributes:
        cases: name, group and labels of each case.
        cluster: number of each case's set of tied images, from 0, shape (cases,).
        questions: digest of each case's question.
        images: digests of each case's images.
    """

    name: str
    folder: Path
    read: Callable[[], Iterator[Case]]
    cases: tuple[tuple[str, str, tuple[int, ...]], ...]
    cluster: Rows
    questions: tuple[bytes, ...]
    images: tuple[frozenset[str], ...]

    def counts(self, cases: Rows) -> dict[str, int]:
        """How many questions and images these cases are about."""
        chosen = set(cases.tolist())
        return {
            "questions": len({self.questions[case] for case in chosen}),
            "images": len({image for case in chosen for image in self.images[case]}),
        }


def read_benchmark(name: str, folder: Path, limit: int | None = None) -> Benchmark:
    """Read and check a benchmark of `READERS`; texts and images are not kept.

    Args:
        limit: its first cases only; None takes all.

    Raises:
        PairsError: the folder has another layout, or a case cannot be used; the message names file, row and field.
    """

    def read() -> Iterator[Case]:
        return islice(READERS[name](folder), limit)

    cases, keys, questions, images = [], [], [], []
    known: dict[bytes, bytes] = {}
    for case in tqdm(read(), desc="reading", unit="case"):
        cases.append((case.name, case.group, case.labels))
        keys.append(tying_keys(case.question, case.images, known))
        images.append(frozenset(keys[-1] if case.images else ()))
        questions.append(digest_of(case.question.encode("utf-8", "surrogatepass")))
    if not cases:
        raise PairsError(f"{folder}: holds no cases")
    return Benchmark(name, folder, read, tuple(cases), tied(keys), tuple(questions), tuple(images))


def _vl_rewardbench(folder: Path) -> Iterator[Case]:
    base = _base(folder, "test-*.parquet", "data.jsonl")
    for where, row in _rows(sorted(base.glob("test-*.parquet")) or [base / "data.jsonl"]):
        fail = _failing(where)
        responses, ranking = row.get("response"), row.get("human_ranking")
        if not (isinstance(responses, list) and len(responses) == 2 and all(isinstance(r, str) for r in responses)):
            raise fail("response", "must be two texts")
        if not isinstance(ranking, list) or sorted(ranking) != [0, 1]:
            raise fail("human_ranking", f"{ranking!r} is neither [0, 1] nor [1, 0]")
        if "image_path" in row:
            image = _image_file(base, row["image_path"], fail)
        elif not (isinstance(row.get("image"), dict) and row["image"].get("bytes")):
            raise fail("image", "has no bytes")
        else:
            image = row["image"]["bytes"]
        name = _text(row, "id", fail)
        labels = tuple(int(rank == 0) for rank in ranking)
        yield Case(name, _vl_group(name), _text(row, "query", fail), (image,), tuple(responses), labels)


def _vl_group(name: str) -> str:
    """The published grouping, by the source that an id begins with."""
    source = re.split("[_-]", name, maxsplit=1)[0]
    if source in ("RLAIF", "RLHF", "hallucination"):
        return "hallucination"
    return "reasoning" if source in ("mathverse", "mmmu") else "general"


def _multimodal_rewardbench(folder: Path) -> Iterator[Case]:
    base = _base(folder, "all_data.json")
    for where, row in _rows([base / "all_data.json"]):
        fail = _failing(where)
        if row.get("Better") not in ("Output1", "Output2"):
            raise fail("Better", f"{row.get('Better')!r} is neither Output1 nor Output2")
        name, category = _text(row, "ID", fail), _text(row, "Category", fail)
        # The published scores tell these two apart by the source.
        if category == "safety":
            category = "safety/bias" if name.lower().startswith("pairs") else "safety/toxicity"
        elif category == "reasoning":
            category = "reasoning/math" if name.lower().startswith("math") else "reasoning/coding"
        texts = tuple(_text(row, field, fail) for field in ("Output1", "Output2"))
        labels = tuple(int(row["Better"] == field) for field in ("Output1", "Output2"))
        image = _image_file(base, row.get("Image"), fail)
        yield Case(name, category, _text(row, "Text", fail), (image,), texts, labels)


def _visual_process_bench(folder: Path) -> Iterator[Case]:
    base = _base(folder, "test.jsonl")
    for where, row in _rows([base / "test.jsonl"]):
        fail = _failing(where)
        response = row.get("response")
        steps, labels = (
            response.get(n) if isinstance(response, dict) else None for n in ("steps", "process_correctness")
        )
        if not (isinstance(steps, list) and steps and all(isinstance(step, str) for step in steps)):
            raise fail("response.steps", "must be a list of texts")
        if not (
            isinstance(labels, list) and len(labels) == len(steps) and all(label in (-1, 0, 1) for label in labels)
        ):
            raise fail("response.process_correctness", f"must be -1, 0 or 1 for each of the {len(steps)} steps")
        paths = row.get("image")
        images = [_image_file(base, path, fail) for path in ([paths] if isinstance(paths, str) else paths or ())]
        texts = tuple("\n".join(steps[: last + 1]) for last in range(len(steps)))
        source, question = _text(row, "data_source", fail), _text(row, "question", fail)
        yield Case(where.rpartition(", ")[2], source, question, tuple(images), texts, tuple(map(int, labels)))


READERS: Mapping[str, Callable[[Path], Iterator[Case]]] = {
    "vl_rewardbench": _vl_rewardbench,
    "multimodal_rewardbench": _multimodal_rewardbench,
    STEPS: _visual_process_bench,
}


def _base(folder: Path, *files: str) -> Path:
    for base in (folder, folder / "data"):
        if any(True for pattern in files for _ in base.glob(pattern)):
            return base
    raise PairsError(f"{folder}: neither it nor its data/ has {' or '.join(files)}, as the published layout does")


def _rows(files: Sequence[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of parquet, JSON and JSON lines files, each with the words that say where it stands."""
    for file in files:
        try:
            if file.suffix == ".parquet":
                rows: Iterator[Any] = read_pairs(file)
            elif file.suffix == ".jsonl":
                rows = (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
            else:
                rows = iter(json.loads(file.read_text(encoding="utf-8")))
            for number, row in enumerate(rows):
                if not isinstance(row, dict):
                    raise PairsError(f"{file}, row {number}: no object")
                yield f"{file}, row {number}", row
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise PairsError(f"{file}: cannot be read: {error}") from error


def _failing(where: str) -> Callable[[str, str], PairsError]:
    return lambda field, what: PairsError(f"{where}, field {field}: {what}")


def _text(row: Mapping[str, Any], field: str, fail: Callable[[str, str], PairsError]) -> str:
    value = row.get(field)
    if not isinstance(value, str) or not value:
        raise fail(field, f"must be text, not {value!r}")
    return value


def _image_file(base: Path, path: Any, fail: Callable[[str, str], PairsError]) -> bytes:
    if not isinstance(path, str):
        raise fail("image", f"must be a path, not {path!r}")
    try:
        return (base / path).read_bytes()
    except OSError as error:
        raise fail("image", f"{path} cannot be read: {error}") from error
