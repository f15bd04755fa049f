"""``ThinkingRewardManager``: the reward of SophiaVL-R1 in two stages (docs/architecture.md).

``run_single`` scores one response as soon as it is generated, in a reward worker: verl sends every response to a
random worker, so a group never meets there. ``weigh_groups`` sees whole groups, in the trainer, where the global
step is known.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from verl import DataProto
from verl.experimental.reward_loop.reward_manager import register
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

from recipe.sophiavl.settings import REWARD_MANAGER_NAME, ThinkingRewardSettings
from recipe.sophiavl.trm.client import ThinkingRewardClient
from recipe.sophiavl.trm.questions import question_text
from recipe.sophiavl.trust_grpo import GroupRewards, combine_rewards
from reward_score import OutcomeScore, extract_thinking, score_outcome

logger = logging.getLogger(__name__)

# Field that rl_dataset.py adds to each row, since verl does not tell a reward manager what a sample is for.
VALIDATION_FIELD = "is_validation"

# Threads for decoding and rule-based scoring; the event loop serves up to 1000 responses at once.
_SCORING_THREADS = 8


@register(REWARD_MANAGER_NAME)
class ThinkingRewardManager(RewardManagerBase):
    """Outcome reward by rules, thinking reward by a reward model, trust and annealing by group.

    Args:
        config: verl's whole configuration, with the group ``thinking_reward``.
        tokenizer: the policy's tokenizer.
        compute_score: unused; the outcome reward is ``reward_score.score_outcome``.
        reward_router_address: ``host:port,host:port`` of the replicas, where verl hosts the reward model.
        reward_model_tokenizer: unused; the TRM is asked over its chat endpoint.
    """

    def __init__(
        self,
        config: Any,
        tokenizer: Any,
        compute_score: Any,
        reward_router_address: str | None = None,
        reward_model_tokenizer: Any = None,
    ) -> None:
        super().__init__(config, tokenizer, compute_score)
        self.settings = ThinkingRewardSettings.from_config(config.thinking_reward)
        self._threads = ThreadPoolExecutor(_SCORING_THREADS, thread_name_prefix="outcome")
        self._client: ThinkingRewardClient | None = None
        if self.settings.enable:
            hosted = config.reward.reward_model.model_path
            self._client = ThinkingRewardClient(self.settings.client_settings(reward_router_address, hosted))

    async def close(self) -> None:
        """Close the connections to the reward model and end the threads."""
        self._threads.shutdown(wait=False)
        if self._client is not None:
            await self._client.close()

    async def run_single(self, data: DataProto) -> dict[str, Any]:
        """Score one response.

        Args:
            data: the outputs of one trajectory, batch size >= 1; the last one is the response. Needs the tensors
                ``responses`` (int64, right-padded) and ``attention_mask``, and the fields ``extra_info``,
                ``reward_model``, ``raw_prompt`` and ``is_validation``.

        Returns:
            ``reward_score`` (the outcome reward, in [0, 1]) and ``reward_extra_info``, with the same keys on any path:
            ``outcome_reward``, ``format_ok``, ``answer``, ``problem_type``, ``thinking_reward`` (None = missing or not
            asked), ``thinking_asked``, ``thinking_error`` ("" = none), ``thinking_latency_s`` (seconds),
            ``thinking_requests`` (sent for it) and ``thinking_cached`` (an identical response had been scored).

        Raises:
            ValueError: the row has an unknown problem type or an empty truth.
        """
        item = data[len(data) - 1]
        extra_info = item.non_tensor_batch["extra_info"]
        response = await self._in_thread(self._decode, item)
        outcome: OutcomeScore = await self._in_thread(
            score_outcome,
            extra_info["problem_type"],
            response,
            item.non_tensor_batch["reward_model"]["ground_truth"],
            options=extra_info.get("options"),
            settings=self.settings.outcome,
        )
        thinking = await self._thinking_fields(item, response, outcome)
        return {
            "reward_score": outcome.reward,
            "reward_extra_info": {
                "outcome_reward": outcome.reward,
                "format_ok": outcome.format_ok,
                "answer": outcome.answer,
                "problem_type": extra_info["problem_type"],
                **thinking,
            },
        }

    async def _thinking_fields(self, item: DataProto, response: str, outcome: OutcomeScore) -> dict[str, Any]:
        """The ``thinking_*`` fields of ``reward_extra_info``."""
        fields = {
            "thinking_reward": None,
            "thinking_asked": False,
            "thinking_error": "",
            "thinking_latency_s": None,
            "thinking_requests": 0,
            "thinking_cached": False,
        }
        validation = bool(item.non_tensor_batch[VALIDATION_FIELD])
        if self._client is None or (validation and not self.settings.score_validation):
            return fields
        min_outcome = self.settings.trust.min_outcome
        thinking = extract_thinking(response) if outcome.format_ok else None
        # Without the format there is no thinking to judge: 0 by rule, as the outcome.
        if thinking is None or (min_outcome is not None and outcome.reward < min_outcome):
            return {**fields, "thinking_reward": 0.0}
        images = prompt_images(item.non_tensor_batch["raw_prompt"])
        question = question_text(item.non_tensor_batch["extra_info"])
        score = await self._client.score(question, images, thinking)
        if score.value is None:
            logger.warning("no thinking reward: %s (after %d attempts)", score.error, score.attempts)
        return {
            "thinking_reward": score.value,
            "thinking_asked": True,
            "thinking_error": score.error or "",
            "thinking_latency_s": score.latency_s,
            "thinking_requests": score.attempts,
            "thinking_cached": score.cached,
        }

    def _decode(self, item: DataProto) -> str:
        responses = item.batch["responses"]
        length = item.non_tensor_batch.get("response_len")
        if length is None:  # the colocated path passes one padded batch without lengths
            length = int(item.batch["attention_mask"][-responses.shape[-1] :].sum())
        return self.tokenizer.decode(responses[:length], skip_special_tokens=True)

    async def _in_thread(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(function, *args, **kwargs))

    @staticmethod
    def weigh_groups(
        components: Sequence[Mapping[str, Any]],
        groups: Sequence[str],
        *,
        step: int,
        total_steps: int,
        settings: ThinkingRewardSettings,
    ) -> GroupRewards:
        """Eq. 3 to 5 for whole groups, or what ``combine`` puts in their place.

        Args:
            components: ``reward_extra_info`` of each response, as ``run_single`` made it; length B.
            groups: the group (question uid) of each response; length B.
            step: the global training step, from 1.
            total_steps: number of training steps of the run.
            settings: with ``enable`` False the thinking term is dropped for every response.

        Returns:
            Arrays of length B; ``reward`` is Eq. 5, or the advantage.

        Raises:
            MissingThinkingRewardError: a score is missing and ``on_missing`` is ``raise``.
        """
        outcome = np.array([component["outcome_reward"] for component in components], dtype=np.float64)
        if not settings.enable:
            blank = np.full(len(outcome), np.nan)
            return GroupRewards(
                reward=outcome,
                gamma=np.ones(len(outcome)),
                mu_correct=blank,
                mu_wrong=blank.copy(),
                used=np.zeros(len(outcome), dtype=bool),
            )
        thinking = np.array([component["thinking_reward"] for component in components], dtype=np.float64)  # None -> NaN
        return combine_rewards(
            outcome,
            thinking,
            np.asarray(groups),
            step=step,
            total_steps=total_steps,
            config=settings.trust,
            formatted=[component["format_ok"] for component in components],
            problem_types=[component["problem_type"] for component in components],
        )


def prompt_images(raw_prompt: Sequence[Mapping[str, Any]]) -> list[Any]:
    """All images of a prompt, in order: the dataset's own encoded bytes where the row holds them, else what it holds.

    Args:
        raw_prompt: chat messages as ``rl_dataset.SophiaVLDataset`` builds them, with image parts
            ``{"type": "image", "image": PIL image or path, "bytes": ...}``.
    """
    images = []
    for message in raw_prompt:
        if isinstance(message["content"], str):
            continue
        for part in message["content"]:
            if part["type"] == "image":
                images.append(part.get("bytes") or part["image"])
    return images
