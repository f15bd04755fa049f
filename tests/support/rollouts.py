"""A GRPO run's leavings, small: RL parquet files, and the rollout dumps of questions in them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from data_preprocess.schema import RL_SCHEMA, rl_row
from recipe.sophiavl.trm_training.collect import Collected, CollectSettings, collect
from recipe.sophiavl.trm_training.pairs import read_pairs


def image_of(number: int) -> bytes:
    """A small image, another for each number."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256, number // 256, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def question_row(index: int, **changes: Any) -> dict[str, Any]:
    """Row `index` of an RL parquet file: a multiple choice question about an image."""
    row = rl_row(
        data_source="shapes",
        question=f"What shape is in image {index}?",
        problem_type="multiple choice",
        answer="A",
        split="train",
        index=index,
        images=[image_of(index)],
        options=["circle", "square"],
    )
    return {**row, **changes}


def write_data(file: Path, rows: Sequence[dict[str, Any]], row_group_size: int = 3) -> Path:
    """An RL parquet file with several row groups."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=RL_SCHEMA), file, row_group_size=row_group_size)
    return file


def dumped(index: int, thinking: str | None, step: int = 1, **changes: Any) -> dict[str, Any]:
    """A line of a dump: a response to question `index`, without the format where `thinking` is None."""
    return {
        "input": "user\nWhat shape is in the image?\nassistant\n",
        "output": "A" if thinking is None else f"<think>{thinking}</think><answer>A</answer>",
        "gts": "A",
        "score": 1.0,
        "step": step,
        "uid": f"group{index}_0_0",
        "outcome_reward": 1.0,
        "format_ok": thinking is not None,
        "answer": "A",
        "problem_type": "multiple choice",
        "thinking_reward": None,
        "gamma": None,
        "group": f"group{index}",
        "data_source": "shapes",
        "split": "train",
        "index": index,
        **changes,
    }


def write_dump(run: Path, step: int, lines: Sequence[dict[str, Any]]) -> Path:
    """RUN/rollouts/STEP.jsonl, as verl writes it."""
    file = run / "rollouts" / f"{step}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return file


def full_run(tmp_path: Path, questions: int = 10, steps: int = 4, responses: int = 5) -> None:
    """The dumps of a run in which every step asks every question."""
    for step in range(1, steps + 1):
        lines = [dumped(i, f"Step {step}, thought {r}.", step) for i in range(questions) for r in range(responses)]
        write_dump(tmp_path / "run", step, lines)


def pairs_of(
    tmp_path: Path, data: Path | list[Path], settings: CollectSettings | None = None, run: str = "run"
) -> tuple[list[dict[str, Any]], Collected]:
    """What `collect` writes of a run, and its counts."""
    out = tmp_path / "pairs.parquet"
    paths = data if isinstance(data, list) else [data]
    collected = collect(tmp_path / run, paths, out, settings or CollectSettings())
    return list(read_pairs(out)), collected


def names_of(pairs: Sequence[dict[str, Any]]) -> list[tuple[int, int, str]]:
    """Step, question and thinking of each pair."""
    return [(pair["step"], pair["index"], pair["thinking"]) for pair in pairs]
