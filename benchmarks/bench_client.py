"""How close the thinking reward client comes to what its server allows.

Scores groups of responses, one image per question, against a local stand-in server (a process of its own) that answers
each request after a fixed delay and serves a fixed number at once. Compares the wall time with the server's bound,
responses x delay / capacity, and with asking one at a time.

    python -m benchmarks.bench_client
"""

from __future__ import annotations

import argparse
import asyncio
import io
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table

from recipe.sophiavl.trm.client import ThinkingRewardClient, ThinkingScore
from recipe.sophiavl.trm.client_settings import ClientSettings
from testbed.stand_in import stand_in_process

IMAGE_SIDE = 512
RESPONSE_WORDS = 250
WORDS = ("the", "angle", "at", "this", "corner", "equals", "half", "of", "that", "arc", "so", "both", "bars", "show")

Runs = list[tuple[float, list[ThinkingScore]]]


@dataclass(frozen=True)
class Job:
    """One response to be scored."""

    question: str
    image: bytes | Image.Image
    thinking: str


def make_image(number: int) -> Image.Image:
    """A bar chart, different for each number."""
    chooser = random.Random(number)
    image = Image.new("RGB", (IMAGE_SIDE, IMAGE_SIDE), "white")
    draw = ImageDraw.Draw(image)
    for left in range(16, IMAGE_SIDE - 40, 56):
        top = chooser.randrange(20, IMAGE_SIDE - 40)
        colour = (chooser.randrange(256), chooser.randrange(256), chooser.randrange(256))
        draw.rectangle((left, top, left + 40, IMAGE_SIDE - 20), fill=colour)
        draw.text((left, top - 14), str(IMAGE_SIDE - top), fill="black")
    return image


def encode(image: Image.Image, image_format: str) -> bytes:
    """The image as a file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format=image_format)
    return buffer.getvalue()


def make_jobs(groups: range, group_size: int, images: str) -> list[Job]:
    """Groups that share question and image; `images` is "png" or "jpeg" bytes, or "pil" objects, one each response."""
    chooser = random.Random(groups.start)
    jobs: list[Job] = []
    for group in groups:
        picture = make_image(group)
        source = picture if images == "pil" else encode(picture, images)
        for _ in range(group_size):
            # Each response of a run carries its own copy: verl passes rows, not references.
            own = source.copy() if isinstance(source, Image.Image) else bytes(bytearray(source))
            thinking = " ".join(chooser.choice(WORDS) for _ in range(RESPONSE_WORDS))
            jobs.append(Job(f"<image>Which bar of chart {group} is the highest?", own, thinking))
    return jobs


async def score_all(client: ThinkingRewardClient, jobs: Sequence[Job]) -> tuple[float, list[ThinkingScore]]:
    """Score all jobs at once; return wall time in seconds and the scores."""
    started = time.perf_counter()
    scores = await asyncio.gather(*(client.score(job.question, [job.image], job.thinking) for job in jobs))
    return time.perf_counter() - started, scores


async def measure(url: str, concurrency: int, warm_up: Sequence[Job], runs: Sequence[Sequence[Job]]) -> Runs:
    """Time each run with one client, as a training process has one. Warming up opens its connections."""
    config = ClientSettings(urls=(url,), model="stand-in", max_concurrency=concurrency, structured_output="off")
    async with ThinkingRewardClient(config) as client:
        await score_all(client, warm_up)
        return [await score_all(client, jobs) for jobs in runs]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_client", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--groups", type=int, default=64)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--delay-s", type=float, default=0.05)
    parser.add_argument("--capacity", type=int, default=64)
    parser.add_argument(
        "--max-concurrency",
        type=int,
        default=128,
        help="of the client; above the capacity, so that the server always has a request waiting",
    )
    parser.add_argument("--images", choices=("png", "jpeg", "pil"), default="png", help="how the data set holds images")
    parser.add_argument("--runs", type=int, default=5, help="runs of the concurrent client; the median counts")
    parser.add_argument("--one-by-one", type=int, default=64, help="responses asked one at a time, then scaled up")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    batches = [
        make_jobs(range(run * given.groups, (run + 1) * given.groups), given.group_size, given.images)
        for run in range(given.runs + 1)
    ]
    warm_up, *measured = batches
    responses = given.groups * given.group_size
    bound = responses * given.delay_s / given.capacity
    with stand_in_process(given.delay_s, given.capacity) as url:
        runs = asyncio.run(measure(url, given.max_concurrency, warm_up, measured))
        sample = measured[0][: given.one_by_one]
        ((one_by_one, _),) = asyncio.run(measure(url, 1, warm_up[:1], [sample]))
    missing = sum(score.value is None for _, scores in runs for score in scores)
    walls = sorted(wall for wall, _ in runs)
    wall = walls[len(walls) // 2]
    serial = one_by_one / len(sample) * responses

    table = Table(title=f"{responses} responses, {given.groups} questions, {given.images} images, {missing} missing")
    for column in ("", "wall time, s", "x bound"):
        table.add_column(column, justify="right")
    rows = (
        ("server's bound", bound),
        ("client, median", wall),
        ("client, best", walls[0]),
        ("client, worst", walls[-1]),
        (f"one at a time (from {len(sample)})", serial),
    )
    for name, seconds in rows:
        table.add_row(name, f"{seconds:.3f}", f"{seconds / bound:.2f}")
    console = Console()
    console.print(table)
    console.print(f"{wall / bound:.2f} x the bound, {serial / wall:.1f} x faster than one at a time")


if __name__ == "__main__":
    main()
