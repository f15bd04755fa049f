"""Ray actors of `bench_reward_path`: a rollout worker that has its responses ready, and watched reward workers."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import transfer_queue as tq
from omegaconf import DictConfig
from PIL import Image
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput
from verl.experimental.reward_loop.reward_loop import RewardLoopWorker

from recipe.sophiavl.trm.client import ThinkingScore
from recipe.sophiavl.trm.client_settings import ClientSettings
from recipe.sophiavl.trm.parse import find_score
from recipe.sophiavl.trm.prompt import build_messages, clean_question, clean_thinking, load_template
from recipe.sophiavl.verl_support import internals

# An image of 1 megapixel is 1,300 tokens; what they are does not matter on this path.
PROMPT_TOKENS = 1400
_PROBE_S = 0.002
_AgentLoopWorker = internals.find(
    "verl.trainer.ppo.v1.agent_loop_tq", "AgentLoopWorkerTQ.__ray_metadata__.modified_class"
)


@dataclass(frozen=True)
class Watched:
    """What a reward worker went through.

    Attributes:
        peak_bytes: most resident memory, shared pages included.
        grown_bytes: of it, what was not there before.
        longest_stall_s: longest time, in seconds, for which its event loop did not come to anything else.
    """

    peak_bytes: int
    grown_bytes: int
    longest_stall_s: float


class Rollout(_AgentLoopWorker):
    """verl's agent loop worker without a model: it makes no response, and hands on those it was given.

    Args:
        config: of the run.
        reward_workers: handles of the reward workers.
        responses: token ids, int64 (questions x responses of each, tokens), a question's next to each other.
    """

    def __init__(self, config: DictConfig, reward_workers: Sequence[Any], responses: np.ndarray) -> None:
        tq.init()
        self.config = config
        self.reward_loop_worker_handles = list(reward_workers)
        self.processor, self.mm_processor_kwargs, self.distillation_enabled = None, {}, False
        self.background_tasks: set[asyncio.Task[None]] = set()
        self._responses = responses

    async def pid(self) -> int:
        """This process."""
        return os.getpid()

    async def hand_to(self, reward_workers: Sequence[Any]) -> None:
        """From now on, responses go to these reward workers."""
        self.reward_loop_worker_handles = list(reward_workers)

    async def _run_agent_loop(self, sampling_params: Any, trajectory: dict[str, Any], **kwargs: Any) -> None:
        for name in ("trace", "agent_name"):
            del kwargs[name]
        number = kwargs["index"] * self.config.actor_rollout_ref.rollout.n + kwargs["session_id"]
        ids = self._responses[number].tolist()
        output = AgentLoopOutput(
            prompt_ids=[0] * PROMPT_TOKENS,
            response_ids=ids,
            response_mask=[1] * len(ids),
            response_logprobs=[0.0] * len(ids),
            num_turns=2,
            metrics=AgentLoopMetrics(),
            extra_fields={},
        )
        await self._agent_loop_postprocess(output, trajectory["validate"], **kwargs)


class RewardWorker(RewardLoopWorker):
    """verl's reward worker, whose memory and event loop can be watched."""

    async def pid(self) -> int:
        """This process."""
        return os.getpid()

    async def ask_as_published(self) -> None:
        """From now on, ask for the thinking reward as the published code does."""
        self.reward_manager._client = OneAtATime(self.reward_manager.settings.client_settings())

    async def watch(self) -> None:
        """Begin to watch."""
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        self._before = psutil.Process().memory_info().rss
        self._longest = 0.0
        self._probe = asyncio.create_task(self._probe_loop())

    async def watched(self) -> Watched:
        """What was seen since `watch`."""
        self._probe.cancel()
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        peak = int(status["VmHWM"].split()[0]) * 1024
        return Watched(peak, peak - self._before, self._longest)

    async def _probe_loop(self) -> None:
        while True:
            started = time.monotonic()
            await asyncio.sleep(_PROBE_S)
            self._longest = max(self._longest, time.monotonic() - started - _PROBE_S)


class OneAtATime:
    """A client that encodes the image for every request, and does nothing else until its reply is there."""

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings
        self._template = load_template(settings.prompt_path)

    async def score(self, question: str, images: Sequence[bytes], thinking: str) -> ThinkingScore:
        """A drop-in for `ThinkingRewardClient.score`; blocks the event loop."""
        started = time.monotonic()
        urls = [f"data:image/png;base64,{base64.b64encode(_as_png(_pixels(image))).decode()}" for image in images]
        cleaned = clean_thinking(self._template, thinking, self._settings.max_thinking_chars)
        messages = build_messages(self._template, clean_question(question), urls, cleaned)
        body = json.dumps({"model": self._settings.model, "messages": messages, "temperature": 0.0}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self._settings.urls[0]}/chat/completions", body, headers)
        with urllib.request.urlopen(request, timeout=self._settings.timeout_s) as response:
            text = json.load(response)["choices"][0]["message"]["content"]
        return ThinkingScore(find_score(text).value, None, time.monotonic() - started, attempts=1)


@lru_cache
def _pixels(encoded: bytes) -> Image.Image:
    """Decoded once, as the published code's data set does."""
    image = Image.open(io.BytesIO(encoded))
    image.load()
    return image


def _as_png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
