"""Makes three tiny models: a cold-started policy, a thinking reward model (TRM), and one to train a TRM from.

``policy`` and ``trm`` are the quickstart's. ``trm_base`` stands in for the pretrained model that a TRM is trained from
(Qwen2.5-VL-3B in the paper): the policy, which has also learned to say whether two words are the same.

The weights that the repository keeps under ``models/`` were made on one NVIDIA H200 in five minutes, with
``python examples/quickstart/make_models.py --device cuda --workers 11``; two CPU cores need many hours. ``CARD.md``
beside them holds the figures that this script printed: measured on held-out pictures with the saved bfloat16 weights.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from drawing import Maker, tokenizer_texts
from evaluation import evaluate_policy, evaluate_trm, evaluate_trm_base, evaluate_trm_on_policy, report
from tiny_qwen import model_config, save_processor, train_tokenizer
from training import Batches, Encoder, Example, Pixels, train_eyes, train_language, windows_at_once
from transformers import AutoProcessor, AutoTokenizer, PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

from data_preprocess.easy_vqa import FIRST_RL_IMAGE, load_images
from recipe.sophiavl.trm.prompt import load_template

HERE = Path(__file__).parent
STAGES = ("policy", "trm_base", "trm")
LEARNING_RATE = 2e-3
TEST_QUESTIONS = 600


class Workshop:
    """Data, tokenizer and images that all stages share.

    Args:
        out: folder for ``policy/``, ``trm_base/`` and ``trm/``.
        seed: of the examples and of the weights.
        tokenizer: the policy's, or None to train one.
        device: where the models are trained and tried.
        batch_size: examples in a step of the language's training.
        workers: processes that draw them.
    """

    def __init__(
        self,
        out: Path,
        seed: int,
        tokenizer: PreTrainedTokenizerFast | None,
        *,
        device: str = "cpu",
        batch_size: int = 32,
        workers: int = 0,
    ) -> None:
        self.out, self.device, self.batch_size, self.workers = out, device, batch_size, workers
        template = load_template(str(HERE / "trm_prompt.yaml"))
        held_out = load_images("test")
        self.images = [image for image in load_images("train") if image.image_id < FIRST_RL_IMAGE]
        self.tokenizer = tokenizer or train_tokenizer(tokenizer_texts(self.images, template, seed))
        self.encoder = Encoder(self.tokenizer)
        save_processor(self.tokenizer, out / "policy")
        processor = AutoProcessor.from_pretrained(out / "policy").image_processor
        self.pixels = Pixels(self.images, processor, augment=True, device=device)
        self.maker = Maker(self.images, self.tokenizer, template, seed)
        test_pixels = Pixels(held_out, processor, device=device)
        self.held_out = self.encoder, test_pixels, Maker(held_out, self.tokenizer, template, seed + 1)

    def make_policy(self, eye_steps: int, lesson_steps: int, steps: int) -> str:
        """Train and save the policy; returns its part of the model card.

        It learns to see, then to think rightly, and last to think as carelessly as RL shall find it.
        """
        model = Qwen2_5_VLForConditionalGeneration(model_config(self.tokenizer)).to(self.device)
        windows_at_once(model)
        model.generation_config.eos_token_id = self.tokenizer.eos_token_id
        model.generation_config.pad_token_id = self.tokenizer.pad_token_id
        train_eyes(model, self.images, self.pixels, eye_steps, lr=LEARNING_RATE)
        self._train(model, self.maker.lesson, lesson_steps, "lessons")
        self._train(model, self.maker.policy, steps, "policy", lr=LEARNING_RATE / 2)
        self._save(model, "policy")
        return report("Policy", evaluate_policy(model, *self.held_out, TEST_QUESTIONS))

    def make_from_policy(self, name: str, steps: int) -> str:
        """Train "trm_base" or "trm" from the policy's weights and save it; returns its part of the model card."""
        title, draw, evaluate = {
            "trm_base": ("Model to train a TRM from", self.maker.trm_base, evaluate_trm_base),
            "trm": ("Thinking reward model", self.maker.trm, evaluate_trm),
        }[name]
        policy, model = self.load("policy"), self.load("policy")
        self._train(model, draw, steps, name)
        self._save(model, name)
        figures = evaluate(model, *self.held_out, TEST_QUESTIONS)
        if name == "trm":
            figures |= evaluate_trm_on_policy(model, policy, *self.held_out, TEST_QUESTIONS)
        return report(title, figures)

    def load(self, name: str) -> Qwen2_5_VLForConditionalGeneration:
        """One of the models, ready to be tried."""
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(self.out / name, dtype=torch.float32)
        windows_at_once(model)
        return model.to(self.device).eval()

    def _train(
        self,
        model: Qwen2_5_VLForConditionalGeneration,
        draw: Callable[[], Example],
        steps: int,
        name: str,
        lr: float = LEARNING_RATE,
    ) -> None:
        batches = Batches(draw, self.maker.rng, self.encoder, self.pixels.grid, self.batch_size)
        train_language(model.train(), batches, self.pixels, steps=steps, workers=self.workers, lr=lr, name=name)

    def _save(self, model: Qwen2_5_VLForConditionalGeneration, name: str) -> None:
        """Write the weights; what is left in `model` are the written, rounded ones."""
        model.to(torch.bfloat16).save_pretrained(self.out / name)
        save_processor(self.tokenizer, self.out / name)
        model.float().eval()


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "models", help="folder for policy/, trm_base/ and trm/")
    parser.add_argument(
        "--stage", choices=("all", *STAGES), default="all", help="trm_base and trm start from out/policy"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw examples (default: none)")
    parser.add_argument("--batch-size", type=int, default=256, help="examples in a step")
    parser.add_argument("--eye-steps", type=int, default=1400, help="steps of the vision tower's training")
    parser.add_argument("--lesson-steps", type=int, default=2700, help="SFT steps of the policy on right traces")
    parser.add_argument("--policy-steps", type=int, default=900, help="SFT steps of the policy on careless ones")
    parser.add_argument("--trm-base-steps", type=int, default=1000, help="SFT steps of the model to train a TRM from")
    parser.add_argument("--trm-steps", type=int, default=1600, help="SFT steps of the TRM")
    options = parser.parse_args(arguments)
    # Once the loss is near 0, gradients of denormal size would slow every step down.
    torch.set_flush_denormal(True)
    made = options.out / "policy"
    kept = AutoTokenizer.from_pretrained(made) if options.stage.startswith("trm") else None
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU
    workshop = Workshop(
        options.out,
        options.seed,
        kept,
        device=options.device,
        batch_size=options.batch_size,
        workers=options.workers,
    )
    for stage in STAGES if options.stage == "all" else (options.stage,):
        torch.manual_seed(options.seed)
        started = time.monotonic()
        if stage == "policy":
            card = workshop.make_policy(options.eye_steps, options.lesson_steps, options.policy_steps)
        else:
            steps = options.trm_base_steps if stage == "trm_base" else options.trm_steps
            card = workshop.make_from_policy(stage, steps)
        card += f"\nMade in {(time.monotonic() - started) / 60:.0f} minutes.\n"
        (options.out / stage / "CARD.md").write_text(card)
        print(card, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
