"""The loggers of a run (``trainer.logger``): verl's own, with a sample of groups in those that have a place for it, and
none of them able to end the run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from verl.utils.tracking import Tracking

from recipe.sophiavl.group_samples import GroupSample, as_code, markdown

logger = logging.getLogger(__name__)

# What they leave is part of the run; where they can't write, neither can checkpoints.
_ESSENTIAL = ("console", "file")
# A logger that fails so many times in a row is left out: each try may take as long as a network's time limit.
_MOST_FAILURES = 3
_PANEL = "groups"


class RunTracking:
    """In the place of verl's ``Tracking``: the same metrics under the same names in each logger.

    A logger (other than console and file) that fails at start, at a step or at the end is told once, with the reason,
    and the run goes on. It is tried again, until it has failed `_MOST_FAILURES` times in a row.

    Args:
        project_name, experiment_name, default_backend, config: as for ``Tracking``.
    """

    def __init__(
        self,
        project_name: str,
        experiment_name: str,
        default_backend: str | Sequence[str] = "console",
        config: Mapping[str, Any] | None = None,
    ) -> None:
        names = [default_backend] if isinstance(default_backend, str) else default_backend
        self._failures: dict[str, int] = {}
        self._parts: dict[str, Tracking] = {}
        for name in dict.fromkeys(names):

            def start(name: str = name) -> None:
                self._parts[name] = Tracking(project_name, experiment_name, [name], config)

            self._attempt(name, "at the start", start)

    @property
    def takes_groups(self) -> bool:
        """Whether a logger has a place for a sample of groups."""
        return any(_PANELS.keys() & part.logger.keys() for part in self._parts.values())

    def log(self, data: Mapping[str, Any], step: int) -> None:
        """Log metrics of a step."""
        for name, part in self._parts.items():
            self._attempt(name, f"at step {step}", lambda part=part: _log(part, data, step))

    def log_groups(self, samples: Sequence[GroupSample], step: int) -> None:
        """Log a sample of a step's groups, before the step's metrics."""
        for name, part in self._parts.items():
            for tool in _PANELS.keys() & part.logger.keys():
                show = _PANELS[tool]
                self._attempt(
                    name,
                    f"with the groups of step {step}",
                    lambda show=show, backend=part.logger[tool]: show(backend, samples, step),
                )

    def finish(self, exit_code: int = 0) -> None:
        """Write out what the loggers hold back."""
        for name, part in self._parts.items():
            self._attempt(name, "at the end", lambda part=part: part.finish(exit_code))

    def _attempt(self, name: str, when: str, action: Callable[[], None]) -> None:
        if name in _ESSENTIAL:
            action()
            return
        failures = self._failures.get(name, 0)
        if failures >= _MOST_FAILURES:
            return
        try:
            action()
        except Exception as error:  # whatever a tool's client raises, a run is worth more
            self._failures[name] = failures + 1
            if failures == 0:
                logger.error(
                    "trainer.logger: %s failed %s (%s: %s). The run goes on; its metrics are in run_dir. After %d "
                    "failures in a row %s is left out.",
                    *(name, when, type(error).__name__, error, _MOST_FAILURES, name),
                    exc_info=True,
                )
        else:
            self._failures[name] = 0


def _log(part: Tracking, data: Mapping[str, Any], step: int) -> None:
    part.log(data, step)
    if "tensorboard" in part.logger:  # else a run that is killed takes up to two minutes with it
        part.logger["tensorboard"].writer.flush()


def _to_tensorboard(backend: Any, samples: Sequence[GroupSample], step: int) -> None:
    for place, sample in enumerate(samples, 1):
        backend.writer.add_text(f"{_PANEL}/{place}", markdown(sample), step)
        if sample.image is not None:
            backend.writer.add_image(f"{_PANEL}/{place}/images", np.asarray(sample.image), step, dataformats="HWC")


def _to_wandb(wandb: Any, samples: Sequence[GroupSample], step: int) -> None:
    rows = _rows(samples, step)
    table = wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])
    wandb.log({_PANEL: table, **_images(samples, wandb.Image)}, step=step)


def _to_trackio(backend: Any, samples: Sequence[GroupSample], step: int) -> None:
    import pandas as pd

    trackio = backend.trackio
    rows = _rows(samples, step)
    for row in rows:  # its tables take text for Markdown
        row.update({name: as_code(row[name]) for name in ("question", "truth", "response")})
    trackio.log({_PANEL: trackio.Table(dataframe=pd.DataFrame(rows)), **_images(samples, trackio.Image)}, step=step)


def _to_mlflow(backend: Any, samples: Sequence[GroupSample], step: int) -> None:
    import mlflow
    import pandas as pd

    mlflow.log_table(pd.DataFrame(_rows(samples, step)), f"{_PANEL}/{step:06}.json")
    for place, sample in enumerate(samples, 1):
        if sample.image is not None:
            mlflow.log_image(sample.image, f"{_PANEL}/{step:06}-{place}.png")


def _to_swanlab(swanlab: Any, samples: Sequence[GroupSample], step: int) -> None:
    texts = {f"{_PANEL}/{place}": swanlab.Text(markdown(sample)) for place, sample in enumerate(samples, 1)}
    swanlab.log({**texts, **_images(samples, swanlab.Image)}, step=step)


def _rows(samples: Sequence[GroupSample], step: int) -> list[dict[str, Any]]:
    return [row for place, sample in enumerate(samples, 1) for row in sample.rows(step, place)]


def _images(samples: Sequence[GroupSample], kind: Callable[[Any], Any]) -> dict[str, Any]:
    """The images of each group that has some, as the tool takes them."""
    places = enumerate(samples, 1)
    return {f"{_PANEL}/{place}/images": kind(sample.image) for place, sample in places if sample.image is not None}


# By the name that verl gives each logger.
_PANELS: dict[str, Callable[[Any, Sequence[GroupSample], int], None]] = {
    "tensorboard": _to_tensorboard,
    "wandb": _to_wandb,
    "trackio": _to_trackio,
    "mlflow": _to_mlflow,
    "swanlab": _to_swanlab,
}
