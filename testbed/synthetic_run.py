"""Writes the folder that a training run leaves, without training: for the report's tests, and to measure it.

python -m testbed.synthetic_run FOLDER --steps 1500 --prompts 128

Field names, metrics and trust are those of the recipe's own code; texts, scores and pictures are drawn at random. A TRM
that tells right from wrong can lose that from a step on (``--deceived-from``), as one that is being hacked does.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import OmegaConf
from PIL import Image, ImageDraw

from data_preprocess.schema import RL_SCHEMA, rl_row
from recipe.sophiavl.fingerprint import data_files
from recipe.sophiavl.metrics import reward_metrics
from recipe.sophiavl.run_folder import ROLLOUTS, VALIDATION, RunFolder
from recipe.sophiavl.settings import ThinkingRewardSettings
from recipe.sophiavl.trust_grpo import GroupRewards, TrustGRPOConfig, combine_rewards
from recipe.sophiavl.validation_modes import validation_metrics

_KINDS = ("numerical", "multiple choice", "free-form")
_COLOURS = ("crimson", "seagreen", "royalblue", "goldenrod")
_WORDS = ("the", "left", "shape", "is", "a", "blue", "triangle", "so", "I", "compare", "both", "sides", "and", "count")
_SPLIT = "train"


@dataclass(frozen=True)
class SyntheticRun:
    """What is written.

    Attributes:
        steps: training steps; `planned`: how many the run was to take, None: as many, and the run is finished.
        prompts: groups of a step; `responses`: of a group.
        chars: about so many characters a response.
        rows: questions in the data; the first half of them has pictures.
        seed: of everything, and the one that config.yaml and run.json name.
        alpha: weight of the thinking reward, by which two runs may differ.
        combine: how it meets the outcome reward (``thinking_reward.combine``).
        skill: how far the thinking rewards of right and wrong responses are apart, in [0, 1].
        deceived_from: from this step on the thinking reward says nothing about the answer; None: never.
        lost, unformatted: share of the asked scores that are missing, of the responses without the format.
        thinking: whether the run has a thinking reward.
        validate_every: steps between validations, one before the first step too; 0: none.
        planted: this text is a part of every response, question and truth.
    """

    steps: int = 40
    planned: int | None = None
    prompts: int = 8
    responses: int = 8
    chars: int = 200
    rows: int = 64
    seed: int = 0
    alpha: float = 0.3
    combine: str = "trust_grpo"
    skill: float = 0.5
    deceived_from: int | None = None
    lost: float = 0.0
    unformatted: float = 0.02
    thinking: bool = True
    validate_every: int = 20
    planted: str = ""


def write_run(folder: Path, run: SyntheticRun | None = None) -> Path:
    """Write the run's folder and, inside it, its data (``data/train.parquet``); returns the folder."""
    run = run or SyntheticRun()
    for name in ("data", ROLLOUTS, VALIDATION):
        (folder / name).mkdir(parents=True, exist_ok=True)
    write_data(folder / "data" / "train.parquet", run)
    config = _config(folder, run)
    record = RunFolder(folder)
    record.write_config(OmegaConf.to_yaml(OmegaConf.create(config)))
    start = {"at": "2026-01-01T00:00:00+00:00", "commit": "0" * 12, "verl": "0.9.1", "command": f"run_dir={folder}"}
    definition = {key: value for key, value in _flat(config) if not key.startswith("trainer.")}
    definition |= dict.fromkeys(("data.train_files", "data.val_files"), data_files([config["data"]["train_files"]]))
    planned = run.planned or run.steps
    record.write_record({"experiment": definition, "total_training_steps": planned, "starts": [start]})
    generator = np.random.default_rng(run.seed)
    with record.new_metrics_file().open("wb") as metrics:
        for step in range(run.steps + 1):
            logged: dict[str, float] = {}
            if step:
                logged = _train(folder / ROLLOUTS / f"{step}.jsonl", run, step, generator)
            if run.validate_every and step % run.validate_every == 0:
                logged |= _validate(folder / VALIDATION / f"{step}.jsonl", run, step, generator)
            if logged:
                metrics.write(orjson.dumps({"step": step, "data": logged}) + b"\n")
    if run.planned is None:
        record.write_finished(run.steps)
    return folder


def write_data(file: Path, run: SyntheticRun) -> None:
    """The questions, in verl's schema."""
    rows = [
        rl_row(
            data_source="synthetic",
            question=question(row, run),
            problem_type=_KINDS[row % 3],
            answer=truth(row, run),
            split=_SPLIT,
            index=row,
            images=[picture(row)] if row < run.rows / 2 else [],
            options=[f"{letter}. {name}" for letter, name in zip("ABCD", _COLOURS, strict=True)]
            if row % 3 == 1
            else [],
        )
        for row in range(run.rows)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=RL_SCHEMA), file, row_group_size=16)


def question(row: int, run: SyntheticRun) -> str:
    """The text of a row's question."""
    return f"Question {row}: what does the picture show? {run.planted}".strip()


def truth(row: int, run: SyntheticRun) -> str:
    """The answer of a row."""
    return "ABCD"[row % 4] if row % 3 == 1 else f"{row}{run.planted}"


def picture(row: int) -> bytes:
    """A PNG of 96 x 64 pixels or, every fifth one, of 1,280 x 960."""
    size = (1280, 960) if row % 5 == 4 else (96, 64)
    image = Image.new("RGB", size, "white")
    box = (size[0] // 4, size[1] // 4, size[0] // 2 + row % 32, size[1] // 2 + row % 16)
    ImageDraw.Draw(image).ellipse(box, fill=_COLOURS[row % 4])
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _config(folder: Path, run: SyntheticRun) -> dict[str, Any]:
    """What the report reads of a configuration, under verl's and the recipe's names."""
    data = str(folder / "data" / "train.parquet")
    actor = {
        "optim": {"optimizer": "AdamW", "lr": 1e-6, "lr_scheduler_type": "constant", "clip_grad": 1.0},
        "use_kl_loss": True,
        "kl_loss_coef": 0.04,
        "kl_loss_type": "low_var_kl",
    }
    return {
        "data": {
            "train_files": data,
            "val_files": data,
            "train_batch_size": run.prompts,
            "max_prompt_length": 256,
            "max_response_length": 512,
            "image_key": "images",
            "seed": run.seed,
        },
        "actor_rollout_ref": {
            "model": {"path": "models/synthetic", "lora_rank": 0},
            "actor": actor,
            "rollout": {"n": run.responses, "seed": run.seed},
        },
        "algorithm": {"adv_estimator": "grpo"},
        "thinking_reward": {
            "enable": run.thinking,
            "combine": run.combine,
            "alpha": run.alpha,
            "schedule": "exponential",
            "total_steps": None,
            "trust": True,
            "correct_threshold": 0.5,
            "mode": "external",
            "model": "trm",
            "urls": ["http://127.0.0.1:8000/v1"],
        },
        "sophiavl": {"min_rollout_correlation": 0.95, "max_rollout_diff": 0.005},
        "trainer": {"total_training_steps": run.planned or run.steps},
    }


def _flat(tree: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _train(file: Path, run: SyntheticRun, step: int, generator: np.random.Generator) -> dict[str, float]:
    """Write a step's dump; returns its metrics."""
    rows = np.repeat(generator.integers(0, run.rows, run.prompts), run.responses)
    components, texts = _responses(rows, run, step, generator)
    groups = [f"{step:08x}-{place // run.responses:08x}" for place in range(len(rows))]
    total = run.planned or run.steps
    rewards = _weighed(components, groups, step, total, run)
    with file.open("wb") as lines:
        for place, (component, text) in enumerate(zip(components, texts, strict=True)):
            lines.write(orjson.dumps(_dumped(rows, groups, place, component, text, rewards, step, run)) + b"\n")
    client = {"urls": ["http://127.0.0.1:8000/v1"], "model": "trm", "structured_output": "off"}
    trust = TrustGRPOConfig(alpha=run.alpha, combine=run.combine)
    settings = ThinkingRewardSettings(enable=run.thinking, trust=trust, client=client)
    schedule = {"step": step, "total_steps": total, "settings": settings}
    return reward_metrics(components, groups, rewards, **schedule) | _engine_metrics(step, texts, generator)


def _weighed(
    components: list[dict[str, Any]], groups: list[str], step: int, total: int, run: SyntheticRun
) -> GroupRewards:
    outcome = np.array([component["outcome_reward"] for component in components])
    thinking = np.array([component["thinking_reward"] for component in components], dtype=np.float64)
    if not run.thinking:
        blank = np.full(outcome.size, np.nan)
        return GroupRewards(outcome, np.ones(outcome.size), blank, blank, np.zeros(outcome.size, dtype=bool))
    formatted = [component["format_ok"] for component in components]
    config = TrustGRPOConfig(alpha=run.alpha, combine=run.combine)
    schedule = {"step": step, "total_steps": total, "config": config, "formatted": formatted}
    return combine_rewards(outcome, thinking, np.asarray(groups), **schedule)


def _responses(
    rows: np.ndarray, run: SyntheticRun, step: int, generator: np.random.Generator
) -> tuple[list[dict[str, Any]], list[str]]:
    """The reward's parts and the text of each response: the policy gets better, the TRM sees a part of that."""
    size = rows.size
    formatted = generator.random(size) >= run.unformatted
    right = formatted & (generator.random(size) < 0.3 + 0.5 * step / max(1, run.planned or run.steps))
    skill = 0.0 if run.deceived_from is not None and step >= run.deceived_from else run.skill
    centre = 0.5 + skill * (right - 0.5)
    scores = np.clip(np.round(generator.normal(centre, 0.25, size), 1), 0, 1)
    lost = generator.random(size) < run.lost
    starts = generator.integers(0, len(_WORDS), size)
    words = (run.chars // 5) * _WORDS
    components, texts = [], []
    for place, row in enumerate(rows.tolist()):
        asked = run.thinking and bool(formatted[place])
        answer = truth(row, run) if right[place] else "wrong"
        thought = " ".join(words[starts[place] :])[: run.chars] + run.planted
        missing = asked and bool(lost[place])
        scored = float(scores[place]) if asked else 0.0
        texts.append(
            f"<think>{thought}</think><answer>{answer}</answer>" if formatted[place] else f"{thought} {answer}"
        )
        components.append(
            {
                "outcome_reward": float(right[place]),
                "format_ok": bool(formatted[place]),
                "answer": answer if formatted[place] else None,
                "problem_type": _KINDS[row % 3],
                "thinking_reward": None if missing or not run.thinking else scored,
                "thinking_asked": asked,
                "thinking_error": "no score in the reply" if missing else "",
                "thinking_latency_s": 0.4 if asked else None,
                "thinking_requests": int(asked),
                "thinking_cached": False,
            }
        )
    return components, texts


def _dumped(
    rows: np.ndarray,
    groups: list[str],
    place: int,
    component: dict[str, Any],
    text: str,
    rewards: GroupRewards,
    step: int,
    run: SyntheticRun,
) -> dict[str, Any]:
    """A line of a training dump, its fields in the trainer's order."""
    row = int(rows[place])

    def number(value: float) -> float | None:
        return float(value) if np.isfinite(value) else None

    return {
        "input": f"system\nReason first.\nuser\n{question(row, run)}\nassistant\n",
        "output": text,
        "gts": truth(row, run),
        "score": float(rewards.reward[place]),
        "step": step,
        "uid": f"{groups[place]}_{place % run.responses}_0",
        "group": groups[place],
        "data_source": "synthetic",
        "split": _SPLIT,
        "index": row,
        **component,
        "gamma": number(rewards.gamma[place]),
        "mu_correct": number(rewards.mu_correct[place]),
        "mu_wrong": number(rewards.mu_wrong[place]),
        "thinking_used": bool(rewards.used[place]),
        **(rewards.advantages.parts(place) if rewards.advantages else {}),
    }


def _validate(file: Path, run: SyntheticRun, step: int, generator: np.random.Generator) -> dict[str, float]:
    """Write a validation's dump, one response a question, without a thinking reward; returns its metrics."""
    rows = np.arange(run.rows)
    components, texts = _responses(rows, replace(run, thinking=False), step, generator)
    groups = [f"validation-{step:08x}-{row:08x}" for row in rows]
    blank = np.full(rows.size, np.nan)
    outcome = np.array([component["outcome_reward"] for component in components])
    rewards = GroupRewards(outcome, blank, blank, blank, np.zeros(rows.size, dtype=bool))
    with file.open("wb") as lines:
        for place, (component, text) in enumerate(zip(components, texts, strict=True)):
            lines.write(orjson.dumps(_dumped(rows, groups, place, component, text, rewards, step, run)) + b"\n")
    infos = {name: [component[name] for component in components] for name in components[0]}
    return validation_metrics("greedy", groups, infos)


def _engine_metrics(step: int, texts: list[str], generator: np.random.Generator) -> dict[str, float]:
    """What verl itself logs of a step, as far as the report draws it."""
    stages = {name: float(generator.gamma(20, second / 20)) for name, second in _STAGES.items()}
    return {
        "actor/entropy": float(1 / (1 + step / 20) + generator.normal(0, 0.01)),
        "actor/kl_loss": float(step * 1e-4 * generator.gamma(5)),
        "actor/grad_norm": float(generator.gamma(5, 0.1)),
        "training/rollout_actor_probs_pearson_corr": float(1 - generator.gamma(2, 1e-4)),
        "training/rollout_probs_diff_mean": 1e-4,
        "response_length/mean": float(np.mean([len(text) for text in texts]) / 4),
        "response_length/max": float(max(map(len, texts)) / 4),
        "response_length/clip_ratio": float(generator.random() * 0.02),
        **{f"timing_s/{name}": seconds for name, seconds in stages.items()},
        "timing_s/step": sum(stages.values()) + 0.5,
    }


_STAGES = {"gen": 6.0, "old_log_prob": 2.0, "ref": 1.0, "update_actor": 4.0, "update_weights": 0.3}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    usual = SyntheticRun()
    for name in ("steps", "prompts", "responses", "chars", "rows", "seed", "deceived_from"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(usual, name))
    for name in ("skill", "lost", "unformatted"):
        parser.add_argument(f"--{name}", type=float, default=getattr(usual, name))
    given = vars(parser.parse_args())
    print(write_run(given.pop("folder"), SyntheticRun(**given)))


if __name__ == "__main__":
    main()
