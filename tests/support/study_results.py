"""Raw results of studies that never ran, with effects that are known."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

KINDS = {"free-form": 0.02, "multiple choice": -0.03, "numerical": 0.01}
Effect = Callable[[str, str], float]
"""What a variant and a reward model add to the final accuracy."""


def no_effect(_variant: str, _reward_model: str) -> float:
    return 0.0


def known(variant: str, reward_model: str) -> float:
    """Worth of the thinking reward 0.06; of trust 0.08 with the hackable one only; annealing harms by 0.08."""
    if variant == "outcome_only":
        return -0.06
    lost = -0.08 if reward_model == "hackable" and variant in ("no_trust", "no_trust_no_annealing") else 0.0
    return lost + (0.08 if variant == "no_trust_no_annealing" else 0.0)


def cell_lines(
    variant: str,
    reward_model: str,
    seed: int,
    *,
    effect: float = 0.0,
    steps: int = 12,
    noise: float = 0.01,
    questions: int = 40,
) -> list[dict[str, Any]]:
    """The lines of a cell whose accuracy goes from 0.6 to 0.8 + `effect`; thinking gains half of the effect."""
    seeds = np.random.default_rng([seed, 1])  # what cells of one seed share
    own = np.random.default_rng([3, *f"{variant}.{reward_model}".encode(), seed])
    level = 0.8 + effect + 0.03 * seeds.normal() + noise * own.normal()
    asked = reward_model != "none"
    lines: list[dict[str, Any]] = [
        {
            "kind": "cell",
            "variant": variant,
            "reward_model": reward_model,
            "seed": seed,
            "steps": steps,
            "commit": "abc1234",
            "overrides": [f"thinking_reward={variant}", f"data.seed={seed}"],
            "seconds": 180.0,
            "checks": {
                "responses": 128 * steps,
                "largest_reward_error": 6e-8,
                "lowest_rollout_correlation": 0.9999,
                "missing_scores": 0,
            },
            "command": f"python reward_models.py {reward_model} --seed {{seed}} --port {{port}}" if asked else "",
            "judge": "examples.study.oracle:assess",
            "data": {"train": "train.parquet, 640 rows, sha256 3fa2c1d05e6f", "val": "val.parquet, 384 rows"},
            "dtype": "float32",
        }
    ]
    gamma = 0.7 if reward_model in ("hackable", "contrarian") else 0.97
    for step in range(1, steps + 1):
        outcome = 0.6 + (level - 0.6) * step / steps
        lines.append(
            {
                "kind": "step",
                "step": step,
                "outcome": _share(outcome + noise * own.normal()),
                "thinking": 0.5 if asked else None,
                "oracle": _share(0.4 + (outcome - 0.6) / 2 + noise * own.normal()),
                "hacked": _share(0.1 + noise * own.normal()) if asked else None,
                "gamma": 0.99 if asked else None,  # groups whose trust is 1 whatever the scores are count too
                "gamma_mixed": _share(gamma + noise * own.normal()) if asked else None,
                "distrusted": 0.1 if asked else None,
                "anneal": 0.9 if asked else None,
                "length": 20.0 + own.normal(),
                "format": 1.0,
                "kl": 0.001,
                "entropy": 0.9,
                "grad_norm": 0.3,
                "auc_thinking": 0.8 if asked else None,
                "auc_oracle": 0.85,
                "forms": {"short": 1.0},
                "seconds": 9.0,
            }
        )
    final = {"level": level, "noise": noise, "asked": asked}
    return [*lines, *(validation(mode, steps, own, questions=questions, **final) for mode in ("greedy", "sampled"))]


def validation(
    mode: str, step: int, own: np.random.Generator, *, level: float, noise: float, asked: bool, questions: int
) -> dict[str, Any]:
    """A validation after a step."""
    outcome = level + (0.05 if mode == "greedy" else 0.0) + noise * own.normal()
    return {
        "kind": "validation",
        "step": step,
        "mode": mode,
        "questions": questions,
        "outcome": _share(outcome),
        "thinking": 0.5 if asked else None,
        "oracle": _share(0.4 + (level - 0.6) / 2 + noise * own.normal()),
        "hacked": 0.1 if asked else None,
        "length": 20.0 + own.normal(),
        "format": 1.0,
        "by_type": {kind: _share(outcome + shift) for kind, shift in KINDS.items()},
        "right": "".join(map(str, own.integers(0, 2, questions))),
        "oracle_scores": "".join(own.choice(list("0123456789a"), questions)),
    }


def write_cell(folder: Path, lines: list[dict[str, Any]]) -> Path:
    """The file of a cell."""
    folder.mkdir(parents=True, exist_ok=True)
    head = lines[0]
    file = folder / f"{head['variant']}.{head['reward_model']}.{head['seed']}.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return file


def write_start(folder: Path, **settings: Any) -> Path:
    """The file of the untrained policy."""
    head = {**cell_lines("start", "none", 0, **settings)[0], "steps": 0, "checks": {"responses": 0}}
    own = np.random.default_rng(0)
    given = {"level": 0.6, "noise": 0.0, "asked": False, "questions": settings.get("questions", 40)}
    return write_cell(folder, [head, *(validation(mode, 0, own, **given) for mode in ("greedy", "sampled"))])


def write_grid(
    folder: Path,
    variants: Iterable[str] = ("default", "no_trust", "no_trust_no_annealing"),
    reward_models: Iterable[str] = ("oracle", "noisy", "hackable"),
    seeds: int = 6,
    effect: Effect = no_effect,
    **settings: Any,
) -> Path:
    """A grid with the untrained policy, and ``outcome_only`` beside the variants."""
    write_start(folder, **settings)
    pairs = [("outcome_only", "none"), *((variant, model) for model in reward_models for variant in variants)]
    for variant, model in pairs:
        for seed in range(1, seeds + 1):
            write_cell(folder, cell_lines(variant, model, seed, effect=effect(variant, model), **settings))
    return folder


def _share(value: float) -> float:
    return float(np.clip(value, 0.0, 1.0))
