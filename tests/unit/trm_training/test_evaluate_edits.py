"""Edits change what they say, nothing else, and the same way each time."""

import difflib
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.sophiavl.trm.neutralise import neutralise
from recipe.sophiavl.trm_training.evaluate.edits import (
    ENGLISH_TO_CHINESE,
    LEAST_MIXED,
    REPEATS,
    mix_languages,
    plant_errors,
    repeat_steps,
    wrong_number,
)

QUESTION = "<image>What shape is it?\nA. circle\nB. square\n(C) long triangle"
NUMBERS = "Step 1: the angles are 30° and 60 degrees.\n2. So the third is 180 - 30 - 60 = 90 (see image 2, x1 and 3D)."
TEXT = st.text(st.sampled_from("ab one is 12.5(,)\n.?!是等于équals<|>\\1Step "), max_size=80)


def planted(text, question="Why?", other=None, seed=0):
    """The first of the planted errors: of the surest kind that applies."""
    return plant_errors(text, question, other, random.Random(seed))[0]


def one_change(before, after):
    """The stretches that differ, from the first changed character to the last."""
    start = next(
        (i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after))
    )
    end = 0
    while end < min(len(before), len(after)) - start and before[-1 - end] == after[-1 - end]:
        end += 1
    return before[start : len(before) - end], after[start : len(after) - end]


@pytest.mark.parametrize("seed", range(40))
def test_a_number_that_says_something_is_changed(seed):
    edit = planted(NUMBERS, seed=seed)
    old, new = edit.detail.split(" -> ")
    assert edit.kind == "number"
    assert old in ("30", "60", "180", "90")
    assert float(new) != float(old)
    # Nothing else moved: step and image numbers, names.
    assert re.sub(rf"\b{re.escape(new)}\b", old, edit.text, count=1) == NUMBERS or edit.text.count(new) > 1
    assert len(edit.text.splitlines()) == 2
    for kept in ("Step 1:", "\n2. So", "image 2", "x1 and 3D"):
        assert kept in edit.text


@given(st.from_regex(r"[0-9]{1,12}(\.[0-9]{1,6})?", fullmatch=True), st.integers(0, 20))
def test_a_wrong_number_is_another_in_the_same_notation(written, seed):
    new = wrong_number(written, random.Random(seed))
    assert float(new) != float(written)
    assert float(new) >= 0
    assert len(new.partition(".")[2]) == len(written.partition(".")[2])
    unit = 10.0 ** -len(written.partition(".")[2])
    assert abs(float(new) - float(written)) >= min(0.3 * float(written), unit) * 0.999


def test_thousands_keep_their_commas():
    for seed in range(30):
        new = planted("It is 1,200.50 wide.", seed=seed).detail.removeprefix("1,200.50 -> ")
        assert re.fullmatch(r"[12],\d{3}\.\d{2}|\d{3}\.\d{2}", new)


@pytest.mark.parametrize(
    ("text", "kind", "old", "new"),
    [
        ("There are two of them.", "number word", "two", None),
        ("Step 1: the shape is round", "negation", "is", "is not"),
        ("The lines are not parallel.", "negation", "are not", "are"),
        ("It equals the sum.", "negation", "equals", "does not equal"),
        ("They cannot meet.", "negation", "cannot", "can"),
        ("它是圆形。", "negation", "是", "不是"),
        ("面积不等于周长,不是吗", "negation", "不是", "是"),
        ("A blue Square, surely.", "option", "Square", None),
    ],
)
def test_texts_without_numbers_lose_a_claim(text, kind, old, new):
    for seed in range(8):
        edit = planted(text, QUESTION, seed=seed)
        assert edit.kind == kind
        assert edit.detail.startswith(f"{old} -> {new or ''}")
        assert edit.text != text
        assert edit.text == text.replace(*edit.detail.split(" -> "), 1)


def test_an_option_gives_way_to_another_with_its_case():
    assert {planted("A blue Square.", QUESTION, seed=seed).text for seed in range(20)} == {
        "A blue Circle.",
        "A blue Long triangle.",
    }


def test_a_word_comes_from_another_reasoning():
    edit = planted("A red disc on the left.", other="Look: a green thing, a tiny disc.")
    assert edit.kind == "word"
    assert edit.text in ("A green disc on the left.", "A tiny disc on the left.")


def test_each_kind_that_applies_is_planted_alone():
    text = "Two lines are 30 apart. It is a blue square."
    edits = plant_errors(text, QUESTION, "A green disc.", random.Random(0))
    assert [edit.kind for edit in edits] == ["number", "number word", "negation", "option", "word"]
    for edit in edits:
        old, new = edit.detail.split(" -> ")
        assert edit.text in (text.replace(old, new, 1), text.replace("It is", "It is not"))


@pytest.mark.parametrize("text", ["", "   ", "hm", "Step 1:", "Is it round?", "(1) yes\n(2) no"])
def test_what_has_nothing_to_be_wrong_about_stays(text):
    edit = planted(text)
    assert edit.text is None
    assert "no number" in edit.kind


@given(TEXT, st.integers(0, 5))
def test_a_planted_error_is_one_visible_change_and_repeatable(text, seed):
    edit = planted(text, QUESTION, "A big number is a bit odd.", seed)
    assert edit == planted(text, QUESTION, "A big number is a bit odd.", seed)
    if edit.text is not None:
        old, new = one_change(text, edit.text)
        assert old != new
        claimed_old, claimed_new = edit.detail.split(" -> ")
        assert old in claimed_old
        assert new in claimed_new
        assert neutralise(edit.text) != neutralise(text)


def test_languages_are_mixed_word_by_word():
    text = "First we see the image. Then the angle is right, and so the sum is known."
    edit = mix_languages(text, random.Random(0))
    assert edit == mix_languages(text, random.Random(0))
    chinese = {value: key for key, value in ENGLISH_TO_CHINESE.items()}
    back = re.sub("|".join(sorted(map(re.escape, chinese), key=len, reverse=True)), lambda m: chinese[m[0]], edit.text)
    assert back.lower() == text.lower()
    assert len(re.findall("[\u4e00-\u9fff]+", edit.text)) >= LEAST_MIXED


def test_chinese_gets_english_words():
    edit = mix_languages("首先看图片,因为三角形的角是直角,所以面积等于一半,因此答案正确。", random.Random(0))
    assert re.search("[a-z]{3}", edit.text)
    assert re.search("[\u4e00-\u9fff]", edit.text)


def test_the_table_of_words_reads_both_ways():
    assert len(set(ENGLISH_TO_CHINESE.values())) == len(ENGLISH_TO_CHINESE)


@pytest.mark.parametrize("text", ["", "Zut alors!", "and so 12"])
def test_too_few_words_to_mix(text):
    assert mix_languages(text, random.Random(0)).text is None


@pytest.mark.parametrize(
    "text",
    [
        "One sentence only",
        "First this. Then that! Is it so? Yes. The end.",
        "1. Count them.\n2. Add 3.5 and 4.\n3. Done.",
        "看图。数一数！得到三。",
    ],
)
def test_steps_are_repeated_in_their_place(text):
    for seed in range(5):
        edit = repeat_steps(text, random.Random(seed))
        assert edit == repeat_steps(text, random.Random(seed))
        changes = difflib.SequenceMatcher(None, text, edit.text, autojunk=False).get_opcodes()
        assert {change[0] for change in changes} <= {"equal", "insert"}
        per_time, rest = divmod(len(edit.text) - len(text), REPEATS)
        assert rest == 0
        assert per_time > 3
        # The judge sees all of it: so few repeats are not cut.
        assert "repeated" not in neutralise(edit.text)


@pytest.mark.parametrize("text", ["", " \n ", "1."])
def test_nothing_to_repeat(text):
    assert repeat_steps(text, random.Random(0)).text is None


@given(TEXT, st.integers(0, 3))
def test_edits_of_any_text_end_well(text, seed):
    for edit in (mix_languages(text, random.Random(seed)), repeat_steps(text, random.Random(seed))):
        assert edit.text is None or edit.text != text
        assert edit.kind
