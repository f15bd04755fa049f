"""Reads run folders into what the report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from recipe.sophiavl.progress import trained
from recipe.sophiavl.report import charts, sentences
from recipe.sophiavl.report.dumps import StepDump, dump_files, number, read_step
from recipe.sophiavl.report.gallery import gallery
from recipe.sophiavl.report.logs import Steps
from recipe.sophiavl.report.problems import Problems
from recipe.sophiavl.report.run_data import Bounds, Comparison, Gallery, RunData, Sentence, Trust
from recipe.sophiavl.report.seeds import compare
from recipe.sophiavl.report.settings_words import RunConfig, settings
from recipe.sophiavl.report.step_figures import DumpTotals, completed
from recipe.sophiavl.report.step_log import read_metrics
from recipe.sophiavl.report.strata import StrataCollector
from recipe.sophiavl.report.summary import Change, summary
from recipe.sophiavl.report.texts import readable
from recipe.sophiavl.report.trust_data import TrustCollector
from recipe.sophiavl.report.validation_rows import validation_rows
from recipe.sophiavl.run_folder import FINISHED, METRICS_PATTERN, ROLLOUTS, VALIDATION


def load_run(run_dir: Path, *, bounds: Bounds | None = None, seed: int = 0) -> RunData:
    """What there is to show of a run, whether it has ended, goes on, was killed, or is damaged.

    The dumps are read once, a line at a time: memory grows with the number of steps, not with that of responses.

    Args:
        bounds: how much the sample holds at most; None: `Bounds()`.
        seed: of the samples and of the intervals, >= 0.

    Raises:
        NotADirectoryError: there is no such folder.
    """
    if not run_dir.is_dir():
        raise NotADirectoryError(f"no folder {run_dir}")
    bounds = bounds or Bounds()
    problems = Problems()
    config = RunConfig(run_dir, problems)
    logged = read_metrics(sorted(run_dir.glob(METRICS_PATTERN)), problems)
    totals, trust, shown = _read_dumps(run_dir, config, bounds, seed, problems)
    steps = completed(logged, totals.metrics)
    curves = _curves(steps)
    validation = validation_rows(steps, run_dir / VALIDATION, problems)
    found = changes(logged, run_dir, problems)
    done = sum(trained(data) for data in steps.values())
    planned = config.number("trainer.total_training_steps")
    planned = int(planned) if planned else None
    finished = (run_dir / FINISHED).is_file()
    told = [
        *sentences.what(config),
        sentences.extent(done, planned, finished, totals, len(config.starts)),
        *sentences.progress(found, steps),
        *sentences.problems(config, steps, totals, trust),
        *_gaps(logged, totals, config, trust),
        *(Sentence("missing", text) for text in problems.texts()),
    ]
    return RunData(
        name=readable(run_dir.resolve().name),
        folder=readable(str(run_dir)),
        steps=done,
        planned=planned,
        finished=finished,
        responses=totals.responses,
        groups=totals.groups,
        sentences=told,
        settings=settings(config),
        curves=curves,
        charts=charts.charts(curves, validation, trust.bins if trust else (), bounds.line_points),
        validation=validation,
        trust=trust,
        gallery=shown,
    )


def load_runs(run_dirs: Sequence[Path], *, bounds: Bounds | None = None, seed: int = 0) -> Comparison:
    """Several runs, overlaid. Arguments and errors as for `load_run`; the runs share the gallery's groups."""
    bounds = bounds or Bounds()
    each = replace(bounds, groups=max(1, bounds.groups // len(run_dirs)), points=max(1, bounds.points // len(run_dirs)))
    return compare([load_run(run_dir, bounds=each, seed=seed) for run_dir in run_dirs], run_dirs, bounds.line_points)


def _read_dumps(
    run_dir: Path, config: RunConfig, bounds: Bounds, seed: int, problems: Problems
) -> tuple[DumpTotals, Trust | None, Gallery | None]:
    files = dump_files(run_dir / ROLLOUTS)
    totals = DumpTotals()
    trust = TrustCollector(list(files), points=bounds.points, seed=seed)
    strata = StrataCollector(size=bounds.groups, seed=seed)
    thresholds = _Thresholds(config)
    for step, file in tqdm(files.items(), desc=f"read {run_dir.name}", unit="step", disable=None):
        dump = read_step(step, file, problems)
        if dump is not None:
            right = thresholds.right(dump)
            totals.add(dump)
            trust.add(dump, right)
            strata.add(dump, right)
    if not totals.responses:
        return totals, None, None
    shown = gallery(
        strata, config.data_files("data.train_files"), config.get("data.image_key") or "images", bounds, problems
    )
    return totals, trust.finish() if config.thinking else None, shown


class _Thresholds:
    """Which responses are on the correct side, by the run's own thresholds."""

    def __init__(self, config: RunConfig) -> None:
        self._usual = config.number("thinking_reward.correct_threshold") or 0.5
        by_type = config.get("thinking_reward.correct_threshold_by_type")
        given = by_type.items() if isinstance(by_type, Mapping) else ()
        self._by_type = {str(name).strip().lower(): value for name, value in given if np.isfinite(number(value))}

    def right(self, dump: StepDump) -> npt.NDArray[np.bool_]:
        """Shape (B,); a response without an outcome is not right."""
        if not self._by_type:
            return dump.numbers["outcome_reward"] >= self._usual
        return dump.numbers["outcome_reward"] >= np.array([self._by_type.get(kind, self._usual) for kind in dump.types])


def _curves(steps: Steps) -> dict[str, tuple[list[int], list[float]]]:
    """The metrics that are drawn."""
    found: dict[str, tuple[list[int], list[float]]] = {}
    for step, data in steps.items():
        for name, value in data.items():
            if charts.drawn(name):
                own = found.setdefault(name, ([], []))
                own[0].append(step)
                own[1].append(value)
    return found


def changes(logged: Steps, run_dir: Path, problems: Problems) -> list[Change]:
    """What the run changed, as `summary`; empty where validation's files are damaged, which is noted as a problem."""
    try:
        return summary(logged, run_dir / VALIDATION)
    except (ValueError, TypeError, KeyError, IndexError, OSError) as error:
        problems.add("Validations can't be compared question by question", f"{type(error).__name__}: {error}")
        return []


def _gaps(logged: Steps, totals: DumpTotals, config: RunConfig, trust: Trust | None) -> list[Sentence]:
    """What the run did not leave, and what that costs the report."""
    gaps = []
    if not logged:
        gaps.append(
            "There are no metrics: curves are computed from the dumps, as far as they tell."
            if totals.responses
            else "There are no metrics yet: no step has been logged."
        )
    if not totals.responses:
        gaps.append("There are no rollout dumps: no gallery, no trust, no gamma quantiles.")
    if not config.thinking:
        gaps.append("The run had no thinking reward (thinking_reward.enable=false): nothing to trust or to distrust.")
    elif totals.responses and trust is None:
        gaps.append("No response has a thinking reward: nothing to trust or to distrust.")
    elif (combine := config.get("thinking_reward.combine")) not in (None, "trust_grpo"):
        gaps.append(
            f"The rewards are advantages, which sum to 0 over a group (thinking_reward.combine={combine}): no group "
            "was weighed by trust, and there is no gamma."
        )
    return [Sentence("missing", text) for text in gaps]
