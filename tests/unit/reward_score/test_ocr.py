"""OCR outcomes, worked by hand."""

import math

import pytest

from reward_score.ocr import score_ocr


@pytest.mark.parametrize(
    ("answer", "truth", "error_rate"),
    [
        ("the cat sat", "the cat sat", 0),
        ("the  cat\nsat ", " the cat\tsat", 0),
        ("the cat", "the cat sat", 1 / 3),
        ("the dog sat", "the cat sat", 1 / 3),
        ("the cat sat down", "the cat sat", 1 / 3),
        ("a b c d e f", "x", 6),
        ("The cat sat", "the cat sat", 1 / 3),
        ("the cat sat.", "the cat sat", 1 / 3),
        ("ＡＢＣ", "ABC", 0),
        ("cafe\u0301", "caf\u00e9", 0),
        ("你好世界", "你好世界", 0),
        ("你好世人", "你好世界", 1 / 4),
        ("Tokyo 東亰", "Tokyo 東京", 1 / 3),
        ("ภาษาไทย", "ภาษาไทย", 0),
        ("$E = mc$", "E = mc", 0),
        ("$5", "5", 1),
        ("cost 5$", "ost 5", 1),
        ("$x$ and $y$", "x$ and $y", 2 / 3),
        ("안녕 세상", "안녕 세계", 1 / 2),
    ],
)
def test_worked_examples(answer: str, truth: str, error_rate: float) -> None:
    assert score_ocr(answer, truth) == pytest.approx(math.exp(-error_rate))
    assert score_ocr(answer, truth, "exp") == pytest.approx(math.exp(-error_rate))
    assert score_ocr(answer, truth, "linear") == pytest.approx(max(0.0, 1 - error_rate))


@pytest.mark.parametrize("answer", ["", "  \n", "\u3000"])
@pytest.mark.parametrize("kind", ["exp", "linear"])
def test_no_answer_no_reward(answer: str, kind: str) -> None:
    assert score_ocr(answer, "text", kind) == 0.0


@pytest.mark.parametrize("truth", ["", " \n"])
def test_empty_truth_is_an_error(truth: str) -> None:
    with pytest.raises(ValueError, match="ground_truth"):
        score_ocr("text", truth)


@pytest.mark.timeout(300)
def test_long_answer_is_bounded() -> None:
    assert score_ocr("word " * 20_000, "some words here " * 50) < 1e-9
