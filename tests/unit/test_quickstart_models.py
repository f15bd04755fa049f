"""The weights that the repository keeps do what the quickstart needs of them, on held-out images."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ImageOps
from transformers import AutoProcessor, AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from data_preprocess.easy_vqa import Scene

QUICKSTART = Path(__file__).resolve().parents[2] / "examples/quickstart"
COUNT = 240


@pytest.fixture(scope="module")
def quickstart() -> SimpleNamespace:
    """The modules of the folder, which is no package."""
    sys.path.insert(0, str(QUICKSTART))
    try:
        names = ("drawing", "evaluation", "make_models", "traces", "training")
        return SimpleNamespace(**{name: import_module(name) for name in names})
    finally:
        sys.path.remove(str(QUICKSTART))


@pytest.fixture(scope="module")
def workshop(quickstart: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Draws from held-out pictures; its models are those that the repository keeps."""
    tokenizer = AutoTokenizer.from_pretrained(QUICKSTART / "models/policy")
    workshop = quickstart.make_models.Workshop(tmp_path_factory.mktemp("models"), 0, tokenizer)
    workshop.out = QUICKSTART / "models"
    return workshop


def evaluate(quickstart: SimpleNamespace, workshop: Any, name: str) -> dict[str, float]:
    """The figures of a kept model, on COUNT questions."""
    torch.manual_seed(0)
    measure = getattr(quickstart.evaluation, f"evaluate_{name}")
    return measure(workshop.load(name), *workshop.held_out, COUNT)


def test_pixels_are_those_that_the_processor_makes_of_a_scene(quickstart: SimpleNamespace, workshop: Any) -> None:
    images = workshop.images[:3]
    processor = AutoProcessor.from_pretrained(QUICKSTART / "models/policy").image_processor
    scene = Scene((images[2], images[0], images[1])).image()
    made = processor(images=[scene, ImageOps.mirror(scene)], return_tensors="pt")
    pixels = quickstart.training.Pixels(images, processor)
    assert torch.allclose(pixels[[(2, 0, 1)]], made["pixel_values"][: len(made["pixel_values"]) // 2], atol=1e-5)
    assert torch.equal(pixels.grid, made["image_grid_thw"][:1])
    assert not torch.allclose(pixels[[(1, 0, 2)]], pixels[[(2, 0, 1)]], atol=1e-2)


def test_pictures_are_augmented_and_stay_recognisable(quickstart: SimpleNamespace, workshop: Any) -> None:
    torch.manual_seed(0)
    pictures = workshop.pixels.pictures[:50] / 255
    drawn = torch.stack([quickstart.training._augmented(pictures) for _ in range(20)])
    assert drawn.shape == (20, *pictures.shape)
    upright = pictures.flip(2), pictures.flip(3), pictures.flip(2, 3), pictures
    sharp = torch.stack([(drawn - known).abs().amax((2, 3, 4)) < 1e-4 for known in upright]).any(0)
    assert 0.2 < sharp.float().mean() < 0.8, "some are only turned, and some are shifted and zoomed too"
    color = pictures.amin((2, 3))  # of the shape, on a bright ground
    assert (drawn.amin((3, 4)) - color).abs().mean() < 0.05


def test_a_fast_step_is_the_plain_models_step(quickstart: SimpleNamespace, workshop: Any) -> None:
    """Positions, windows and layouts made beforehand, and windows attended at once, change no gradient."""
    encoder, pixels, maker = workshop.held_out
    maker.rng.seed(3)
    batches = quickstart.training.Batches(maker.policy, maker.rng, encoder, pixels.grid, 4)
    inputs = next(iter(batches))
    scenes = inputs.pop("scenes")
    maker.rng.seed(3)
    examples = [maker.policy() for _ in range(4)]
    plain = Qwen2_5_VLForConditionalGeneration.from_pretrained(QUICKSTART / "models/policy", dtype="float32")
    fast = workshop.load("policy")
    losses = (
        plain(**encoder.batch(examples, pixels, with_reply=True)).loss,
        fast(**inputs, **pixels.inputs(scenes), use_cache=False).loss,
    )
    for loss in losses:
        loss.backward()
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
    for expected, got in zip(plain.parameters(), fast.parameters(), strict=True):
        assert torch.allclose(expected.grad, got.grad, atol=1e-5)


def test_workers_draw_different_examples(quickstart: SimpleNamespace, workshop: Any) -> None:
    encoder, pixels, maker = workshop.held_out
    batches = quickstart.training.Batches(maker.policy, maker.rng, encoder, pixels.grid, 8)
    loader = iter(torch.utils.data.DataLoader(batches, batch_size=None, num_workers=2))
    scenes = [next(loader)["scenes"] for _ in range(4)]
    assert len({tuple(rows.flatten().tolist()) for rows in scenes}) == 4


@pytest.fixture(scope="module")
def policy(quickstart: SimpleNamespace, workshop: Any) -> dict[str, float]:
    return evaluate(quickstart, workshop, "policy")


def test_policy_follows_the_format_and_answers_some_but_not_all_right(policy: dict[str, float]) -> None:
    assert policy["sampled at T=1: format followed"] > 0.95
    assert 0.3 < policy["greedy: right answers"] < 0.65
    assert policy["sampled at T=1: wrong thinking (below 0.8), right answer"] > 0.02
    assert policy["sampled at T=1: right thinking (0.8 or more), wrong answer"] > 0


def test_policy_thinks_in_several_forms_and_looks_too_rarely(policy: dict[str, float]) -> None:
    shares = {form: policy[f"sampled at T=1: share of {form} thinking"] for form in ("hasty", "short", "full", "twice")}
    assert min(shares.values()) > 0.02
    assert sum(shares.values()) > 0.9
    assert policy["greedy: share of hasty thinking"] > 0.6, "RL has something to learn"
    looking = policy["sampled at T=1: right answers after full thinking"]
    assert looking > policy["sampled at T=1: right answers after hasty thinking"] + 0.15


def test_the_policys_answer_follows_from_its_thinking(policy: dict[str, float]) -> None:
    assert policy["sampled at T=1: AUC of the thinking score for a right answer"] > 0.75
    right, wrong = (
        policy[f"greedy: right answers after {steps} steps that were forced"] for steps in ("right", "wrong")
    )
    assert right > 0.85
    assert wrong < 0.4


def test_trm_base_compares_words_and_can_still_say_what_the_image_shows(
    quickstart: SimpleNamespace, workshop: Any
) -> None:
    figures = evaluate(quickstart, workshop, "trm_base")
    assert figures["sampled at T=1: comparisons in a reply"] > 4
    assert figures["sampled at T=1: of them right"] > 0.95
    assert figures["sampled at T=1: right answers after full thinking"] > 0.6


def test_trm_base_compares_words_that_differ_as_often_as_the_same(quickstart: SimpleNamespace, workshop: Any) -> None:
    """To be right it would be enough to write "red red yes" again and again."""
    encoder, pixels, maker = workshop.held_out
    examples = [maker.comparison() for _ in range(COUNT)]
    replies = quickstart.training.generate(
        workshop.load("trm_base"), encoder, pixels, examples, temperature=1.0, max_new_tokens=48
    )
    text = " ".join(replies)
    assert 0.4 < text.count(" yes") / (text.count(" yes") + text.count(" no")) < 0.6


def test_compared_words_are_as_often_the_same_as_not(quickstart: SimpleNamespace, workshop: Any) -> None:
    traces = quickstart.traces
    reply = ", ".join(traces.compared_words(workshop.maker.rng) for _ in range(100))
    assert traces.right_comparisons(reply) == [True] * 600
    assert 240 < reply.count(" yes") < 360
    assert traces.right_comparisons("color red red no, red blue yes, shape circle circle yes") == [False, False, True]


def test_trm_tells_right_thinking_from_wrong_by_the_image(quickstart: SimpleNamespace, workshop: Any) -> None:
    figures = evaluate(quickstart, workshop, "trm")
    assert figures["replies that are a score"] > 0.97
    assert figures["mean absolute error"] < 0.1
    assert figures["rank correlation (dense ranks)"] > 0.85
    drop = figures["mean score of right thinking"] - figures["the same texts with another image"]
    assert drop > 0.4, "the score must come from the image"


def test_trm_score_tells_which_of_the_policys_answers_are_right(quickstart: SimpleNamespace, workshop: Any) -> None:
    models = [workshop.load(name) for name in ("trm", "policy")]
    figures = quickstart.evaluation.evaluate_trm_on_policy(*models, *workshop.held_out, 2 * COUNT)
    assert figures["the policy's responses: AUC of the score for a right answer"] > 0.7
    assert figures["the policy's responses: mean absolute error"] < 0.1


def test_auc_counts_ties_as_half(quickstart: SimpleNamespace) -> None:
    scores = np.array([0.9, 0.5, 0.5, 0.1])
    right = np.array([True, True, False, False])
    assert quickstart.evaluation.auc(scores, right) == (1 + 1 + 0.5 + 1) / 4
    assert quickstart.evaluation.auc(scores, ~right) == 0.5 / 4
