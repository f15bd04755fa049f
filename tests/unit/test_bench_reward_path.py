"""What `bench_reward_path` is made of, without Ray: its responses and images, its actors, its table."""

from __future__ import annotations

import asyncio
import io
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from verl.utils import tensordict_utils
from verl.utils.dataset.rl_dataset import collate_fn

from benchmarks import bench_reward_path as bench
from benchmarks import reward_path_workers as actors
from recipe.sophiavl.trm.client_settings import ClientSettings
from reward_score import extract_thinking, score_outcome
from testbed.stand_in import bound_s, stand_in_process, work_of

TOKENS = 200


@pytest.fixture(scope="module")
def responses(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, np.ndarray]:
    tokenizer = bench.make_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    return tokenizer, bench.make_responses(tokenizer, 4, TOKENS)


def test_responses_have_their_length_all_differ_and_are_right(responses: tuple[Any, np.ndarray]) -> None:
    tokenizer, ids = responses
    assert ids.shape == (4, TOKENS)
    texts = [tokenizer.decode(row, skip_special_tokens=True) for row in ids]
    assert len({extract_thinking(text) for text in texts}) == 4
    assert [score_outcome("numerical", text, "5").reward for text in texts] == [1.0] * 4


def test_images_are_as_large_as_told_and_differ() -> None:
    first, again, second = (bench.photo(number, 0.25) for number in (1, 1, 2))
    assert first == again != second
    assert Image.open(io.BytesIO(first)).size == (500, 500)
    assert len(first) > 0.1 * 500 * 500  # as a photograph, and not a drawing


@pytest.mark.parametrize(("requests", "seconds"), [(0, 0.0), (1, 0.5), (64, 0.5), (65, 1.0), (1024, 8.0)])
def test_the_bound_is_of_whole_waves(requests: int, seconds: float) -> None:
    assert bound_s(requests, 0.5, 64) == seconds


class Queue:
    """TransferQueue's calls, remembered."""

    def __init__(self) -> None:
        self.put: dict[str, Any] = {}

    def init(self) -> None:
        pass

    async def async_kv_put(self, key: str, tag: dict[str, Any], **_: Any) -> None:
        self.put[key] = tag

    async def async_kv_batch_put(self, keys: Sequence[str], fields: Any, **_: Any) -> None:
        self.put |= dict.fromkeys(keys, fields)


def test_the_rollout_hands_every_response_to_a_reward_worker_and_puts_it_into_the_queue(
    responses: tuple[Any, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, asked = Queue(), []
    for name in ("init", "async_kv_put", "async_kv_batch_put"):
        monkeypatch.setattr(actors.tq, name, getattr(queue, name))

    async def compute_score(data: Any) -> dict[str, Any]:
        item = data[0]
        asked.append((int(item.non_tensor_batch["index"]), item.batch["responses"].tolist()))
        assert item.non_tensor_batch["raw_prompt"][0]["content"][0]["bytes"]
        return {"reward_score": 1.0, "reward_extra_info": {"outcome_reward": 1.0}}

    worker = SimpleNamespace(compute_score=SimpleNamespace(remote=compute_score))
    rows = bench.make_rows(tmp_path, 2, 0.01)
    config = bench.configuration(tmp_path, "http://h/v1", bench.arguments(["--responses", "2"]))

    async def run() -> None:
        rollout = actors.Rollout(config, [worker], responses[1])
        batch = collate_fn([{**row, "uid": f"u{index}"} for index, row in enumerate(rows)])
        await rollout.generate_sequences(tensordict_utils.get_tensordict(batch, {"global_steps": 1}))
        await asyncio.gather(*rollout.background_tasks)

    asyncio.run(run())
    assert sorted(asked) == sorted((index // 2, ids) for index, ids in enumerate(responses[1].tolist()))
    assert [queue.put[uid] for uid in ("u0", "u1")] == [{"status": "finished"}] * 2
    extra = queue.put["u1_0_0"]["extra_fields"][0]
    assert extra["reward_extra_info"] == {"outcome_reward": 1.0}


def test_the_published_way_encodes_the_image_for_every_request() -> None:
    image = bench.photo(0, 0.01)
    with stand_in_process(0.0, 1) as url:
        client = actors.OneAtATime(ClientSettings(urls=(url,), model="m"))
        scores = [asyncio.run(client.score("which?", [image], text)) for text in ("a", "b")]
        work = work_of(url)
    assert [score.value for score in scores] == [0.7, 0.7]
    assert work.requests == 2
    pixels = actors._as_png(Image.open(io.BytesIO(image)))
    assert work.body_bytes > 2 * len(pixels) * 4 / 3


def test_what_adds_up_is_scaled_to_the_whole_and_peaks_are_not() -> None:
    def cost(count: int, wall_s: float, peak: int) -> bench.Cost:
        watched = [actors.Watched(peak * bench.MIB, 0, 0.25)]
        return bench.Cost(count, wall_s, dict.fromkeys(bench.CPU_GROUPS, 3.0), watched, 0, 5_000_000, count)

    options = bench.arguments(["--questions", "8", "--responses", "2", "--delay-s", "2", "--capacity", "4"])
    table = bench.table_of(cost(16, 10.0, 700), cost(2, 7.0, 900), options, 1000)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in console.export_text().splitlines()]
    cells = {row[0]: row[1:] for row in rows if len(row) == 3}
    assert cells["wall time, s"] == ["10.0", "56.0"]
    assert cells["wall time / bound"] == ["1.25", "7.00"]
    assert cells["CPU, server, s"] == ["3.0", "24.0"]
    assert cells["peak memory of a reward worker, MiB"] == ["700", "900"]
    assert math.isclose(float(cells["sent to the server, MB"][1]), 40.0)
