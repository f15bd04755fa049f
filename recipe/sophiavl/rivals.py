"""Two rivals of Trust-GRPO for combining outcome and thinking rewards, as advantages: pure maths on NumPy arrays.

For one question with a group of responses, outcome rewards ``Ro`` and thinking rewards ``Rt`` in [0, 1], the weight
``w = alpha * annealing`` of Eq. 4 and 5, and over a set ``S`` of responses of the group

    N_S(r)_i = (r_i - mean_S(r)) / (std_S(r) + eps)  for i in S,  0 for any other response

``gdpo`` is GDPO (arXiv 2601.05242, section 3): every reward normalised within its group, weighted sum, normalised over
the batch; ``process_aware`` is PAPO (arXiv 2603.26535): the process reward normalised among the correct responses only:

    gdpo:           A_i = N_group(Ro)_i + w * N_group(Rt)_i,      R_i = A_i / (std_batch(A) + eps)
    process_aware:  R_i = N_group(Ro)_i + w * N_correct(Rt)_i,    correct = {i : Ro_i >= threshold}

GDPO also subtracts the mean of A over the batch. It is 0, since each N sums to 0 over its group, and is not subtracted:
its rounding would move groups without any difference off 0. So R sums to 0 over every group, GRPO without the standard
deviation (``algorithm.norm_adv_by_std_in_grpo=false``) subtracts a mean of 0, and R is the advantage.

What the papers leave open, and is decided here:

- ``std`` is that of the sample (divisor n - 1), ``eps`` is 1e-6, both as in verl's GRPO and GDPO (TRL adds 1e-4).
- A set of one, or one whose rewards are all equal, gives 0.
- GDPO's batch is the training step, and each response counts once (verl's GDPO weighs each by its tokens; then the mean
  over the batch is not 0).
- Neither paper anneals: ``schedule: constant`` is theirs, and ``alpha: 1`` the equal weights of their main results.
  Nothing clips ``w``: with process_aware a right response whose thinking is poor can end below 0.
- A missing score leaves its response, or its whole group, out of the sets of ``Rt`` (``on_missing``); the advantage of
  the outcome stays. So does a response without the required format, unless ``unformatted_in_means``: then its thinking
  reward is 0, as in a GDPO that has every reward of every response.

Every function takes flat arrays of length B, ``group`` numbers the group of each response from 0, in any order.
Nothing here loops over groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

EPSILON = 1e-6

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Group = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Advantages:
    """Advantages of a batch: ``reward = (outcome + weight * thinking) / scale``. Arrays of length B, float64, finite.

    Attributes:
        reward: what is written as the reward; sums to 0 over each group, up to rounding.
        outcome: normalised outcome reward.
        thinking: normalised thinking reward; 0 for a response that it was not normalised over.
        weight: of the thinking advantage, >= 0.
        scale: GDPO's standard deviation over the batch, > 0; 1 for process_aware.
    """

    reward: Floats
    outcome: Floats
    thinking: Floats
    weight: float
    scale: float

    def parts(self, i: int) -> dict[str, float]:
        """What the reward of response ``i`` consists of, for the dump:
        ``(outcome_advantage + thinking_weight * thinking_advantage) / advantage_scale``."""
        return {
            "outcome_advantage": float(self.outcome[i]),
            "thinking_advantage": float(self.thinking[i]),
            "thinking_weight": self.weight,
            "advantage_scale": self.scale,
        }


def gdpo(outcome: Floats, thinking: Floats, group: Group, *, scored: Flags, weight: float) -> Advantages:
    """GDPO's advantages.

    Args:
        outcome: outcome rewards in [0, 1], shape (B,).
        thinking: thinking rewards in [0, 1], shape (B,); read where ``scored``, and may be NaN elsewhere.
        group: number of each response's group, shape (B,).
        scored: whose thinking rewards count, shape (B,).
        weight: of the thinking advantage, finite, >= 0.
    """
    parts = normalised(outcome, group, np.ones_like(scored)), normalised(thinking, group, scored)
    total = parts[0] + weight * parts[1]
    scale = float(np.sqrt((total**2).sum() / max(1, total.size - 1))) + EPSILON  # around its mean, which is 0
    return Advantages(total / scale, *parts, weight, scale)


def process_aware(
    outcome: Floats, thinking: Floats, group: Group, *, scored: Flags, correct: Flags, weight: float
) -> Advantages:
    """PAPO's advantages. Arguments as for `gdpo`, and ``correct``: which responses are right, shape (B,)."""
    parts = normalised(outcome, group, np.ones_like(scored)), normalised(thinking, group, scored & correct)
    return Advantages(parts[0] + weight * parts[1], *parts, weight, 1.0)


def normalised(values: Floats, group: Group, members: Flags) -> Floats:
    """``N`` above: the members of each group to mean 0 and standard deviation 1; 0 for all others.

    Args:
        values: shape (B,); finite where ``members``.
        group: number of each value's group, shape (B,).
        members: which values count, shape (B,).
    """
    size = int(group.max()) + 1 if group.size else 0
    of, picked = group[members], values[members]
    # Against any one member, so that equal values differ by 0 and not by the rounding of their mean.
    anchor = np.zeros(size)
    anchor[of] = picked
    centred = picked - anchor[of]
    count = np.bincount(of, minlength=size)
    centred -= (np.bincount(of, weights=centred, minlength=size) / np.maximum(count, 1))[of]
    variance = np.bincount(of, weights=centred**2, minlength=size) / np.maximum(count - 1, 1)
    result = np.zeros_like(values)
    result[members] = centred / (np.sqrt(variance)[of] + EPSILON)
    return result
