"""The weights that the repository keeps do what the quickstart needs of them, on held-out images."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import ImageOps

QUICKSTART = Path(__file__).resolve().parents[2] / "examples/quickstart"
COUNT = 240


@pytest.fixture(scope="module")
def make_models() -> ModuleType:
    sys.path.insert(0, str(QUICKSTART))
    try:
        import make_models

        return make_models
    finally:
        sys.path.remove(str(QUICKSTART))


@pytest.fixture(scope="module")
def workshop(make_models: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> object:
    tokenizer = make_models.AutoTokenizer.from_pretrained(QUICKSTART / "models/policy")
    return make_models.Workshop(tmp_path_factory.mktemp("models"), 0, tokenizer)


def load(make_models: ModuleType, name: str) -> object:
    folder = QUICKSTART / "models" / name
    return make_models.Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype="float32").eval()


def evaluate(make_models: ModuleType, workshop: object, name: str) -> dict[str, float]:
    """The figures of a kept model, on COUNT questions."""
    measure = getattr(make_models, f"evaluate_{name}")
    return measure(load(make_models, name), workshop.encoder, workshop.test_pixels, workshop.test, COUNT)


def test_pixels_are_those_that_the_processor_makes_of_a_scene(make_models: ModuleType, workshop: object) -> None:
    images = workshop.test.images[:3]
    processor = make_models.AutoProcessor.from_pretrained(workshop.out / "policy").image_processor
    scene = make_models.Scene((images[2], images[0], images[1])).image()
    assert processor(images=[scene])["image_grid_thw"].tolist() == [[1, 4, 12]]
    upright, turned = (
        processor(images=[row], return_tensors="pt")["pixel_values"] for row in (scene, ImageOps.flip(scene))
    )
    for flip, expected in ((False, [upright]), (True, [upright, turned])):
        table = make_models.Pixels(images, processor, flip=flip)
        seen = [table[[(2, 0, 1)]][0] for _ in range(30)]
        assert all(any(torch.equal(patches, known) for known in expected) for patches in seen)
        assert all(any(torch.equal(patches, known) for patches in seen) for known in expected)


@pytest.fixture(scope="module")
def policy(make_models: ModuleType, workshop: object) -> dict[str, float]:
    return evaluate(make_models, workshop, "policy")


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
    assert looking > policy["sampled at T=1: right answers after hasty thinking"]


def test_the_policys_answer_follows_from_its_thinking(policy: dict[str, float]) -> None:
    assert policy["sampled at T=1: AUC of the thinking score for a right answer"] > 0.6
    right, wrong = (
        policy[f"greedy: right answers after {steps} steps that were forced"] for steps in ("right", "wrong")
    )
    assert right > wrong + 0.2


def test_trm_base_compares_words_and_can_still_say_what_the_image_shows(
    make_models: ModuleType, workshop: object
) -> None:
    figures = evaluate(make_models, workshop, "trm_base")
    assert figures["sampled at T=1: comparisons in a reply"] > 4
    assert figures["sampled at T=1: of them right"] > 0.95
    assert figures["sampled at T=1: right answers after full thinking"] > 0.4


def test_trm_base_compares_words_that_differ_as_often_as_the_same(make_models: ModuleType, workshop: object) -> None:
    """To be right it would be enough to write "red red yes" again and again."""
    examples = [workshop.test.comparison() for _ in range(COUNT)]
    model = load(make_models, "trm_base")
    replies = make_models.generate(
        model, workshop.encoder, workshop.test_pixels, examples, temperature=1.0, max_new_tokens=48
    )
    text = " ".join(replies)
    assert 0.4 < text.count(" yes") / (text.count(" yes") + text.count(" no")) < 0.6


def test_compared_words_are_as_often_the_same_as_not(make_models: ModuleType, workshop: object) -> None:
    from traces import compared_words, right_comparisons  # importable once make_models is

    reply = ", ".join(compared_words(workshop.test.rng) for _ in range(100))
    assert right_comparisons(reply) == [True] * 600
    assert 240 < reply.count(" yes") < 360
    assert right_comparisons("color red red no, red blue yes, shape circle circle yes") == [False, False, True]


def test_trm_tells_right_thinking_from_wrong_by_the_image(make_models: ModuleType, workshop: object) -> None:
    figures = evaluate(make_models, workshop, "trm")
    assert figures["replies that are a score"] > 0.97
    assert figures["mean absolute error"] < 0.13
    assert figures["rank correlation (dense ranks)"] > 0.75
    drop = figures["mean score of right thinking"] - figures["the same texts with another image"]
    assert drop > 0.4, "the score must come from the image"


def test_trm_score_tells_which_of_the_policys_answers_are_right(make_models: ModuleType, workshop: object) -> None:
    models = [load(make_models, name) for name in ("trm", "policy")]
    figures = make_models.evaluate_trm_on_policy(
        *models, workshop.encoder, workshop.test_pixels, workshop.test, 2 * COUNT
    )
    assert figures["the policy's responses: AUC of the score for a right answer"] > 0.57
    assert figures["the policy's responses: mean absolute error"] < 0.15


def test_auc_counts_ties_as_half(make_models: ModuleType) -> None:
    scores = make_models.np.array([0.9, 0.5, 0.5, 0.1])
    right = make_models.np.array([True, True, False, False])
    assert make_models.auc(scores, right) == (1 + 1 + 0.5 + 1) / 4
    assert make_models.auc(scores, ~right) == 0.5 / 4
