"""The distribution of scores over the ten intervals, before and after (the paper's Figure 2, right)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recipe.sophiavl.trm_training.intervals import INTERVAL_NAMES
from recipe.sophiavl.trm_training.pairs import replacing


def draw_distribution(before: Sequence[int], after: Sequence[int], floor: int, cap: int, file: Path) -> None:
    """Two bars for each interval, with their counts, and floor and cap as lines.

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
    with replacing(file) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)
