"""No image and no text-only question on both sides."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_preprocess.core.splits import SplitAssigner, leak_keys, normalised_question

ROWS = st.lists(st.lists(st.integers(0, 30).map(lambda n: bytes([n]) * 16), min_size=1, max_size=4), max_size=40)


def sides_of(rows: list[list[bytes]], seed: int = 0, fraction: float = 0.5) -> list[str]:
    assigner = SplitAssigner(fraction, seed)
    for keys in rows:
        assigner.tie(keys)
    return [assigner.side(keys) for keys in rows]


@given(ROWS, st.integers(0, 5))
def test_rows_that_share_an_image_share_a_side(rows: list[list[bytes]], seed: int) -> None:
    side_of: dict[bytes, str] = {}
    for keys, side in zip(rows, sides_of(rows, seed), strict=True):
        for key in keys:
            assert side_of.setdefault(key, side) == side


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_rows_and_images_does_not_matter(rows: list[list[bytes]], chance: random.Random) -> None:
    shuffled = [(number, chance.sample(keys, len(keys))) for number, keys in enumerate(rows)]
    chance.shuffle(shuffled)
    sides = dict(zip([number for number, _ in shuffled], sides_of([keys for _, keys in shuffled]), strict=True))
    assert [sides[number] for number in range(len(rows))] == sides_of(rows)


def test_long_chains_of_shared_images() -> None:
    chain = [[number.to_bytes(16, "big"), (number + 1).to_bytes(16, "big")] for number in range(20_000)]
    assert len(set(sides_of(chain))) == 1


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.1, 0.5])
def test_the_share_of_validation(fraction: float) -> None:
    rows = [[random.Random(number).randbytes(16)] for number in range(20_000)]
    share = sides_of(rows, fraction=fraction).count("val") / len(rows)
    assert share == pytest.approx(fraction, abs=0.012)
    assert fraction > 0 or share == 0


def test_another_seed_is_another_split() -> None:
    rows = [[random.Random(number).randbytes(16)] for number in range(100)]
    assert sides_of(rows, 1) != sides_of(rows, 2)
    assert sides_of(rows, -1) == sides_of(rows, -1)


def test_text_only_rows_go_by_their_question() -> None:
    one = leak_keys("<image>How  many\ncats?", [])
    assert one == leak_keys("how many CATS?", [])
    assert one != leak_keys("How many dogs?", [])
    assert leak_keys("any", [b"b", b"a", b"b"]) == [b"a", b"b"]


def test_normalised_question() -> None:
    assert normalised_question(" <image>Ｗhat ＩＳ\tit? ") == "what is it?"


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_fractions_out_of_range(fraction: float) -> None:
    with pytest.raises(ValueError, match="val_fraction"):
        SplitAssigner(fraction, 0)
