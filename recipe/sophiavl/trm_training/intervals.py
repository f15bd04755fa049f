"""The ten intervals of scores that training data is balanced over, and that calibration is shown by; their picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data_preprocess.core.files import replacing

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


def draw_distribution(before: Sequence[int], after: Sequence[int], floor: int, cap: int, file: Path) -> None:
    """The rows of each interval before and after (the paper's Figure 2, right), as a picture; floor and cap as lines.

    Args:
        before, after: rows of each interval, length 10.
        file: PNG file to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(9, 4.5), layout="constrained")
    for counts, shift, label, color in ((before, -0.2, "annotated", "tab:gray"), (after, 0.2, "training", "tab:blue")):
        places = [place + shift for place in range(len(INTERVAL_NAMES))]
        bars = axis.bar(places, counts, width=0.4, label=label, color=color)
        axis.bar_label(bars, fmt="{:,.0f}", fontsize=7)
    for height, label, style in ((floor, "floor", ":"), (cap, "cap", "--")):
        axis.axhline(height, color="tab:red", linestyle=style, linewidth=1, label=f"{label} {height:,}")
    axis.set_xticks(range(len(INTERVAL_NAMES)), INTERVAL_NAMES, fontsize=8)
    axis.set(xlabel="score of the judge", ylabel="rows")
    axis.legend(fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)
