"""What the order of the prompt is worth: prompt tokens that a real vLLM server computes, not served from its cache.

Scores groups of responses on a CPU server with a random tiny Qwen2.5-VL, whose tokenizer has learnt the prompt's words
so that it needs about as many tokens as a real one. Three orders of the same text:

- shared first: the package's prompt; rubric, images and question before the response;
- response before images: the rubric is still shared, images and question are not;
- response first: the response opens the user's message.

    python -m benchmarks.bench_prefix_cache
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.bench_client import make_image
from recipe.sophiavl.trm.client import ThinkingRewardClient
from recipe.sophiavl.trm.client_settings import ClientSettings
from recipe.sophiavl.trm.images import data_url, digest_image
from recipe.sophiavl.trm.prompt import DEFAULT_PROMPT, clean_question, load_template, prepare_prompt
from testbed.tiny_vl import build_tiny_vl
from testbed.vllm_server import VllmServer

RESPONSE_BLOCK = "===== BEGIN REASONING =====\n{thinking}\n===== END REASONING =====\n\n"
SHARED_BLOCK = "Images of the question:\n"
WORDS = (
    "the",
    "image",
    "shows",
    "a",
    "square",
    "circle",
    "triangle",
    "angle",
    "equals",
    "sum",
    "of",
    "both",
    "so",
    "answer",
)


@dataclass(frozen=True)
class Count:
    """Prompt tokens of one group: in all, and those that were computed."""

    prompt: int
    computed: int


def write_layouts(folder: Path) -> dict[str, str | None]:
    """Write the package's prompt in the other orders; return the file of each layout, None for the package's own."""
    data = yaml.safe_load(DEFAULT_PROMPT.read_text(encoding="utf-8"))
    user: str = data["user"]
    if RESPONSE_BLOCK not in user or SHARED_BLOCK not in user:
        raise RuntimeError(f"{DEFAULT_PROMPT} has changed: adapt the blocks that this benchmark moves")
    rest = user.replace(RESPONSE_BLOCK, "")
    orders = {
        "response before images": rest.replace(SHARED_BLOCK, RESPONSE_BLOCK + SHARED_BLOCK),
        "response first": RESPONSE_BLOCK + rest,
    }
    layouts: dict[str, str | None] = {"shared first": None}
    for name, text in orders.items():
        path = folder / f"{name.replace(' ', '_')}.yaml"
        path.write_text(yaml.safe_dump({**data, "user": text, "allow_response_first": True}), encoding="utf-8")
        layouts[name] = str(path)
    return layouts


async def score_groups(
    server: VllmServer, prompt_path: str | None, first: int, given: argparse.Namespace
) -> list[Count]:
    """Ask about groups number `first` and up: one group after another, its responses all at once."""
    counts: list[Count] = []
    template, chooser = load_template(prompt_path), random.Random(first)
    config = ClientSettings(urls=(server.url,), model=server.name)
    async with ThinkingRewardClient(config) as client:
        for group in range(first, first + given.groups + 1):
            question = clean_question(f"<image>{_words(chooser, given.question_words)} {group}?")
            prompt = prepare_prompt(template, question, [data_url(digest_image(make_image(group)))])
            responses = [_words(chooser, given.response_words) for _ in range(given.group_size)]
            asked = (client.ask(server.url, prompt.messages_json(response)) for response in responses)
            counts.append(_count([reply.usage for reply in await asyncio.gather(*asked)]))
    return counts[1:]  # the first group also computes the rubric, which all groups may share


def _words(chooser: random.Random, number: int) -> str:
    return " ".join(chooser.choice(WORDS) for _ in range(number))


def _count(usages: Sequence[Mapping[str, Any]]) -> Count:
    prompt = sum(usage["prompt_tokens"] for usage in usages)
    cached = sum(usage["prompt_tokens_details"]["cached_tokens"] for usage in usages)
    return Count(prompt, prompt - cached)


def show(results: dict[str, list[Count]], block_size: int) -> None:
    """Print tokens per group, and ours against the other layouts."""
    console = Console()
    console.print(f"Prompt tokens per group, vLLM on CPU, cache blocks of {block_size} tokens")
    table = Table("layout")
    for column in ("prompt", "computed", "of prompt", "shared first computes"):
        table.add_column(column, justify="right")
    computed = {name: statistics.mean(count.computed for count in counts) for name, counts in results.items()}
    ours = computed["shared first"]
    for name, counts in results.items():
        prompt = statistics.mean(count.prompt for count in counts)
        share, ratio = f"{computed[name] / prompt:.0%}", f"{ours / computed[name]:.2f} x"
        table.add_row(name, f"{prompt:.0f}", f"{computed[name]:.0f}", share, ratio)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_prefix_cache", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--question-words", type=int, default=60)
    parser.add_argument("--response-words", type=int, default=100)
    parser.add_argument("--image-tokens", type=int, default=324, help="324: a 512 x 512 image for Qwen2.5-VL")
    parser.add_argument("--block-size", type=int, default=16, help="of vLLM's prefix cache, in tokens")
    given = parser.parse_args()
    flags = (
        *("--enable-prefix-caching", "--enable-prompt-tokens-details", "--block-size", str(given.block_size)),
        *("--max-model-len", "8192", "--max-num-batched-tokens", "8192"),
    )
    text = DEFAULT_PROMPT.read_text(encoding="utf-8") + " ".join(WORDS)
    results: dict[str, list[Count]] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = build_tiny_vl(root / "model", max_image_tokens=given.image_tokens, vocabulary=2048, text=text)
        with VllmServer(model, root / "vllm.log", flags) as server:
            for number, (name, path) in enumerate(write_layouts(root).items()):
                # Other images and texts for each layout: none profits from what another left in the cache.
                results[name] = asyncio.run(score_groups(server, path, 1000 * number, given))
    show(results, given.block_size)


if __name__ == "__main__":
    main()
