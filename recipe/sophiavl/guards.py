"""Guards against runs that look healthy and are not: rollout unlike the actor, thinking scores that stay away."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

from recipe.sophiavl.settings import EngineSettings

_CORRELATION = "training/rollout_actor_probs_pearson_corr"
_DIFFERENCE = "training/rollout_probs_diff_mean"


class RolloutMismatchError(RuntimeError):
    """The rollout engine computes other token probabilities than the actor."""


class ThinkingRewardLostError(RuntimeError):
    """Too many thinking scores stay away."""


def check_rollout_matches_actor(metrics: Mapping[str, float], settings: EngineSettings, *, step: int) -> None:
    """Stop a run whose rollout engine and actor disagree about the same tokens.

    Args:
        metrics: the step's metrics after verl compared both (``verl/utils/debug/metrics.py``).
        settings: thresholds; see ``EngineSettings``.
        step: global training step, for the message.

    Raises:
        RolloutMismatchError: the probabilities differ on average by more than ``max_rollout_diff`` and correlate less
            than ``min_rollout_correlation``, or verl compared nothing.
    """
    if _CORRELATION not in metrics:
        raise RolloutMismatchError(
            f"step {step}: {_CORRELATION} is not measured. Set "
            "actor_rollout_ref.rollout.calculate_log_probs=true (and rollout_correction.bypass_mode=false), or switch "
            "the check off with sophiavl.check_rollout=false"
        )
    correlation, difference = metrics[_CORRELATION], metrics[_DIFFERENCE]
    if difference <= settings.max_rollout_diff:
        return
    if math.isfinite(correlation) and correlation >= settings.min_rollout_correlation:
        return
    raise RolloutMismatchError(
        f"step {step}: the rollout's token probabilities do not match the actor's "
        f"(correlation {correlation:.3f} < sophiavl.min_rollout_correlation={settings.min_rollout_correlation}, "
        f"mean difference {difference:.4f} > sophiavl.max_rollout_diff={settings.max_rollout_diff}). Training would "
        "go on and learn from garbage. Likely causes: vLLM >= 0.28 normalises images in buffers that verl's "
        "load_format=dummy randomises (set +actor_rollout_ref.rollout.engine_kwargs.vllm.mm_device_do_normalize=false, "
        "or actor_rollout_ref.rollout.load_format=auto); weights that did not reach the rollout server; a sampling "
        "setting that reshapes probabilities (top_k, top_p, repetition penalty); another dtype, quantisation or "
        "processor setting (min_pixels, max_pixels) in the rollout than in the actor. If the difference is wanted, "
        "lower the threshold or set sophiavl.check_rollout=false"
    )


class MissingScoresWindow:
    """Share of missing thinking scores over the last training steps.

    Args:
        max_missing_frac: highest share accepted, in [0, 1].
        steps: length of the window; nothing is said before it is full.
    """

    def __init__(self, max_missing_frac: float, steps: int) -> None:
        self.max_missing_frac = max_missing_frac
        self._steps: deque[tuple[int, int]] = deque(maxlen=steps)

    def add(self, asked: int, missing: int) -> None:
        """Count one step's responses: how many were asked about, and how many of these have no score."""
        self._steps.append((asked, missing))

    def complaint(self) -> str | None:
        """Why the run should stop, or None."""
        asked, missing = (sum(counts) for counts in zip(*self._steps, strict=True)) if self._steps else (0, 0)
        if len(self._steps) < self._steps.maxlen or asked == 0 or missing / asked <= self.max_missing_frac:
            return None
        return (
            f"{missing} of {asked} thinking rewards of the last {len(self._steps)} steps are missing, more than "
            f"thinking_reward.max_missing_frac={self.max_missing_frac} allows: the thinking reward model does not "
            "answer (see thinking_reward/failed/* in the metrics)."
        )
