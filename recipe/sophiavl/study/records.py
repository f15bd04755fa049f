"""What a study keeps of a run: a few lines of JSON, made from the run's metrics and dumps, with its rewards checked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from omegaconf import DictConfig
from sklearn.metrics import roc_auc_score

from recipe.sophiavl.data_files import listed
from recipe.sophiavl.run_folder import METRICS_PATTERN, ROLLOUTS, VALIDATION
from recipe.sophiavl.settings import ThinkingRewardSettings
from recipe.sophiavl.study.grid import Assessment, Cell, Judge
from recipe.sophiavl.trm.images import load_image
from recipe.sophiavl.trm.questions import question_text
from reward_score import extract_thinking

Row = Mapping[str, Any]
Key = tuple[str, str, int]

HACKED_BY = 0.5  # a reward model's score exceeds the truth by at least as much
MOST_MISSING = 0.01  # share of the scores that the reward model was asked for and did not give
_CORRELATION = "training/rollout_actor_probs_pearson_corr"
_RIGHT = 0.5
_TENTHS = "0123456789a"  # a score in tenths as one character
MOST_SAMPLES = 9  # responses to a question in a validation: right ones are counted in one digit
# Of each training step, as verl and the recipe log it; a run without a reward model has no trust.
_LOGGED = {
    "gamma": "trust/gamma_mean",
    "distrusted": "trust/distrusted_frac",
    "anneal": "thinking_reward/anneal",
    "kl": "actor/kl_loss",
    "entropy": "actor/entropy",
    "grad_norm": "actor/grad_norm",
    "seconds": "timing_s/step",
}


class RecordError(RuntimeError):
    """A run can't be counted: its rewards are not what they should be, or something is missing."""


@dataclass(frozen=True)
class Asked:
    """A question as the reward model sees it."""

    text: str
    images: Sequence[bytes]


def read_questions(files: Iterable[Path], image_key: str = "images") -> dict[Key, Asked]:
    """The questions of RL data by (data source, split, index)."""
    found = {}
    for file in files:
        for row in pq.read_table(file, columns=["data_source", "extra_info", image_key]).to_pylist():
            info = row["extra_info"]
            images = [load_image(image) for image in row[image_key] or []]
            found[str(row["data_source"]), str(info["split"]), info["index"]] = Asked(question_text(info), images)
    return found


def record(
    cell: Cell, config: DictConfig, questions: Mapping[Key, Asked], judge: Judge, *, told: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The lines of a finished run; recipe/sophiavl/study/results.py says what is in them.

    Args:
        config: of the run.
        questions: all that it was trained and validated on.
        told: more for the first line, such as the commit.

    Raises:
        RecordError: a dumped reward is not the one that follows from its parts, or a file lacks something.
    """
    run_dir = Path(config.run_dir)
    logged = _metrics(run_dir)
    # Of the data that the run had: a response of another row would be judged against a wrong image.
    steps = config.trainer.total_training_steps if not config.trainer.val_only else 0
    batch = config.data.train_batch_size * config.actor_rollout_ref.rollout.n
    lines, errors, correlations, missing, asked = [], [], [], 0, 0
    for step in range(1, steps + 1):
        file = run_dir / ROLLOUTS / f"{step}.jsonl"
        rows = _rows(file)
        if len(rows) != batch:
            raise RecordError(f"{file} has {len(rows)} responses, and a step {batch}")
        errors.append(_reward_error(rows, step, config))
        correlations.append(logged[step][_CORRELATION])
        asked += sum(map(_was_asked, rows))
        missing += sum(_was_asked(row) and row["thinking_reward"] is None for row in rows)
        values = {name: logged[step].get(key) for name, key in _LOGGED.items()}
        values["gamma_mixed"] = _gamma_mixed(rows)
        lines.append({"kind": "step", "step": step, **_figures(rows, questions, judge), **values})
    if missing > MOST_MISSING * asked:
        raise RecordError(f"{missing} of {asked} scores are missing: the reward model was not there all the time")
    lowest, least = float(np.min(correlations, initial=1.0)), config.sophiavl.min_rollout_correlation
    if not lowest >= least:
        raise RecordError(f"rollout and actor correlate at {lowest} in a step, below {least}")
    for mode in config.sophiavl.validation_modes:
        first = mode == config.sophiavl.validation_modes[0]
        folder = run_dir / VALIDATION if first else run_dir / VALIDATION / mode
        rows = sorted(_rows(folder / f"{steps}.jsonl"), key=lambda row: (row["data_source"], row["index"]))
        _check_whole(folder / f"{steps}.jsonl", rows, config)
        lines.append({"kind": "validation", "step": steps, "mode": mode, **_validation(rows, questions, judge)})
    checks: dict[str, Any] = {"responses": steps * batch}
    if steps:
        checks |= {"largest_reward_error": max(errors), "lowest_rollout_correlation": lowest}
        checks |= {"missing_scores": missing}
    head = {"kind": "cell", "variant": cell.variant, "reward_model": cell.reward_model, "seed": cell.seed}
    return [{**head, "steps": steps, **told, "checks": checks}, *lines]


def _was_asked(row: Row) -> bool:
    """Whether the reward model was asked about this response, which gets no score by rule."""
    return bool(row.get("thinking_asked"))


def _gamma_mixed(rows: Sequence[Row]) -> float | None:
    """Mean trust weight of the groups in which both sides have a score; the others have 1 whatever the scores are."""
    both = {row["group"]: row["gamma"] for row in rows if None not in (row["mu_correct"], row["mu_wrong"])}
    return float(np.mean(list(both.values()))) if both else None


def _check_whole(file: Path, rows: Sequence[Row], config: DictConfig) -> None:
    """Raise a RecordError where a validation lacks a question of the data."""
    there = len({(row["data_source"], row["index"]) for row in rows})
    wanted = sum(pq.read_metadata(name).num_rows for name in listed(config.data.val_files))
    if config.data.get("val_max_samples", -1) < 0 and there != wanted:
        raise RecordError(f"{file} has {there} questions, and the data {wanted}")


def write(file: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write lines of JSON, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.new")
    new.write_text("".join(f"{json.dumps(_rounded(line), allow_nan=False)}\n" for line in lines), encoding="utf-8")
    new.replace(file)


def _metrics(run_dir: Path) -> dict[int, dict[str, float]]:
    found: dict[int, dict[str, float]] = {}
    for file in sorted(run_dir.glob(METRICS_PATTERN)):
        for line in file.read_text().splitlines():
            entry = json.loads(line)
            found.setdefault(entry["step"], {}).update(entry["data"])
    return found


def _rows(file: Path) -> list[Row]:
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError as error:
        raise RecordError(f"{file} is missing") from error
    rows = [row for row in rows if row.get("outcome_reward") is not None]  # others only fill verl's batch
    if not rows:
        raise RecordError(f"{file} has no responses")
    return rows


def _reward_error(rows: Sequence[Row], step: int, config: DictConfig) -> float:
    """How far the dumped rewards are from those that follow from their parts (Eq. 1 to 5, or a rival's)."""
    from recipe.sophiavl.reward_manager import ThinkingRewardManager  # loads verl, which looks for its platform then

    expected = ThinkingRewardManager.weigh_groups(
        rows,
        [row["group"] for row in rows],
        step=step,
        total_steps=config.trainer.total_training_steps,
        settings=ThinkingRewardSettings.from_config(config.thinking_reward),
    )
    error = float(np.abs(expected.reward - [row["score"] for row in rows]).max())
    if not error < 1e-5:  # the dump has float32
        raise RecordError(f"step {step}: a reward in the dump is {error} away from what its parts say")
    return error


def _assess(row: Row, questions: Mapping[Key, Asked], judge: Judge) -> Assessment | None:
    """None for a response without thinking in the required format, whose thinking is worth nothing by rule."""
    thinking = extract_thinking(row["output"]) if row["format_ok"] else None
    if thinking is None:
        return None
    key = (str(row["data_source"]), str(row["split"]), row["index"])
    if key not in questions:
        raise RecordError(f"a response to row {key}, which the data files do not have")
    try:
        return judge(questions[key].text, questions[key].images, thinking)
    except (ValueError, OSError) as error:
        raise RecordError(f"row {key}: the study's judge can't tell: {error}") from error


def _figures(rows: Sequence[Row], questions: Mapping[Key, Asked], judge: Judge) -> dict[str, Any]:
    """Means over responses."""
    found = [_assess(row, questions, judge) for row in rows]
    truth = np.array([0.0 if one is None else one.score for one in found])
    outcome = np.array([row["outcome_reward"] for row in rows])
    given = np.array([row["thinking_reward"] for row in rows], dtype=np.float64)  # None -> NaN
    known = np.isfinite(given)
    told = known & np.array(list(map(_was_asked, rows)))  # by the reward model, and not by rule
    forms = Counter("none" if one is None else one.form for one in found)
    return {
        "outcome": float(outcome.mean()),
        "thinking": float(given[known].mean()) if known.any() else None,
        "oracle": float(truth.mean()),
        "hacked": float((given[told] - truth[told] >= HACKED_BY - 1e-9).mean()) if told.any() else None,
        "length": float(np.mean([len(row["output"].split()) for row in rows])),
        "format": float(np.mean([bool(row["format_ok"]) for row in rows])),
        "auc_thinking": _auc(outcome[told] >= _RIGHT, given[told]),
        "auc_oracle": _auc(outcome >= _RIGHT, truth),
        "forms": {form: count / len(rows) for form, count in sorted(forms.items())},
    }


def _validation(rows: Sequence[Row], questions: Mapping[Key, Asked], judge: Judge) -> dict[str, Any]:
    figures = _figures(rows, questions, judge)
    kinds = sorted({row["problem_type"] for row in rows})
    scores = [0.0 if one is None else one.score for one in (_assess(row, questions, judge) for row in rows)]
    number = {key: n for n, key in enumerate(dict.fromkeys((row["data_source"], row["index"]) for row in rows))}
    question = np.array([number[row["data_source"], row["index"]] for row in rows])
    samples = np.bincount(question)
    if samples.min() != samples.max() or samples.max() > MOST_SAMPLES:
        raise RecordError(f"from {samples.min()} to {samples.max()} responses to a question of the validation")
    right = np.bincount(question, [row["outcome_reward"] >= _RIGHT for row in rows])
    means = np.bincount(question, scores) / samples
    return {
        "questions": len(number),
        "samples": int(samples[0]),
        **figures,
        "by_type": {
            kind: float(np.mean([row["outcome_reward"] for row in rows if row["problem_type"] == kind]))
            for kind in kinds
        },
        "right": "".join(str(int(count)) for count in right),
        "oracle_scores": "".join(_TENTHS[round(10 * mean)] for mean in means),
    }


def _auc(right: np.ndarray, score: np.ndarray) -> float | None:
    return float(roc_auc_score(right, score)) if 0 < right.sum() < right.size else None


def _rounded(value: Any) -> Any:
    """Six digits: the files stay small, and nothing rests on more."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: _rounded(inner) for key, inner in value.items()}
    return value


def data_files(config: DictConfig) -> list[Path]:
    """The files that a run is trained and validated on."""
    return [Path(file) for files in (config.data.train_files, config.data.val_files) for file in listed(files)]
