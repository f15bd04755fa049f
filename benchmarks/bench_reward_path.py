"""What the reward path costs at the paper's size, from a finished response to the reward in the TransferQueue.

verl's own agent loop worker (its generation replaced by ready responses), reward workers with our manager,
TransferQueue and our trainer's weighing run in a real Ray, against a stand-in server whose limit is known: a fixed
delay for each request, a fixed number at once. All responses are finished at once, which is the hardest case. A part
is then scored as the published code does it: one request at a time, the image encoded as PNG for each; its sums are
scaled to the whole.

    python -m benchmarks.bench_reward_path [--questions 128] [--responses 8]
"""

from __future__ import annotations

from recipe.sophiavl.verl_support import environment

if __name__ == "__main__":
    environment.configure()  # before anything imports verl

import argparse
import io
import pickle
import random
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import transfer_queue as tq
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from verl.experimental.reward_loop.reward_loop import RewardLoopManager
from verl.utils import tensordict_utils
from verl.utils.dataset.rl_dataset import collate_fn

from benchmarks.reward_path_workers import RewardWorker, Rollout, Watched
from recipe.sophiavl.guards import Guards
from recipe.sophiavl.rl_dataset import SophiaVLDataset
from recipe.sophiavl.settings import EngineSettings, ThinkingRewardSettings
from recipe.sophiavl.trainer import TrustGRPOMixin
from testbed.stand_in import bound_s, stand_in_process, work_of

CONFIG = Path(__file__).resolve().parents[1] / "recipe/sophiavl/config"
STEPS = 1500
PARTITION = "train"
LIMIT_S = 900
POLL_S = 0.1  # as sophiavl.replay_poll_interval_s
ANSWER = "</think><answer>5</answer>"
MIB = 2**20
CPU_GROUPS = ("reward workers", "rollout worker", "TransferQueue", "Ray", "driver", "server")


@dataclass(frozen=True)
class Cost:
    """What scoring `responses` responses took.

    Attributes:
        wall_s: seconds from the first response to the last reward written.
        cpu_s: CPU seconds of each of `CPU_GROUPS`.
        watched: of each reward worker.
        queue_bytes: growth of the resident memory of TransferQueue's processes.
        sent_bytes: bodies of all requests.
        requests: how many there were.
    """

    responses: int
    wall_s: float
    cpu_s: Mapping[str, float]
    watched: Sequence[Watched]
    queue_bytes: int
    sent_bytes: int
    requests: int


def photo(number: int, megapixels: float) -> bytes:
    """A JPEG that is as hard to compress as a photograph: smooth shapes with grain, different for each number."""
    chooser = np.random.default_rng(number)
    side = max(16, int((megapixels * 1e6) ** 0.5))
    coarse = chooser.integers(0, 256, (24, 24, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC), dtype=np.int16)
    grain = chooser.normal(0, 6, (side, side, 1)).astype(np.int16)
    out = io.BytesIO()
    Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(out, "JPEG", quality=90)
    return out.getvalue()


def reasoning(number: int, words: int) -> str:
    """A reasoning that repeats itself no more than real ones do, different for each number."""
    chooser = random.Random(number)
    steps = ("so", "the angle", "hence", "and", "its width", "we add", "which is", "the bar shows", "minus", "at most")
    return " ".join(f"{chooser.choice(steps)} {chooser.randrange(10000)}" for _ in range(words))


def make_responses(tokenizer: Any, number: int, tokens: int) -> np.ndarray:
    """Token ids, int64 (number, tokens), of well-formed responses that all differ."""
    opening, closing = (tokenizer.encode(text, add_special_tokens=False) for text in ("<think>", ANSWER))
    room = tokens - len(opening) - len(closing)
    texts = [reasoning(index, tokens) for index in range(number)]
    bodies = [ids[:room] for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    return np.array([opening + body + closing for body in bodies], dtype=np.int64)


def make_rows(folder: Path, questions: int, megapixels: float) -> list[dict[str, Any]]:
    """Rows as the run's data set gives them, from a parquet file in verl's schema."""
    table = [
        {
            "data_source": "benchmark",
            "prompt": [{"role": "user", "content": f"<image>What is the number of figure {index}?"}],
            "images": [{"bytes": photo(index, megapixels), "path": None}],
            "reward_model": {"style": "rule", "ground_truth": "5"},
            "extra_info": {
                **{"split": "train", "index": index, "problem_type": "numerical"},
                "question": f"<image>What is the number of figure {index}?",
            },
        }
        for index in range(questions)
    ]
    pq.write_table(pa.Table.from_pylist(table), folder / "rows.parquet")
    config = OmegaConf.create({"filter_overlong_prompts": False, "cache_dir": str(folder / "cache")})
    return list(SophiaVLDataset(str(folder / "rows.parquet"), tokenizer=None, config=config, processor=object()))


def make_tokenizer(folder: Path) -> Any:
    """A byte-level BPE that needs about as many tokens for the responses as the policy's own for real ones."""
    from examples.quickstart.tiny_qwen import train_tokenizer

    tokenizer = train_tokenizer([reasoning(-1 - index, 400) for index in range(40)], 2000)
    tokenizer.save_pretrained(folder)
    return tokenizer


def configuration(folder: Path, url: str, options: argparse.Namespace) -> DictConfig:
    """The run's own configuration on the CPU platform; no model is loaded, so it names a tokenizer only."""
    with initialize_config_dir(str(CONFIG), version_base=None):
        return compose(
            "sophiavl_trainer",
            overrides=[
                "platform=cpu",
                f"actor_rollout_ref.model.path={folder}",
                f"actor_rollout_ref.rollout.n={options.responses}",
                f"reward.num_workers={options.workers}",
                f"thinking_reward.urls=[{url}]",
                "thinking_reward.model=stand-in",
                "thinking_reward.preflight=false",
                "thinking_reward.structured_output=off",
            ],
        )


@contextmanager
def engine(config: DictConfig) -> Iterator[None]:
    """Ray and the TransferQueue, gone with all their files afterwards."""
    # Ray's sockets have long names in a folder whose own name must be short.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        # A 4 GiB store, as a training machine has at least; logical CPUs for the actors, as in the CPU platform.
        started = {"num_cpus": 16, "include_dashboard": False, "object_store_memory": 4 * 2**30, "log_to_driver": False}
        ray.init(address="local", _temp_dir=folder, **started)
        try:
            tq.init(config.transfer_queue)
            yield
        finally:
            tq.close()
            ray.shutdown()


@contextmanager
def path(config: DictConfig, responses: np.ndarray) -> Iterator[tuple[Any, list[Any]]]:
    """A rollout worker and the reward workers that it hands its responses to."""

    class Manager(RewardLoopManager):
        def _init_reward_loop_workers(self) -> None:
            self.reward_loop_workers_class = ray.remote(RewardWorker)
            super()._init_reward_loop_workers()

    workers = Manager(config).reward_loop_worker_handles
    rollout = ray.remote(Rollout).remote(config, workers, ray.put(responses))
    try:
        ray.get([each.pid.remote() for each in [*workers, rollout]])  # all are up
        yield rollout, workers
    finally:
        for each in [*workers, rollout]:
            ray.kill(each)


def cpu_by_group(groups: Mapping[int, str]) -> dict[str, float]:
    """CPU seconds so far of this process and all that it started, but the server, which tells its own."""
    found = dict.fromkeys(CPU_GROUPS, 0.0)
    found["driver"] = sum(psutil.Process().cpu_times()[:2])
    for process in psutil.Process().children(recursive=True):
        try:
            name, used = "".join(process.cmdline()[:3]), sum(process.cpu_times()[:2])
        except psutil.NoSuchProcess:
            continue
        if "testbed.stand_in" not in name:
            found[groups.get(process.pid) or ("TransferQueue" if is_queue(name) else "Ray")] += used
    return found


def is_queue(name: str) -> bool:
    """Whether a process of this name is one of TransferQueue's."""
    return name.startswith(("ray::SimpleStorage", "ray::TransferQueue"))


def queue_memory() -> int:
    """Resident bytes of TransferQueue's processes."""
    children = psutil.Process().children(recursive=True)
    return sum(child.memory_info().rss for child in children if is_queue("".join(child.cmdline()[:1])))


def measure(
    config: DictConfig, rows: Sequence[dict[str, Any]], rollout: Any, workers: Sequence[Any], url: str, progress: Any
) -> Cost:
    """Send the responses of all rows through the path once. `progress` is called with how many are scored."""
    ray.get(rollout.hand_to.remote(list(workers)))
    groups = dict.fromkeys(ray.get([each.pid.remote() for each in workers]), "reward workers")
    groups[ray.get(rollout.pid.remote())] = "rollout worker"
    uids = [uuid.uuid4().hex for _ in rows]
    batch = collate_fn([{**row, "uid": uid} for row, uid in zip(rows, uids, strict=True)])
    batch = tensordict_utils.get_tensordict(batch, {"global_steps": 1})
    ray.get([each.watch.remote() for each in workers])
    memory, work, cpu, started = queue_memory(), work_of(url), cpu_by_group(groups), time.perf_counter()
    tq.kv_batch_put(keys=uids, partition_id=PARTITION, tags=[{"status": "pending"}] * len(uids))
    ray.get(rollout.generate_sequences.remote(batch))
    keys = finished(uids, progress)
    weigh(config, keys)
    wall = time.perf_counter() - started
    done, after = work_of(url).since(work), cpu_by_group(groups)
    watched = ray.get([each.watched.remote() for each in workers])
    memory = queue_memory() - memory
    tq.kv_clear(keys=[*uids, *keys], partition_id=PARTITION)
    used = {name: after[name] - cpu[name] for name in CPU_GROUPS} | {"server": done.cpu_s}
    return Cost(len(keys), wall, used, watched, memory, done.body_bytes, done.requests)


def finished(uids: Sequence[str], progress: Any) -> dict[str, dict[str, Any]]:
    """Wait until every question is finished; returns the keys of the responses with their tags.

    Raises:
        RuntimeError: a question failed, or takes too long.
    """
    limit = time.monotonic() + LIMIT_S
    while time.monotonic() < limit:
        tags = tq.kv_list(PARTITION)[PARTITION]
        scored = {key: tag for key, tag in tags.items() if key not in uids}
        progress(len(scored))
        states = {tags[uid]["status"] for uid in uids}
        if "failure" in states:
            raise RuntimeError("a question failed in the rollout worker")
        if states == {"finished"}:
            return scored
        time.sleep(POLL_S)
    raise RuntimeError(f"{len(scored)} responses are scored after {LIMIT_S} s, and {len(uids)} questions not finished")


def weigh(config: DictConfig, keys: Mapping[str, Mapping[str, Any]]) -> None:
    """The trainer's part: read the components of all responses, weigh the groups, write the rewards.

    Raises:
        RuntimeError: a score is missing.
    """
    trainer = object.__new__(TrustGRPOMixin)
    trainer.settings = ThinkingRewardSettings.from_config(config.thinking_reward)
    trainer.global_steps, trainer.total_training_steps, trainer._dump_fields = 1, STEPS, {}
    trainer._guards = Guards(trainer.settings, EngineSettings(), STEPS)
    batch = tq.KVBatchMeta(keys=list(keys), tags=list(keys.values()), partition_id=PARTITION)
    trainer._weigh_groups(batch, {})
    unused = sum(not row["thinking_used"] for row in trainer._dump_fields.values())
    if unused:
        raise RuntimeError(f"{unused} of {len(keys)} responses have no thinking reward")


def table_of(ours: Cost, published: Cost, options: argparse.Namespace, handed_bytes: int) -> Table:
    """The costs side by side; what adds up is scaled from the part that went the published way."""
    scale = ours.responses / published.responses
    bound = bound_s(ours.responses, options.delay_s, options.capacity)
    table = Table(
        title=f"{options.questions} questions x {options.responses} responses of {options.tokens} tokens, "
        f"{options.megapixels} megapixels, {options.workers} reward workers"
    )
    for heading in ("", "here", f"published design (scaled from {published.responses})"):
        table.add_column(heading, justify="right" if heading else "left")

    def add(name: str, here: float, there: float, digits: int = 1) -> None:
        table.add_row(name, f"{here:,.{digits}f}", f"{there:,.{digits}f}")

    add("server's bound, s", bound, bound)
    add("wall time, s", ours.wall_s, published.wall_s * scale)
    add("wall time / bound", ours.wall_s / bound, published.wall_s * scale / bound, 2)
    for group in CPU_GROUPS:
        add(f"CPU, {group}, s", ours.cpu_s[group], published.cpu_s[group] * scale)
    add("sent to the server, MB", ours.sent_bytes / 1e6, published.sent_bytes * scale / 1e6)
    peaks = [[watched.peak_bytes / MIB for watched in cost.watched] for cost in (ours, published)]
    grown = [[watched.grown_bytes / MIB for watched in cost.watched] for cost in (ours, published)]
    add("peak memory of a reward worker, MiB", *map(max, peaks), 0)
    add("of it grown meanwhile, MiB", *map(max, grown), 0)
    add("TransferQueue's memory grown, MiB", ours.queue_bytes / MIB, published.queue_bytes * scale / MIB, 0)
    stalls = [[watched.longest_stall_s * 1000 for watched in cost.watched] for cost in (ours, published)]
    add("longest stall of a reward worker's loop, ms", *map(max, stalls), 0)
    table.add_row("handed on with each response, kB", f"{handed_bytes / 1e3:,.0f}", "the same")
    return table


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=128)
    parser.add_argument("--responses", type=int, default=8, help="of each question")
    parser.add_argument("--tokens", type=int, default=2000, help="of each response")
    parser.add_argument("--megapixels", type=float, default=1.0, help="of each image")
    parser.add_argument("--workers", type=int, default=4, help="reward workers, each with an event loop")
    parser.add_argument("--delay-s", type=float, default=1.0, help="of the server for each request")
    parser.add_argument("--capacity", type=int, default=64, help="requests that the server has in work at once")
    parser.add_argument("--published-questions", type=int, default=2, help="questions scored the published way")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    """Measure both ways and print the table."""
    options = arguments(given)
    with (
        tempfile.TemporaryDirectory() as temporary,
        stand_in_process(options.delay_s, options.capacity) as url,
        Progress(transient=True) as progress,
    ):
        folder = Path(temporary)
        count = options.questions * options.responses
        part = options.published_questions * options.responses
        task = progress.add_task("starting", total=count + part)
        # One question more, which warms up.
        responses = make_responses(make_tokenizer(folder), count + options.responses, options.tokens)
        *rows, first = make_rows(folder, options.questions + 1, options.megapixels)
        config = configuration(folder, url, options)
        with engine(config), path(config, responses) as (rollout, workers):
            measure(config, [first], rollout, workers, url, lambda done: None)
            progress.update(task, description="this recipe")
            ours = measure(config, rows, rollout, workers, url, lambda done: progress.update(task, completed=done))
            progress.update(task, description="published design")
            ray.get(workers[0].ask_as_published.remote())
            few = rows[: options.published_questions]
            published = measure(
                config, few, rollout, workers[:1], url, lambda done: progress.update(task, completed=count + done)
            )
    handed = len(pickle.dumps(rows[0]["raw_prompt"]))
    Console().print(table_of(ours, published, options, handed))


if __name__ == "__main__":
    main()
