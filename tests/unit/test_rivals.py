"""Advantages of the rivals: worked by hand, against slow plain references, and through verl's own GRPO and GDPO."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from statistics import fmean, mean, stdev
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transfer_queue import KVBatchMeta
from verl import DataProto
from verl.trainer.ppo.core_algos import compute_gdpo_outcome_advantage
from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories

from recipe.sophiavl.rivals import EPSILON
from recipe.sophiavl.trainer import TrustGRPOMixin, _dump_row, final_outputs
from recipe.sophiavl.trust_grpo import GroupRewards, MissingThinkingRewardError, TrustGRPOConfig, combine_rewards
from recipe.sophiavl.verl_support import internals

NAN = float("nan")
RIVALS = ("gdpo", "process_aware")

# ---- the slow references, straight from the papers -------------------------------------------------------------------


def normalised(values: Sequence[float], members: Sequence[int]) -> dict[int, float]:
    """(r - mean) / (std + eps) over the members, the mean without rounding; a set of one has no deviation."""
    if len(members) < 2:
        return dict.fromkeys(members, 0.0)
    picked = {i: Fraction(values[i]) for i in members}
    return {i: float(picked[i] - mean(picked.values())) / (stdev(picked.values()) + EPSILON) for i in members}


def advantages(outcome, thinking, groups, formatted, weight: float, config: TrustGRPOConfig) -> list[float]:
    """One group after another; GDPO's mean over the batch is subtracted, as in its paper."""
    if config.min_outcome is not None:
        thinking = [0.0 if o < config.min_outcome else t for o, t in zip(outcome, thinking, strict=True)]
    members = defaultdict(list)
    for i, name in enumerate(groups):
        members[name].append(i)
    total = [0.0] * len(outcome)
    for group in members.values():
        right = [i for i in group if outcome[i] >= config.correct_threshold]
        judged = group if config.combine == "gdpo" else right
        judged = [i for i in judged if not math.isnan(thinking[i])]
        if not config.unformatted_in_means:
            judged = [i for i in judged if formatted[i]]
        if config.on_missing == "drop_group" and any(math.isnan(thinking[i]) for i in group):
            judged = []
        if config.uniform_groups == "outcome_only" and len(right) in (0, len(group)):
            judged = []
        for i, value in normalised(outcome, group).items():
            total[i] += value
        for i, value in normalised(thinking, judged).items():
            total[i] += weight * value
    if config.combine == "gdpo":
        spread = stdev(total) if len(total) > 1 else 0.0
        total = [(value - fmean(total)) / (spread + EPSILON) for value in total]
    return total


# ---- batches ---------------------------------------------------------------------------------------------------------

outcomes = st.sampled_from([0.0, 0.37, 0.5, 1.0])
scores = st.one_of(st.just(NAN), st.sampled_from([0.0, 0.3, 1.0]), st.floats(0, 1, width=16))
responses = st.tuples(outcomes, scores, st.sampled_from("abcd"), st.booleans())
batches = st.lists(responses, max_size=24)
configs = st.builds(
    TrustGRPOConfig,
    combine=st.sampled_from(RIVALS),
    alpha=st.sampled_from([0.0, 0.3, 1.0]),
    schedule=st.sampled_from(["constant", "exponential"]),
    uniform_groups=st.sampled_from(["keep", "outcome_only"]),
    on_missing=st.sampled_from(["drop_group", "drop_response"]),
    unformatted_in_means=st.booleans(),
    min_outcome=st.sampled_from([None, 0.2]),
)


def combine(outcome, thinking, groups, *, formatted=None, step: float = 0, **changes: Any) -> GroupRewards:
    config = changes.pop("config", None) or TrustGRPOConfig(**changes)
    return combine_rewards(outcome, thinking, groups, step=step, total_steps=10, config=config, formatted=formatted)


def sums(values: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    return np.bincount(group, weights=values)


@settings(deadline=None)  # on a busy machine
@given(batches, configs)
def test_both_are_what_their_formulas_say_and_sum_to_0_over_every_group(batch, config) -> None:
    outcome, thinking, groups, formatted = ([row[k] for row in batch] for k in range(4))
    groups = np.array(groups, dtype=str)
    with np.errstate(divide="raise", invalid="raise", over="raise"):
        result = combine(outcome, thinking, groups, formatted=formatted, step=5, config=config)
    weight = config.alpha * (math.exp(-0.5) if config.schedule == "exponential" else 1.0)
    expected = advantages(outcome, thinking, groups.tolist(), formatted, weight, config)
    assert result.reward == pytest.approx(expected, abs=1e-6)
    assert sums(result.reward, groups) == pytest.approx(0.0, abs=1e-9)
    parts = result.advantages
    assert parts.weight == weight
    assert result.reward == pytest.approx((parts.outcome + parts.weight * parts.thinking) / parts.scale, abs=1e-12)
    assert all(np.isnan(values).all() for values in (result.gamma, result.mu_correct, result.mu_wrong))


@settings(deadline=None)  # on a busy machine
@given(batches, configs)
def test_the_mean_over_the_batch_that_gdpo_subtracts_is_0(batch, config) -> None:
    outcome, thinking, groups, formatted = ([row[k] for row in batch] for k in range(4))
    reward = combine(outcome, thinking, np.array(groups, dtype=str), formatted=formatted, config=config).reward
    assert reward.size == 0 or abs(reward.mean()) < 1e-12


# ---- by hand ---------------------------------------------------------------------------------------------------------

ROOT = math.sqrt(3 / 4)  # two of four: deviations of 1/2, sample standard deviation sqrt(1/3)


def test_gdpo_by_hand() -> None:
    """Group a differs in outcome and thinking alike, b in thinking alone."""
    result = combine([1, 1, 0, 0, 1, 1], [0.8, 0.8, 0.2, 0.2, 0.4, 0.6], [*"aaaabb"], combine="gdpo", alpha=0.5)
    assert result.advantages.outcome == pytest.approx([ROOT, ROOT, -ROOT, -ROOT, 0, 0], rel=1e-5)
    assert result.advantages.thinking == pytest.approx(
        [ROOT, ROOT, -ROOT, -ROOT, -math.sqrt(0.5), math.sqrt(0.5)], rel=2e-5
    )
    total = np.array([1.5 * ROOT] * 2 + [-1.5 * ROOT] * 2 + [-0.5 * math.sqrt(0.5), 0.5 * math.sqrt(0.5)])
    assert result.reward == pytest.approx(total / total.std(ddof=1), rel=2e-5)
    assert result.reward.std(ddof=1) == pytest.approx(1)


def test_process_aware_by_hand() -> None:
    """A wrong response gets nothing from its thinking, however well it is thought of."""
    result = combine([1, 1, 0, 0], [0.2, 0.4, 0.9, 0.1], [*"aaaa"], combine="process_aware", alpha=0.5)
    assert result.advantages.thinking == pytest.approx([-math.sqrt(0.5), math.sqrt(0.5), 0, 0], rel=2e-5)
    assert result.reward == pytest.approx(
        [ROOT - 0.5 * math.sqrt(0.5), ROOT + 0.5 * math.sqrt(0.5), -ROOT, -ROOT], rel=1e-5
    )
    assert result.advantages.scale == 1


@pytest.mark.parametrize("rival", RIVALS)
@pytest.mark.parametrize(
    ("outcome", "thinking"),
    [
        pytest.param([1.0], [0.7], id="a group of one"),
        pytest.param([0.0], [NAN], id="a group of one without a score"),
        pytest.param([1.0] * 3, [0.3] * 3, id="all right, scores all equal"),
        pytest.param([0.0] * 7, [0.1] * 7, id="all wrong, scores all equal"),
        pytest.param([1.0] * 3, [NAN] * 3, id="no score"),
        pytest.param([0.37] * 3, [NAN, 0.1, 0.9], id="a score missing"),
        pytest.param([], [], id="nothing"),
    ],
)
def test_what_has_no_difference_has_an_advantage_of_exactly_0(rival, outcome, thinking) -> None:
    """In a batch beside a group that has one, too: GDPO's standard deviation makes no rounding large."""
    alone = combine(outcome, thinking, ["a"] * len(outcome), combine=rival)
    assert not alone.reward.any()
    beside = combine([*outcome, 1.0, 0.0], [*thinking, 0.5, 0.6], [*["a"] * len(outcome), "b", "b"], combine=rival)
    assert not beside.reward[:-2].any()
    assert beside.reward[-2] == -beside.reward[-1] > 0


def test_uniform_groups_differ_by_their_thinking_alone() -> None:
    thinking = [0.1, 0.5, 0.9]
    for outcome in (1.0, 0.0):
        assert np.diff(combine([outcome] * 3, thinking, ["a"] * 3, combine="gdpo").reward).min() > 0
    assert np.diff(combine([1.0] * 3, thinking, ["a"] * 3, combine="process_aware").reward).min() > 0
    assert not combine([0.0] * 3, thinking, ["a"] * 3, combine="process_aware").reward.any(), "no one is right"
    for rival in RIVALS:
        assert not combine([1.0] * 3, thinking, ["a"] * 3, combine=rival, uniform_groups="outcome_only").reward.any()


def test_one_right_response_has_no_other_to_be_compared_with() -> None:
    result = combine([1, 0, 0], [0.1, 0.9, 0.5], ["a"] * 3, combine="process_aware")
    assert not result.advantages.thinking.any()
    assert result.reward[0] > 0


@pytest.mark.parametrize("rival", RIVALS)
def test_a_missing_score_costs_what_on_missing_says(rival) -> None:
    batch = ([1.0, 1.0, 1.0, 0.0], [0.2, 0.6, NAN, 0.4], ["a"] * 4)
    group = combine(*batch, combine=rival)
    assert not group.advantages.thinking.any()
    assert group.advantages.outcome.all()
    assert not group.used.any()
    response = combine(*batch, combine=rival, on_missing="drop_response")
    assert response.advantages.thinking[2] == 0
    assert response.advantages.thinking[1] > 0 > response.advantages.thinking[0]
    assert response.used.tolist() == [True, True, False, True]
    with pytest.raises(MissingThinkingRewardError, match="1 of 4 responses"):
        combine(*batch, combine=rival, on_missing="raise")


def test_without_the_format_thinking_counts_as_0_or_not_at_all() -> None:
    batch = ([1.0, 1.0, 0.0], [0.4, 0.6, 0.0], ["a"] * 3)
    formatted = [True, True, False]
    outside = combine(*batch, formatted=formatted, combine="gdpo")
    assert outside.advantages.thinking == pytest.approx([-math.sqrt(0.5), math.sqrt(0.5), 0], rel=2e-5)
    inside = combine(*batch, formatted=formatted, combine="gdpo", unformatted_in_means=True)
    assert inside.advantages.thinking[2] < 0 < inside.advantages.thinking[0]


def test_the_weight_is_alpha_annealed() -> None:
    batch = ([1.0, 1.0, 0.0], [0.4, 0.6, 0.1], ["a"] * 3)
    annealed = combine(*batch, step=10, combine="process_aware", alpha=0.3)
    assert annealed.advantages.weight == pytest.approx(0.3 * math.exp(-1))
    gone = combine(*batch, step=10, combine="process_aware", schedule="linear")
    assert np.array_equal(gone.reward, gone.advantages.outcome)


def test_who_is_right_follows_the_thresholds_by_type() -> None:
    config = TrustGRPOConfig(combine="process_aware", correct_threshold_by_type={"ocr": 0.9})
    result = combine_rewards(
        *([0.6, 0.95, 1.0, 0.0], [0.1, 0.2, 0.8, 0.5], ["a"] * 4),
        **{"step": 0, "total_steps": 1, "config": config, "problem_types": ["OCR"] * 4},
    )
    assert np.flatnonzero(result.advantages.thinking).tolist() == [1, 2]


@pytest.mark.parametrize("rival", RIVALS)
def test_a_million_responses(rival) -> None:
    rng = np.random.default_rng(0)
    outcome, thinking = rng.integers(0, 2, 10**6).astype(float), rng.random(10**6)
    thinking[rng.random(10**6) < 0.01] = NAN
    group = rng.permutation(10**6) // 8
    result = combine(outcome, thinking, group, combine=rival)
    assert np.isfinite(result.reward).all()
    assert np.abs(np.bincount(group, weights=result.reward)).max() < 1e-12
    if rival == "gdpo":
        assert result.reward.std(ddof=1) == pytest.approx(1, abs=1e-5)


# ---- verl ------------------------------------------------------------------------------------------------------------


def through_verl(rewards: GroupRewards, groups: Sequence[str], *, norm_by_std: bool, outputs: int = 1) -> np.ndarray:
    """What verl makes of the rewards that the trainer writes.

    Args:
        outputs: of each session; the last one counts, and all get its advantage.

    Returns:
        The advantage of each output, shape (B, outputs).
    """
    keys = [f"{group}_{session}_{output}" for session, group in enumerate(groups) for output in range(outputs)]
    lengths = np.random.default_rng(0).integers(1, 6, len(keys))
    masks = torch.nested.as_nested_tensor([torch.ones(length) for length in lengths.tolist()], layout=torch.jagged)
    batch = KVBatchMeta(keys=keys, tags=[{} for _ in keys], partition_id="train")
    with pytest.MonkeyPatch.context() as patch:
        written: dict[str, torch.Tensor] = {}
        patch.setattr(internals, "read_fields", lambda batch, keys, fields: {"response_mask": masks})
        patch.setattr(internals, "write_fields", lambda batch, keys, fields: written.update(fields))
        object.__new__(TrustGRPOMixin)._write_rewards(batch, final_outputs(batch), rewards)
    scores, mask = written["rm_scores"].to_padded_tensor(0.0), masks.to_padded_tensor(0.0)
    uids = np.array([key.rsplit("_", 2)[0] for key in keys], dtype=object)
    data = DataProto.from_dict({"token_level_rewards": scores, "response_mask": mask}, non_tensors={"uid": uids})
    settings = {"norm_adv_by_std_in_grpo": norm_by_std, "config": None}
    found = compute_advantage_for_multi_trajectories(data, keys, "grpo", **settings).batch["advantages"]
    assert torch.equal(found, found[:, :1] * mask)
    return found[:, 0].numpy().reshape(len(groups), outputs)


def batch_of(size: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Groups of uneven sizes, one of one response, with missing scores."""
    rng = np.random.default_rng(seed)
    outcome, thinking = rng.integers(0, 2, size).astype(float), np.round(rng.random(size), 1)
    thinking[rng.random(size) < 0.05] = NAN
    return outcome, thinking, ["alone", *(f"uid-{i}" for i in rng.integers(0, size // 8, size - 1))]


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("rival", RIVALS)
def test_verls_stock_grpo_passes_the_rewards_through(rival, outputs) -> None:
    *batch, groups = batch_of(128)
    rewards = combine(*batch, groups, combine=rival, on_missing="drop_response")
    found = through_verl(rewards, groups, norm_by_std=False, outputs=outputs)
    assert found == pytest.approx(np.repeat(rewards.reward[:, None], outputs, axis=1), abs=1e-6)
    assert np.abs(rewards.reward).max() > 1, "else the comparison says little"


@pytest.mark.parametrize("rival", RIVALS)
def test_with_the_standard_deviation_verl_would_change_them(rival) -> None:
    """Hence `checks` refuses it."""
    *batch, groups = batch_of(128)
    rewards = combine(*batch, groups, combine=rival, on_missing="drop_response")
    assert np.abs(through_verl(rewards, groups, norm_by_std=True)[:, 0] - rewards.reward).max() > 0.1


def test_gdpo_is_verls_own_where_each_response_has_one_token() -> None:
    """verl's weighs responses by their tokens in the batch; of one token each, they count alike."""
    rng = np.random.default_rng(2)
    outcome, thinking = rng.integers(0, 2, 64).astype(float), rng.random(64)
    groups = np.repeat([f"uid-{i}" for i in range(8)], 8)
    mask = torch.ones(64, 1)
    theirs, _ = compute_gdpo_outcome_advantage(
        torch.zeros(64, 1),
        mask,
        groups,
        config={"gdpo_reward_keys": ["outcome", "thinking"], "gdpo_reward_weights": [1.0, 0.3]},
        non_tensor_batch={"outcome": outcome, "thinking": thinking},
        batch={"prompts": torch.zeros(64, 2), "attention_mask": torch.ones(64, 3, dtype=torch.long)},
    )
    ours = combine(outcome, thinking, groups, combine="gdpo", alpha=0.3, unformatted_in_means=True).reward
    assert ours == pytest.approx(theirs[:, 0].numpy(), abs=1e-4)


# ---- the dump --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rival", RIVALS)
def test_a_dumped_row_holds_what_its_reward_consists_of(rival) -> None:
    outcome, thinking, groups = batch_of(64)
    rewards = combine(outcome, thinking, groups, step=3, combine=rival)
    for i in range(64):
        row = orjson.loads(orjson.dumps(_dump_row({"outcome_reward": float(outcome[i])}, rewards, i)))
        total = row["outcome_advantage"] + row["thinking_weight"] * row["thinking_advantage"]
        assert rewards.reward[i] == pytest.approx(total / row["advantage_scale"], abs=1e-12)
        assert [row[name] for name in ("gamma", "mu_correct", "mu_wrong")] == [None] * 3
        assert row["thinking_used"] == bool(rewards.used[i])


def test_the_dump_of_trust_grpo_names_no_advantage() -> None:
    rewards = combine([1.0, 0.0], [0.5, 0.4], ["a", "a"])
    assert rewards.advantages is None
    assert not [name for name in _dump_row({}, rewards, 0) if "advantage" in name]
