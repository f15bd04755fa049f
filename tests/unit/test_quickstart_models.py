"""The weights that the repository keeps do what the quickstart needs of them, on held-out images."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

QUICKSTART = Path(__file__).resolve().parents[2] / "examples/quickstart"
COUNT = 120


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


def test_policy_follows_the_format_and_answers_some_but_not_all_right(
    make_models: ModuleType, workshop: object
) -> None:
    figures = evaluate(make_models, workshop, "policy")
    assert figures["sampled at T=1: format followed"] > 0.95
    assert 0.3 < figures["sampled at T=1: outcome reward"] < 0.75
    assert figures["sampled at T=1: wrong description, right answer"] > 0.03
    assert figures["sampled at T=1: right description, wrong answer"] > 0.03


def test_trm_base_compares_words_and_can_still_say_what_the_image_shows(
    make_models: ModuleType, workshop: object
) -> None:
    figures = evaluate(make_models, workshop, "trm_base")
    assert figures["sampled at T=1: comparisons in a reply"] > 4
    assert figures["sampled at T=1: of them right"] > 0.95
    assert figures["greedy: thinking score by rule"] > 0.85


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


def test_trm_tells_right_descriptions_from_wrong_ones_by_the_image(make_models: ModuleType, workshop: object) -> None:
    figures = evaluate(make_models, workshop, "trm")
    assert figures["replies that are a score"] > 0.95
    assert figures["rank correlation (dense ranks)"] > 0.6
    drop = figures["mean score of right descriptions"] - figures["the same texts with another image"]
    assert drop > 0.2, "the score must come from the image"


def test_judge_gives_points_for_what_the_image_shows(make_models: ModuleType, workshop: object) -> None:
    from traces import judge  # importable once make_models is

    image = workshop.images[0]
    question = make_models.Question("what color is the shape?", "free-form", image.color)
    right = f"The image shows a {image.color} {image.shape}. So it is {image.color}."
    assert judge(image, question, right) == 1.0
    assert judge(image, question, f"{right} {right}") == 0.0
    assert judge(image, question, right.replace(f"it is {image.color}", "it is pink")) == 0.9
    assert judge(image, question, "score: 1.0") == 0.0
    scores = [make_models.judged_trace(image, question, workshop.test.rng)[1] for _ in range(500)]
    assert len(set(np.round(scores, 1))) >= 5, "scores of all sizes to learn from"
