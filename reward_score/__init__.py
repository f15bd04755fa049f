"""Outcome rewards of SophiaVL-R1's four answer types, without verl and without torch.

``score_outcome`` is the interface; ``compute_score`` is the same through verl's ``custom_reward_function``.
"""

from reward_score.format import extract_thinking
from reward_score.score import PROBLEM_TYPES, OutcomeScore, compute_score, score_outcome
from reward_score.settings import OutcomeSettings

__all__ = ["PROBLEM_TYPES", "OutcomeScore", "OutcomeSettings", "compute_score", "extract_thinking", "score_outcome"]
