"""Time that 1,000 hostile answers take in one reward worker: python tests/unit/reward_score/hostile.py

The answers stand in ``hostile_answers.jsonl``: sums, towers, endless repetitions (``answer`` is written ``times``
times). All are wrong. Threads as in a reward worker: asyncio's default number of them.
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from reward_score import score_outcome

FILE = Path(__file__).with_name("hostile_answers.jsonl")


def read_hostile() -> list[dict[str, Any]]:
    """The rows: type, truth, answer, and, where they matter, times and options."""
    return [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


def score(row: Mapping[str, Any]) -> tuple[float, float]:
    """The reward, and the wall time that it took in seconds."""
    started = time.monotonic()
    response = f"<think>so</think><answer>{row['answer'] * row.get('times', 1)}</answer>"
    reward = score_outcome(row["type"], response, row["truth"], row.get("options")).reward
    return reward, time.monotonic() - started


def main() -> None:
    """Print the wall time of all, and by type the rewards' maximum and the longest single answers."""
    rows = read_hostile()
    started = time.monotonic()
    with ThreadPoolExecutor(min(32, (os.cpu_count() or 1) + 4)) as threads:
        scores = list(threads.map(score, rows))
    print(f"{len(rows)} answers: {time.monotonic() - started:.1f} s")
    by_type = defaultdict(list)
    for row, (reward, seconds) in zip(rows, scores, strict=True):
        by_type[row["type"]].append((seconds, reward, f"{row['answer'][:60]!r} x {row.get('times', 1)}"))
    for kind, timed in by_type.items():
        slowest = sorted(timed, reverse=True)[:3]
        print(f"{kind}: {len(timed)} answers, highest reward {max(reward for _, reward, _ in timed):.3f}, slowest:")
        print(*(f"  {seconds:.2f} s  {name}" for seconds, _, name in slowest), sep="\n")


if __name__ == "__main__":
    main()
