"""How validations sample, and what is measured of them."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from tensordict import NonTensorData, NonTensorStack, TensorDict

from recipe.sophiavl.settings import EngineSettings
from recipe.sophiavl.validation import SettingsError
from recipe.sophiavl.validation_modes import sampling, validation_metrics
from recipe.sophiavl.verl_support import internals

ROLLOUT = {
    **{"temperature": 0.9, "top_p": 0.8, "top_k": 7, "calculate_log_probs": False},
    "agent": {"default_agent_loop": "single_turn_agent"},
    "val_kwargs": {"temperature": 0.3, "top_p": 0.7, "top_k": 5, "n": 2},
}


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("as_configured", {"temperature": 0.3, "top_p": 0.7, "top_k": 5, "n": 2}),
        ("sampled", {"temperature": 0.9, "top_p": 0.8, "top_k": 7, "n": 2}),
        ("greedy", {"temperature": 0, "top_p": 1.0, "top_k": -1, "n": 1}),
    ],
)
def test_each_way_reaches_the_requests_of_verls_own_worker(
    mode: str, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, verl's worker takes the sampling of a validation from somewhere else than its configuration."""
    values = sampling(mode, ROLLOUT)
    assert values == expected
    asked: list[tuple[dict[str, Any], int]] = []

    async def run_agent_loop(params: dict[str, Any], **named: Any) -> None:
        asked.append((params, named["session_id"]))

    async def put(**named: Any) -> None:
        pass

    monkeypatch.setattr("transfer_queue.async_kv_put", put)
    worker_class = internals.find("verl.trainer.ppo.v1", "AgentLoopWorkerTQ.__ray_metadata__.modified_class")
    worker = object.__new__(worker_class)
    worker.config = OmegaConf.create({"actor_rollout_ref": {"rollout": ROLLOUT}})
    OmegaConf.set_struct(worker.config, True)
    worker.background_tasks = set()
    worker._run_agent_loop = run_agent_loop
    internals._update_worker(worker, values)

    async def generate() -> None:
        rows = {"uid": NonTensorStack("a"), "index": NonTensorStack(0)}
        batch = TensorDict(rows | {"validate": NonTensorData(True), "global_steps": NonTensorData(0)}, batch_size=[1])
        await worker.generate_sequences(batch)
        await asyncio.gather(*worker.background_tasks)

    asyncio.run(generate())
    assert [session for _, session in asked] == list(range(expected["n"]))
    for params, _ in asked:
        assert {name: params[name] for name in ("temperature", "top_p", "top_k")} == {
            name: value for name, value in expected.items() if name != "n"
        }


def test_the_responses_to_a_question_are_one_sample() -> None:
    """Four responses to each of three questions, all alike: three samples and not twelve."""
    infos = {"outcome_reward": [1.0] * 4 + [0.0] * 4 + [1.0] * 4, "problem_type": ["OCR"] * 12}
    metrics = validation_metrics("sampled", [*"aaaabbbbcccc"], infos)
    assert metrics == {
        "validation/sampled/questions": 3,
        "validation/sampled/outcome_reward/mean": pytest.approx(2 / 3),
        "validation/sampled/outcome_reward/stderr": pytest.approx(np.std([1, 0, 1], ddof=1) / math.sqrt(3)),
    }


def test_questions_weigh_the_same_whatever_their_number_of_responses() -> None:
    infos = {"outcome_reward": [1.0, 0.0, 0.0, 0.0], "problem_type": ["OCR"] * 4}
    assert validation_metrics("m", [*"abbb"], infos)["validation/m/outcome_reward/mean"] == 0.5


def test_types_have_their_own_means_where_several_are_mixed() -> None:
    infos = {
        "outcome_reward": [1.0, 0.0, 1.0],
        "format_ok": [True, True, False],
        "thinking_reward": [0.5, None, 0.9],
        "problem_type": ["numerical", "Numerical", "multiple choice"],
    }
    metrics = validation_metrics("greedy", [*"abc"], infos)
    assert metrics["validation/greedy/outcome_reward/numerical/mean"] == 0.5
    assert metrics["validation/greedy/outcome_reward/numerical/stderr"] == pytest.approx(0.5)
    assert metrics["validation/greedy/outcome_reward/multiple_choice/mean"] == 1.0
    assert "validation/greedy/outcome_reward/multiple_choice/stderr" not in metrics, "of one question there is none"
    assert metrics["validation/greedy/thinking_reward/mean"] == pytest.approx(0.7)
    assert metrics["validation/greedy/thinking_reward/numerical/mean"] == 0.5
    assert metrics["validation/greedy/format_ok/mean"] == pytest.approx(2 / 3)
    assert all(type(value) is float and math.isfinite(value) for value in metrics.values())


def test_what_was_not_measured_is_left_out() -> None:
    infos = {"outcome_reward": [1.0, 0.0], "thinking_reward": [None, None], "problem_type": ["OCR", "OCR"]}
    assert not any("thinking" in name for name in validation_metrics("m", [*"ab"], infos))


def test_the_setting_names_known_ways_each_once() -> None:
    given = OmegaConf.create({"validation_modes": ["sampled", "greedy"]})
    assert EngineSettings.from_config(given).validation_modes == ["sampled", "greedy"]
    assert EngineSettings().validation_modes == ["as_configured"]
    for wrong in ([], ["greedy", "greedy"], ["beam"], "greedy"):
        with pytest.raises(SettingsError, match=r"sophiavl\.validation_modes"):
            EngineSettings(validation_modes=wrong)
