"""The ten intervals of scores that training data is balanced over, and that calibration is shown by."""

from __future__ import annotations

INTERVALS = 10
INTERVAL_NAMES = (*(f"[{i / 10:.1f}, {(i + 1) / 10:.1f})" for i in range(INTERVALS - 1)), "[0.9, 1.0]")
# Decimals to which a score counts: a mean of samples may come as 0.7999999999999999, and stands for 0.8.
_DECIMALS = 6


def interval(score: float) -> int:
    """The place of a score in [0, 1] among the ten intervals [0, 0.1) … [0.9, 1.0].

    Raises:
        ValueError: not in [0, 1].
    """
    if not 0.0 <= score <= 1.0:
        raise ValueError(f"score {score!r} is not in [0, 1]")
    millionths = round(score * 10**_DECIMALS)
    return min(millionths * INTERVALS // 10**_DECIMALS, INTERVALS - 1)
