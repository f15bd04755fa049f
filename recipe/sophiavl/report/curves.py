"""The curves of a run as a picture."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from recipe.sophiavl.report.logs import Steps, series, validation_modes

_TRAINED = ("outcome_reward/mean", "thinking_reward/mean", "trust/gamma_mean", "thinking_reward/anneal")
_VALIDATED = (("outcome_reward", "o", "-"), ("thinking_reward", "s", ":"))


def curves(steps: Steps) -> Figure:
    """Reward components, trust weight and annealing by step; on top validation with its standard errors."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axis = figure.subplots()
    for name in _TRAINED:
        if values := series(steps, name):
            axis.plot(list(values), list(values.values()), label=name, linewidth=1)
    for mode, color in zip(validation_modes(steps), ("black", "tab:purple", "tab:brown"), strict=False):
        for variable, marker, line in _VALIDATED:
            means = series(steps, f"validation/{mode}/{variable}/mean")
            errors = series(steps, f"validation/{mode}/{variable}/stderr")
            if means:
                label = f"{mode.replace('_', ' ')} validation, {variable.replace('_', ' ')}"
                bars = [errors.get(step, 0.0) for step in means]
                drawn = {"color": color, "markersize": 4, "capsize": 2, "linewidth": 1}
                axis.errorbar(list(means), list(means.values()), bars, fmt=f"{marker}{line}", label=label, **drawn)
    axis.set(xlabel="global training step", ylim=(0, 1.05))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8)
    return figure
