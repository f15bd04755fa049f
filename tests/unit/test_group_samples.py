"""A sample of groups is small, and nothing in it is hidden."""

from __future__ import annotations

import io
import re

import pytest
from PIL import Image
from tensorboard.plugin_util import markdown_to_safe_html

from recipe.sophiavl import group_samples
from recipe.sophiavl.group_samples import (
    MOST_CHARS,
    MOST_IMAGES,
    MOST_RESPONSES,
    SIDE,
    GroupSample,
    choose,
    group_sample,
    markdown,
)

HOSTILE = "\x1b[31m‮ <script>alert(1)</script> ![x](http://evil/x.png)\n```\n</code>[y](http://evil)\n\n# big\n\n- \x00"
ROW = {"outcome_reward": 1.0, "thinking_reward": None, "format_ok": True, "thinking_error": "", "gamma": 0.5}


def encoded(width: int, height: int, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def sample(text: str = "r", count: int = 2, images: tuple = ()) -> GroupSample:
    return group_sample(text, text, images, [(text, ROW)] * count)


def test_groups_are_drawn_at_random_and_the_same_for_a_step() -> None:
    groups = [f"g{i // 8}" for i in range(80)]
    drawn = {step: choose(groups, 2, step) for step in range(30)}
    assert drawn[7] == choose(groups, 2, 7)
    assert all(len(set(pair)) == 2 for pair in drawn.values())
    assert {name for pair in drawn.values() for name in pair} == set(groups)
    assert sorted(choose(groups, 32, 1)) == sorted(set(groups))


def test_a_sample_is_bounded_whatever_the_group_is() -> None:
    made = sample("x" * 10**6, 500, (encoded(5000, 20), Image.new("RGBA", (30, 4000)), *[encoded(9, 9, "LA")] * 9))
    assert len(made.responses) == MOST_RESPONSES
    assert {len(made.question), len(made.truth), len(made.responses[0]["response"])} == {MOST_CHARS + 1}
    assert made.image.width == SIDE + round(30 * SIDE / 4000) + (MOST_IMAGES - 2) * 9
    assert made.image.height == SIDE


def test_the_images_given_stay_as_they_are() -> None:
    image = Image.new("RGB", (900, 900), "red")
    assert sample(images=(image,)).image.size == (SIDE, SIDE)
    assert image.size == (900, 900)
    assert sample().image is None


def test_rows_tell_the_group_and_each_response() -> None:
    rows = sample("r", 2).rows(step=20, place=1)
    assert [row["response"] for row in rows] == ["r", "r"]
    assert rows[0] == {
        **{"step": 20, "group": 1, "question": "r", "truth": "r", "response": "r", "outcome_reward": 1.0},
        **{"thinking_reward": None, "format_ok": True, "thinking_error": "", "gamma": 0.5},
        **{"mu_correct": None, "mu_wrong": None},
    }


@pytest.mark.parametrize("text", [HOSTILE, f"\n\n{HOSTILE}\r\n{HOSTILE}", "~~~\n<img src=x>\n~~~", "   \n<b>"])
def test_markdown_shows_text_and_never_obeys_it(text: str) -> None:
    written = markdown(sample(text))
    html = markdown_to_safe_html(written)
    assert not re.search(r"<(script|img|a|h\d|li|b)\b", html)
    assert "outcome 1.000, thinking –" in html
    assert all(char.isprintable() or char == "\n" for char in written)
    assert html.count("<code>") == 4, "question, truth, two responses"


def test_hidden_characters_are_written_out() -> None:
    assert sample(HOSTILE).question.startswith("␛[31m⟨U+202E⟩ <script>")
    assert group_samples.as_code("a\n\nb") == "    a\n    \n    b"
