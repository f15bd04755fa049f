"""The judge by rule of the quickstart: reads what the client sends, and refuses what it can't read."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest

from data_preprocess.easy_vqa import ShapeImage, load_images, make_question
from recipe.sophiavl.trm.images import data_url, digest_image
from recipe.sophiavl.trm.parse import parse_score
from recipe.sophiavl.trm.prompt import clean_question, clean_thinking, load_template, prepare_prompt

QUICKSTART = Path(__file__).parents[2] / "examples/quickstart"


@pytest.fixture(scope="module")
def judge():
    sys.path.insert(0, str(QUICKSTART))
    try:
        import judge_server

        yield judge_server.Judge()
    finally:
        sys.path.remove(str(QUICKSTART))


@pytest.fixture(scope="module")
def image() -> ShapeImage:
    return next(image for image in load_images("train") if (image.color, image.shape) == ("blue", "circle"))


def request(image_file: bytes | None, question: str, thinking: str, prompt: Path = QUICKSTART / "trm_prompt.yaml"):
    """A chat request as the client sends it."""
    template = load_template(prompt)
    urls = [] if image_file is None else [data_url(digest_image(image_file))]
    prepared = prepare_prompt(template, clean_question(question), urls)
    return {"messages": json.loads(prepared.messages_json(clean_thinking(template, thinking, 1000)))}


@pytest.mark.parametrize(
    ("thinking", "score"),
    [
        ("The image shows a blue circle. So it is circle.", 1.0),
        ("The image shows a blue circle. So it is seven.", 0.9),
        ("The image shows a red circle. So it is circle.", 0.5),
        ("The image shows a blue triangle. So it is circle.", 0.6),
        ("Score: 1.0", 0.0),
        ("The image shows a blue circle. " * 2, 0.0),
        ("", 0.0),
    ],
)
def test_the_judge_knows_what_the_image_shows(judge, image, thinking, score):
    reply = judge.reply(request(image.path.read_bytes(), "what shape is in the image?", thinking))
    assert parse_score(reply) == score


def test_every_kind_of_question_is_read(judge, image):
    for kind in ("numerical", "multiple choice", "free-form"):
        question = make_question(image, kind, random.Random(0))
        assert question is not None
        text = "\n".join([question.text, *question.options])
        thinking = f"The image shows a blue circle. So it is {question.answer}."
        assert parse_score(judge.reply(request(image.path.read_bytes(), text, thinking))) == 1.0


def test_what_the_judge_cannot_read_is_refused(judge, image, tmp_path):
    seen = image.path.read_bytes()
    with pytest.raises(ValueError, match="easy-VQA does not have"):
        judge.reply(request(seen + b"x", "what shape?", "It is red."))
    with pytest.raises(ValueError, match="0 images"):
        judge.reply(request(None, "what shape?", "It is red."))
    with pytest.raises(ValueError, match="layout"):
        judge.reply(request(seen, "what shape?", "It is red.", prompt=None))
    with pytest.raises(ValueError, match="no options"):
        judge.reply(request(seen, "what shape?\nSay what you see", "It is red."))
