"""What each of the study's reward models tells about the cold-started policy's thinking, as a table in Markdown.

    python -m examples.study.quality

The policy answers questions about the pictures that RL trains on, eight times each at temperature 1, and the trained
TRM scores its thinking: some minutes on one core. The columns: the score's mean and standard deviation; its standard
deviation within a group, which is what GRPO can climb; the AUC for a right answer; the rank correlation with the
oracle; the mean within each form of thinking; the share of hacked responses (0.5 or more above the oracle); the trust
weight gamma, mean over groups.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

sys.path.append(str(Path(__file__).parents[1] / "quickstart"))  # its modules import each other by their bare names

from drawing import Maker
from evaluation import MAX_REPLY_TOKENS, auc, trm_scores
from traces import form_of
from training import Encoder, Pixels, generate, windows_at_once
from transformers import AutoProcessor, AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from data_preprocess.easy_vqa import FIRST_RL_IMAGE, load_images
from examples.study.reward_models import Asked, RewardModel, confident, contrarian, length, noisy, oracle
from recipe.sophiavl.trm.prompt import load_template
from recipe.sophiavl.trust_grpo import trust_weights
from reward_score import extract_thinking, score_outcome

QUICKSTART = Path(__file__).parents[1] / "quickstart"
GROUP = 8
FORMS = ("hasty", "short", "full", "twice")


def drifted(weight: float) -> RewardModel:
    """`Hackable` where its drift has come this far."""
    return lambda asked: (1 - weight) * oracle(asked) + weight * confident(asked)


MODELS: dict[str, RewardModel] = {
    "oracle": oracle,
    **{f"noisy, {noise}": noisy(noise, 0) for noise in (0.1, 0.3, 0.6, 1.0)},
    "length": length(32),
    "confident (hackable at last)": confident,
    "hackable, a quarter drifted": drifted(0.25),
    "hackable, half drifted": drifted(0.5),
    "hackable, three quarters drifted": drifted(0.75),
    "contrarian": contrarian,
}


class Engine:
    """The tiny models with what they see and are asked; policy and TRM share a tokenizer and an image processor."""

    def __init__(self, seed: int) -> None:
        folder = QUICKSTART / "models/policy"
        self.encoder = Encoder(AutoTokenizer.from_pretrained(folder))
        images = [image for image in load_images("train") if image.image_id >= FIRST_RL_IMAGE]
        self.pixels = Pixels(images, AutoProcessor.from_pretrained(folder).image_processor)
        self.maker = Maker(images, self.encoder.tokenizer, load_template(QUICKSTART / "trm_prompt.yaml"), seed)

    @staticmethod
    def model(name: str) -> Qwen2_5_VLForConditionalGeneration:
        """``policy`` or ``trm``, in float32."""
        folder = QUICKSTART / "models" / name
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        windows_at_once(model)
        return model


def sample(engine: Engine, questions: int, seed: int) -> pd.DataFrame:
    """The policy's responses, a row each: ``asked``, ``outcome`` (in [0, 1]), ``form`` and ``group``."""
    maker = engine.maker
    torch.manual_seed(seed)
    asked = [maker.question() for _ in range(questions)]
    prompts = [maker.example(scene, maker.policy_prompt(question)) for scene, question in asked for _ in range(GROUP)]
    replies = generate(
        engine.model("policy"),
        engine.encoder,
        engine.pixels,
        prompts,
        temperature=1.0,
        max_new_tokens=MAX_REPLY_TOKENS,
    )
    rows = []
    for number, reply in enumerate(replies):
        scene, question = asked[number // GROUP]
        outcome = score_outcome(question.problem_type, reply, question.answer, question.options)
        if outcome.format_ok:  # no other is asked about
            thinking = extract_thinking(reply)
            rows.append((Asked(scene, question, thinking), outcome.reward, form_of(thinking), number // GROUP))
    return pd.DataFrame(rows, columns=["asked", "outcome", "form", "group"])


def tiny_trm_scores(engine: Engine, responses: pd.DataFrame) -> np.ndarray:
    """What the quickstart's trained TRM scores; NaN where its reply is no score."""
    examples = [
        engine.maker.example(asked.scene, engine.maker.trm_prompt(asked.question, asked.thinking))
        for asked in responses["asked"]
    ]
    return trm_scores(engine.model("trm"), engine.encoder, engine.pixels, examples)


def figures(scores: np.ndarray, responses: pd.DataFrame) -> dict[str, float]:
    """A reward model's line of the table, over the responses that have a score."""
    scored = np.isfinite(scores)
    scores, responses = scores[scored], responses[scored]
    truth = scores_of(oracle, responses)
    outcome, groups = responses["outcome"].to_numpy(), responses["group"].to_numpy()
    by_form = pd.Series(scores).groupby(responses["form"].to_numpy()).mean()
    return {
        "mean": scores.mean(),
        "sd": scores.std(),
        "sd in a group": np.sqrt(pd.Series(scores).groupby(groups).var(ddof=0).mean()),
        "AUC": auc(scores, outcome >= 0.5),
        "rank correlation": spearmanr(scores, truth).statistic,
        **{form: by_form.get(form, np.nan) for form in FORMS},
        "hacked": (scores - truth >= 0.5).mean(),
        "gamma": pd.Series(trust_weights(outcome, scores, groups)).groupby(groups).first().mean(),
    }


def scores_of(model: RewardModel, responses: pd.DataFrame) -> np.ndarray:
    """A rule's scores."""
    return responses["asked"].map(model).to_numpy(dtype=np.float64)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.study.quality",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--questions", type=int, default=160, help="each answered eight times (default: 160)")
    parser.add_argument("--seed", type=int, default=0, help="of the questions and of the sampling (default: 0)")
    given = parser.parse_args(arguments)
    engine = Engine(given.seed)
    responses = sample(engine, given.questions, given.seed)
    lines = {name: figures(scores_of(model, responses), responses) for name, model in MODELS.items()}
    trained = tiny_trm_scores(engine, responses)
    lines["tiny_trm"] = figures(trained, responses)
    names = list(lines["oracle"])
    right = (responses["outcome"] >= 0.5).mean()
    print(f"{len(responses)} responses to {given.questions} questions, {right:.3f} right.")
    print(f"Replies of tiny_trm that are no score: {np.isnan(trained).sum()}.\n")
    print(f"| reward model | {' | '.join(names)} |\n|-|{'-|' * len(names)}")
    for name, line in lines.items():
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in line.values())} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
