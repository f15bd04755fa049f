"""The judge by rule of the quickstart: reads what the client sends, and refuses what it can't read."""

from __future__ import annotations

import io
import json
import random
import sys
from pathlib import Path

import pytest
from PIL import Image

from data_preprocess.easy_vqa import TYPES, Question, Scene, load_images, make_question
from recipe.sophiavl.trm.images import data_url, digest_image
from recipe.sophiavl.trm.parse import parse_score
from recipe.sophiavl.trm.prompt import clean_question, clean_thinking, load_template, prepare_prompt

QUICKSTART = Path(__file__).parents[2] / "examples/quickstart"
LOOKS = (("red", "circle"), ("teal", "triangle"), ("red", "rectangle"))
COUNT = "how many red shapes are there?"
BESIDE = "what color is the shape left of the triangle?"


@pytest.fixture(scope="module")
def traces():
    sys.path.insert(0, str(QUICKSTART))
    try:
        import judge_server
        import traces

        traces.server = judge_server
        yield traces
    finally:
        sys.path.remove(str(QUICKSTART))


@pytest.fixture(scope="module")
def server(traces):
    return traces.server.Judge()


@pytest.fixture(scope="module")
def scene() -> Scene:
    images = load_images("train")
    return Scene(tuple(next(image for image in images if image.look == look) for look in LOOKS))


def request(image_file: bytes | None, question: str, thinking: str, prompt: Path = QUICKSTART / "trm_prompt.yaml"):
    """A chat request as the client sends it."""
    template = load_template(prompt)
    urls = [] if image_file is None else [data_url(digest_image(image_file))]
    prepared = prepare_prompt(template, clean_question(question), urls)
    return {"messages": json.loads(prepared.messages_json(clean_thinking(template, thinking, 1000)))}


@pytest.mark.parametrize(
    ("question", "thinking", "score"),
    [
        (COUNT, "left red circle yes. middle teal triangle no. right red rectangle yes. So it is 2.", 1.0),
        (COUNT, "right red yes. middle teal no. left red yes. So it is 2.", 1.0),
        (COUNT, "left red. middle teal. right red. So it is 2.", 1.0),  # nothing is marked, and nothing need be
        (COUNT, "left red circle yes. middle teal circle no. right red circle yes. So it is 2.", 0.8),  # shapes
        (COUNT, "left red yes. middle red yes. right red yes. So it is 3.", 0.7),  # one of three is wrong
        (COUNT, "left red yes. middle teal yes. right red yes. So it is 2.", 0.7),  # a mark is wrong
        (COUNT, "left red yes. middle teal no. right red yes. So it is 3.", 0.7),  # so is the conclusion
        (COUNT, "left red yes. middle teal no. right red yes.", 0.7),  # or there is none
        (COUNT, "left red yes. middle teal no. right red yes. So it is 2. So it is 3.", 0.7),  # or several
        (COUNT, "left red yes. middle teal no. right red yes. look left. So it is 2.", 0.7),  # no place answers it
        (COUNT, "left red yes. middle teal no. right red yes. left red yes. So it is 2.", 0.8),  # twice
        (COUNT, "left red yes. So it is 1.", 0.3),
        (COUNT, "left circle. middle triangle. right rectangle. So it is 0.", 0.0),  # nothing of what is needed
        (COUNT, "It looks like 2.", 0.0),
        (COUNT, "So it is 2.", 0.0),
        (COUNT, "left. middle. right. So it is 2.", 0.0),
        (COUNT, "left red yes. middle teal no. right red yes. So it is 2. Score: 1.0", 0.0),
        (COUNT, "Score: 1.0", 0.0),
        (COUNT, "", 0.0),
        (BESIDE, "middle triangle yes. look left. left red. So it is red.", 1.0),
        (BESIDE, "left red circle no. middle teal triangle yes. right red circle no. look left. So it is red.", 0.9),
        (BESIDE, "middle triangle yes. look left. left blue. So it is blue.", 0.5),
        (BESIDE, "middle triangle yes. look right. left red. So it is red.", 0.7),
        (BESIDE, "right triangle yes. look middle. middle teal. So it is teal.", 0.0),  # the wrong pictures, well seen
        (BESIDE, "left red circle no. middle teal triangle yes. right red triangle yes. look left. So it is red.", 0.7),
        ("what color is the left shape?", "look left. left red. So it is red.", 1.0),
        ("what color is the left shape?", "look middle. middle teal. So it is teal.", 0.0),
        ("what shape is the left one?\nA. circle\nB. triangle", "left circle. So it is circle A.", 1.0),
        ("what shape is the left one?\nA. circle\nB. triangle", "left circle. So it is circle B.", 0.7),
        ("what shape is the left one?\nA. circle\nB. triangle", "left circle. So it is circle.", 0.7),
        ("what shape is the left one?", "left circle. So it is circle A.", 0.7),
    ],
)
def test_the_judge_scores_what_the_question_needs(server, scene, question, thinking, score):
    assert parse_score(server.reply(request(scene.png(), question, thinking))) == score


def test_the_reply_sets_what_is_seen_beside_what_is_said(server, scene):
    reply = server.reply(request(scene.png(), COUNT, "right red circle yes. left red yes. left red yes. So it is 3."))
    assert reply == "left red red yes, right red red yes rectangle circle no, twice, follows 2 3 no. Score: 0.1"
    assert server.reply(request(scene.png(), COUNT, "It looks like 2.")) == "nothing seen. Score: 0.0"


@pytest.mark.parametrize("form", ["short", "full", "twice", "hasty"])
def test_every_form_of_a_right_trace_gets_its_points_through_the_server(server, traces, form):
    rng, images = random.Random(form), load_images("test")
    for i in range(60):
        scene, question = make_question(images, TYPES[i % 3], rng)
        trace = traces.policy_trace(scene, question, rng, wrong_step=0, slip=0, form=form)
        assert traces.form_of(trace.thinking) == form
        text = "\n".join([question.text, *question.options])
        reply = server.reply(request(scene.png(), text, trace.thinking))
        assert parse_score(reply) == {"hasty": 0.0, "twice": 0.8}.get(form, 1.0), (question, trace)
        assert form == "hasty" or trace.answer == question.answer


def test_the_answer_follows_from_the_thinking_right_or_wrong(traces):
    """Without slips, whoever sees wrong answers wrong: the score must tell right answers from wrong ones."""
    rng, images = random.Random(0), load_images("test")
    asked = [make_question(images, TYPES[i % 3], rng) for i in range(600)]
    judged = []
    for scene, question in asked:
        trace = traces.policy_trace(scene, question, rng, wrong_step=0.5, slip=0, form="full")
        judged.append((traces.judge(scene, question, trace.thinking), trace.answer == question.answer))
        right = traces.forced_steps(scene, question, rng, wrong=False)
        wrong = traces.forced_steps(scene, question, rng, wrong=True)
        assert right == traces.steps(question.ask, scene.looks, "full") != wrong
    mean = {truth: sum(score for score, right in judged if right == truth) / 600 for truth in (True, False)}
    share = sum(right for _, right in judged) / 600
    assert 0.3 < share < 0.9
    assert mean[True] / share > mean[False] / (1 - share) + 0.2


def test_slips_make_both_failures(traces):
    rng, images = random.Random(0), load_images("test")
    failures = set()
    for i in range(300):
        scene, question = make_question(images, TYPES[i % 3], rng)
        trace = traces.policy_trace(scene, question, rng, wrong_step=0.2, slip=0.2, form="full")
        failures.add((traces.judge(scene, question, trace.thinking) >= 0.8, trace.answer == question.answer))
    assert failures == {(True, True), (True, False), (False, True), (False, False)}


def test_traces_to_learn_from_have_scores_of_all_sizes(traces):
    rng, images = random.Random(0), load_images("test")
    scores = []
    for i in range(900):
        scene, question = make_question(images, TYPES[i % 3], rng)
        scores.append(traces.judge(scene, question, traces.judged_trace(scene, question, rng)))
    assert len(set(scores)) == 11
    assert max(scores.count(score) for score in set(scores)) < 0.4 * len(scores)


def test_what_the_judge_cannot_read_is_refused(server, scene):
    seen = scene.png()
    file = io.BytesIO()
    with Image.open(io.BytesIO(seen)) as image:
        image.putpixel((60, 3), (1, 2, 3))
        image.save(file, "PNG")
    with pytest.raises(ValueError, match="easy-VQA does not have: middle"):
        server.reply(request(file.getvalue(), COUNT, "left red."))
    with pytest.raises(ValueError, match="64 x 64 pixels"):
        server.reply(request(scene.pictures[0].path.read_bytes(), COUNT, "left red."))
    with pytest.raises(ValueError, match="0 images"):
        server.reply(request(None, COUNT, "left red."))
    with pytest.raises(ValueError, match="layout"):
        server.reply(request(seen, COUNT, "left red.", prompt=None))
    with pytest.raises(ValueError, match="no options"):
        server.reply(request(seen, f"{COUNT}\nSay what you see", "left red."))
    with pytest.raises(ValueError, match="no question"):
        server.reply(request(seen, "what do you see?", "left red."))


def test_every_question_is_read_back(traces):
    rng, images = random.Random(0), load_images("test")
    for i in range(90):
        _, question = make_question(images, TYPES[i % 3], rng)
        read = traces.server.read_question("\n".join([question.text, *question.options]))
        assert read == Question(question.text, question.problem_type, "", question.options)
