"""The prompt: template files, and messages whose shared part is the same for all responses of a question."""

import json
import os

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.sophiavl.trm.prompt import (
    NO_THINKING,
    PromptError,
    build_messages,
    clean_question,
    clean_thinking,
    load_template,
    make_template,
    prepare_prompt,
)
from tests.support.attacks import ATTACKS

URLS = ["data:image/png;base64,AAAA", "data:image/jpeg;base64,BBBB"]
GOOD = {"system": "Grade.", "user": "Rubric. {images}\nQ: {question}\n<<<\n{thinking}\n>>>\nGrade:"}


def texts(messages):
    return [part.get("text", part["type"]) for part in messages[-1]["content"]]


def test_messages_hold_every_image_in_order_before_question_and_response():
    messages = build_messages(make_template(GOOD), "why?", URLS, "because")
    assert messages[0] == {"role": "system", "content": "Grade."}
    assert texts(messages) == ["Rubric. ", "image_url", "image_url", "\nQ: why?\n<<<\nbecause\n>>>\nGrade:"]
    assert [part["image_url"]["url"] for part in messages[1]["content"][1:3]] == URLS


def test_no_images_and_no_system():
    messages = build_messages(make_template({"user": GOOD["user"]}), "why?", [], "because")
    assert len(messages) == 1
    assert texts(messages) == ["Rubric. \nQ: why?\n<<<\nbecause\n>>>\nGrade:"]


@settings(deadline=None)
@given(st.text(max_size=80), st.text(max_size=80))
def test_the_prepared_prompt_is_the_messages_as_json(question, thinking):
    template = load_template()
    question, thinking = clean_question(question), clean_thinking(template, thinking, 4000)
    prepared = prepare_prompt(template, question, URLS)
    assert json.loads(prepared.messages_json(thinking)) == build_messages(template, question, URLS, thinking)


@pytest.mark.parametrize("name", ATTACKS)
def test_bytes_before_and_after_the_response_never_change(name):
    template = load_template()
    prepared = prepare_prompt(template, clean_question("why?"), URLS)
    body = prepared.messages_json(clean_thinking(template, ATTACKS[name], 4000))
    assert body.startswith(prepared.head)
    assert body.endswith(prepared.tail)
    assert len(json.loads(body)) == 2
    assert [part["type"] for part in json.loads(body)[1]["content"]] == ["text", "image_url", "image_url", "text"]


def test_slots_inside_data_are_not_filled():
    messages = build_messages(make_template(GOOD), "{thinking}", URLS, "{question} {0} {x!r}")
    assert "Q: {thinking}\n<<<\n{question} {0} {x!r}\n>>>" in texts(messages)[-1]


def test_escaped_braces():
    template = make_template({"user": '{images}{question}\nReply {{"score": x}}\n{thinking}'})
    assert texts(build_messages(template, "q", [], "t")) == ['q\nReply {"score": x}\nt']


@pytest.mark.parametrize(
    ("thinking", "shown"), [("", NO_THINKING), (" \n\u200b", NO_THINKING), ("\n4\n", "4"), ("x" * 99, None)]
)
def test_thinking_is_never_empty_nor_ends_in_white_space(thinking, shown):
    clean = clean_thinking(make_template(GOOD), thinking, 4000)
    assert clean == clean.strip() != ""
    assert shown in (None, clean)


@pytest.mark.parametrize(
    ("question", "clean"),
    [
        ("<image>What is it?", "What is it?"),
        ("What is it?\n<image>", "What is it?"),
        ("See <image> here", "See\nhere"),
        ("<image><image>Same?", "(image 1)  (image 2) Same?"),
        ("Is <image> above <IMAGE>?", "Is (image 1) above (image 2) ?"),
        ("plain", "plain"),
        ("a <|im_end|>", "a < |im_end|>"),
    ],
)
def test_questions(question, clean):
    assert clean_question(question) == clean


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user": None}, "mapping with a text `user`"),
        ({"extra": 1}, "unknown keys"),
        ({"system": 3}, "`system` must be text"),
        ({"allow_response_first": "yes"}, "true or false"),
        ({"user": "{question}{thinking}"}, "{images} once, it holds it 0 times"),
        ({"user": "{images}{question}{question}{thinking}"}, "{question} once, it holds it 2 times"),
        ({"user": "{images}{question}{thinking}{answer}"}, "unknown slot {answer}"),
        ({"user": "{images}{question}{thinking!r}"}, "unknown slot {thinking}"),
        ({"user": "{images}{question}{}{thinking}"}, "unknown slot {}"),
        ({"user": "{images}{question}{thinking"}, "brace"),
        ({"user": "{images}{question}} {thinking}"}, "brace"),
        ({"user": "{images}{thinking}{question}"}, "{question} after {thinking}"),
        ({"user": "{thinking}{images}{question}"}, "{images} after {thinking}"),
        ({"user": "{images}{question}{thinking}" + "r" * 501}, "501 characters of text after {thinking}"),
    ],
)
def test_bad_templates_say_what_is_wrong(change, message):
    with pytest.raises(PromptError) as caught:
        make_template({**GOOD, **change})
    assert message in str(caught.value)


def test_a_response_first_layout_is_allowed_where_the_file_says_so():
    user = "{thinking}\n{images}{question} " + "r" * 600
    template = make_template({"user": user, "allow_response_first": True})
    assert texts(build_messages(template, "q", URLS[:1], "t")) == ["t\n", "image_url", "q " + "r" * 600]


def test_digests_tell_templates_apart():
    other = {**GOOD, "system": "Judge."}
    assert make_template(GOOD).digest == make_template(dict(GOOD)).digest != make_template(other).digest


def test_delimiters_are_the_lines_beside_the_response():
    assert make_template(GOOD).delimiters == ("<<<", ">>>")
    assert load_template().delimiters == ("===== BEGIN REASONING =====", "===== END REASONING =====")


def test_prompt_files(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(GOOD))
    assert load_template(path) == make_template(GOOD)
    for content, message in ((b"a: [", "cannot be read"), (b"\xff", "cannot be read"), (b"- 1", "mapping")):
        path.write_bytes(content)
        with pytest.raises(PromptError, match=message) as caught:
            load_template(path)
        assert f"thinking_reward.prompt_path={os.fspath(path)!r}" in str(caught.value)
    with pytest.raises(PromptError, match="cannot be read"):
        load_template(tmp_path / "none.yaml")


def test_the_default_rubric_covers_the_five_criteria():
    user = "".join(text for _, text in load_template().parts).lower()
    for criterion in ("soundness", "correct reasoning", "error identification", "language consistency", "redundancy"):
        assert criterion in user
