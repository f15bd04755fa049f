"""Guards against runs that look healthy and are not: rollout unlike the actor, thinking scores that stay away.

One step proves little, and a run that ends without a checkpoint loses more than it saves: each guard looks at a window
of training steps, and what it finds stops the run after a checkpoint.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np

from recipe.sophiavl.settings import EngineSettings, ThinkingRewardSettings

logger = logging.getLogger(__name__)

_CORRELATION = "training/rollout_actor_probs_pearson_corr"
_DIFFERENCE = "training/rollout_probs_diff_mean"

# Thinking rewards that spread less are the same for all that they teach; fewer scores prove nothing.
_CONSTANT_STD = 1e-3
_FEWEST_SCORES = 32


class RolloutMismatchError(RuntimeError):
    """The rollout engine computes other token probabilities than the actor."""


class ThinkingRewardLostError(RuntimeError):
    """Too many thinking scores stay away."""


class Window:
    """How much of something went wrong over the last training steps.

    Args:
        steps: length of the window; nothing is said before it is full.
    """

    def __init__(self, steps: int) -> None:
        self._steps: deque[tuple[int, int]] = deque(maxlen=steps)
        self._bad = self._all = 0

    def count(self, bad: int, of: int) -> None:
        """Count a part of this step; an asynchronous trainer's step has several."""
        self._bad += bad
        self._all += of

    def end_step(self) -> None:
        """The step is over."""
        self._steps.append((self._bad, self._all))
        self._bad = self._all = 0

    @property
    def counts(self) -> tuple[int, int, int]:
        """What went wrong, of how many, in how many steps."""
        return sum(bad for bad, _ in self._steps), sum(every for _, every in self._steps), len(self._steps)

    def exceeds(self, share: float) -> bool:
        """Whether a full window has more than this share that went wrong."""
        bad, every, steps = self.counts
        return steps == self._steps.maxlen and bad > share * every


class Guards:
    """All guards of a run.

    Args:
        settings: how many thinking scores may be missing.
        engine: how unlike rollout and actor may be.
        total_steps: training steps of the run; no window is longer.
    """

    def __init__(self, settings: ThinkingRewardSettings, engine: EngineSettings, total_steps: int) -> None:
        self._settings, self._engine = settings, engine
        window = min(settings.missing_window_steps, max(1, total_steps))
        self._scores, self._groups = Window(window), Window(window)
        self._rollouts = Window(min(engine.rollout_window_steps, max(1, total_steps)))
        self._mismatch = ""
        self._window_steps, self._steps = window, 0
        self._given: list[float] = []

    def watch_scores(self, scores: Sequence[float]) -> None:
        """Look whether thinking rewards vary.

        Args:
            scores: those that the TRM gave in this step, or in a part of it; in [0, 1].
        """
        self._given.extend(scores)

    def count_scores(self, *, asked: int, missing: int, groups: int, dropped: int) -> None:
        """Count responses that were asked about and those of them without a score, and groups and those of them that
        lost their thinking term by it."""
        self._scores.count(missing, asked)
        self._groups.count(dropped, groups)

    def compare_rollout(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Count whether the rollout's token probabilities match the actor's.

        Args:
            metrics: the step's metrics after verl compared both (``verl/utils/debug/metrics.py``).
            step: global training step, for the message.

        Raises:
            RolloutMismatchError: verl compared nothing, so there is nothing to guard by.
        """
        if not self._engine.check_rollout:
            return
        problem = rollout_mismatch(metrics, self._engine)
        self._rollouts.count(int(problem is not None), 1)
        if problem is not None:
            self._mismatch = f"step {step}: {problem}"
            logger.warning("the rollout does not match the actor at %s", self._mismatch)

    def end_step(self) -> RuntimeError | None:
        """The step is over: why the run should stop, or None."""
        for window in (self._scores, self._groups, self._rollouts):
            window.end_step()
        self._end_step_of_scores()
        bad, compared, steps = self._rollouts.counts
        # All of them: a single step that matches shows that the two are the same model.
        if self._rollouts.exceeds(0) and bad == compared:
            return RolloutMismatchError(
                f"The rollout's token probabilities did not match the actor's in any of the last {steps} steps; "
                f"{self._mismatch}"
            )
        for window, setting, what in (
            (self._scores, "max_missing_frac", "thinking rewards are missing"),
            (self._groups, "max_dropped_groups_frac", "groups have lost their thinking term to missing scores"),
        ):
            limit = getattr(self._settings, setting)
            if window.exceeds(limit):
                bad, every, steps = window.counts
                return ThinkingRewardLostError(
                    f"Of {every} in the last {steps} steps {bad} {what}, more than thinking_reward.{setting}={limit} "
                    "allows: the thinking reward model does not answer (see thinking_reward/failed/* in the metrics)."
                )
        return None

    def _end_step_of_scores(self) -> None:
        """Say at the end of a window, once, that its scores did not vary; a window without enough of them goes on."""
        self._steps += 1
        if self._steps < self._window_steps or len(self._given) < _FEWEST_SCORES:
            return
        if (problem := constant_scores(self._given, self._steps)) is not None:
            logger.warning("%s", problem)
        self._steps, self._given = 0, []


def constant_scores(scores: Sequence[float], steps: int) -> str | None:
    """What it means that the thinking rewards of the last ``steps`` steps are all the same; None where they vary."""
    if np.std(scores) > _CONSTANT_STD:
        return None
    return (
        f"All {len(scores)} thinking rewards of the last {steps} steps are {np.mean(scores):.3f}: they tell no "
        "response from another, and training goes on by the outcome alone. Check that the server answers with a model "
        "trained to score (thinking_reward.model), asked as it was trained (thinking_reward.prompt_path), which sees "
        "the images and has room for its answer (thinking_reward.max_tokens); thinking_reward.structured_output forces "
        "a number out of a model that has none to give. python -m recipe.sophiavl.trm.preflight asks it two probes"
    )


def rollout_mismatch(metrics: Mapping[str, float], settings: EngineSettings) -> str | None:
    """What differs between rollout and actor, with the likely causes; None where they match.

    They differ where the probabilities are on average further apart than ``max_rollout_diff`` and correlate less than
    ``min_rollout_correlation``.

    Raises:
        RolloutMismatchError: verl compared nothing.
    """
    if _CORRELATION not in metrics:
        raise RolloutMismatchError(
            f"{_CORRELATION} is not measured. Set actor_rollout_ref.rollout.calculate_log_probs=true (and "
            "rollout_correction.bypass_mode=false), or switch the check off with sophiavl.check_rollout=false"
        )
    correlation, difference = metrics[_CORRELATION], metrics[_DIFFERENCE]
    if difference <= settings.max_rollout_diff:
        return None
    if math.isfinite(correlation) and correlation >= settings.min_rollout_correlation:
        return None
    return (
        f"correlation {correlation:.3f} < sophiavl.min_rollout_correlation={settings.min_rollout_correlation}, "
        f"mean difference {difference:.4f} > sophiavl.max_rollout_diff={settings.max_rollout_diff}. Training would "
        "go on and learn from garbage. Likely causes: vLLM >= 0.28 normalises images in buffers that verl's "
        "load_format=dummy randomises (set +actor_rollout_ref.rollout.engine_kwargs.vllm.mm_device_do_normalize=false, "
        "or actor_rollout_ref.rollout.load_format=auto); weights that did not reach the rollout server; in an "
        "asynchronous trainer_mode, a policy that moves far while its responses wait (lower the learning rate); a "
        "sampling setting that reshapes probabilities (top_k, top_p, repetition penalty); another dtype, quantisation "
        "or processor setting (min_pixels, max_pixels) in the rollout than in the actor. If the difference is wanted, "
        "lower the threshold or set sophiavl.check_rollout=false"
    )
