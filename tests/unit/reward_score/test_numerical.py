"""Numerical answers: the fast path, the library, and their bounds."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_score import math_pool, maths
from reward_score.math_pool import MathPool, MathWorkerError
from reward_score.numerical import score_numerical
from reward_score.plain_number import clean_number_text, read_plain_number

HALF = ["1/2", "0.5", ".5", "0.50", "\\frac{1}{2}", "\\dfrac12", "50\\%", "50%", "50 percent", "$\\frac{1}{2}$", "½"]
HALF += ["5e-1", "5 \\times 10^{-1}", "5×10⁻¹", "x = 0.5", "0.5 = x", "\\boxed{0.5}", "**0.5**", "+0.5", "\\(0.5\\)"]
HALF += ["The answer is 0.5.", "about 0.5", "≈0.5", "-\\frac{-1}{2}", "2/4"]
HALF_WITH_UNIT = ["0.5 cm", "0.5\\text{ cm}", "$0.50", "\\$0.5", "0.5 apples", "0.5°", "0.5 m/s^2"]
NOT_HALF = ["", "-1/2", "1/3", "2", "5", "0.51", "0.5x", "0.5 or 0.6", "0.5, 0.6", "1/2/3", "0..5", "1.0.5", "1/0"]
NOT_HALF += ["half past", "0.5 million", "0.5π", "0.5 pi", "not 0.5", "0.5 is wrong", "0.5 to 1", "0.5 0.6", "e"]


def test_every_way_to_write_a_half_is_a_half() -> None:
    assert [(a, b) for a in HALF for b in HALF if score_numerical(a, b) != 1.0] == []


@pytest.mark.parametrize("with_unit", HALF_WITH_UNIT)
def test_a_unit_on_one_side_does_not_count(with_unit: str) -> None:
    assert score_numerical(with_unit, "0.5") == score_numerical("1/2", with_unit) == 1.0
    assert score_numerical(with_unit, "0.6") == score_numerical("2/3", with_unit) == 0.0


def test_what_is_no_half_is_wrong() -> None:
    assert [a for a in NOT_HALF if score_numerical(a, "0.5") != 0.0] == []


@pytest.mark.parametrize(
    ("answer", "truth", "reward"),
    [
        ("1,000", "1000", 1),
        ("1\\,000", "1000", 1),
        ("1{,}000", "1000", 1),
        ("1 000 000", "1,000,000", 1),
        ("1,2", "12", 0),
        ("1,00", "100", 0),
        ("3.0", "3", 1),
        ("1 1/2", "1.5", 1),
        ("1 1/2", "11/2", 0),
        ("1\\frac{1}{2}", "1.5", 1),
        ("2½", "5/2", 1),
        ("−5", "-5", 1),
        ("-5", "5", 0),
        ("-$5", "-5", 1),
        ("--5", "-5", 0),
        ("6.02e23", "6.02 \\times 10^{23}", 1),
        ("1e99", "1e98", 0),
        ("5.2.1", "5.2", 0),
        ("5/2/1", "5/2", 1),
        # whole numbers are exact, others right to 6 decimals, or digits below 1
        ("1000000", "1000001", 0),
        ("12345678901234567890", "12345678901234567891", 0),
        ("0.333333", "1/3", 1),
        ("1/3", "0.333333", 1),
        ("0.33", "1/3", 0),
        ("0.30000000000000004", "0.3", 1),
        ("1234567.8", "1234567.9", 0),
        ("1e-7", "2e-7", 0),
        ("0.0000001", "0", 0),
        # a percent sign is a value or a unit
        ("50", "50%", 1),
        ("0.5", "50%", 1),
        ("50%", "50", 1),
        ("50%", "0.5%", 0),
        ("5000", "50%", 0),
        # units
        ("5 apples", "5", 1),
        ("5", "5 square meters", 1),
        ("5 cm", "5 centimeters", 1),
        ("5 cm", "5 m", 0),
        ("5 cm", "5 apples", 0),
        ("5 cm²", "5 square centimeters", 1),
        ("5 cm^{2}", "5 cm", 0),
        ("5 km/h", "5 kilometers per hour", 1),
        ("5 m/s", "5 km/h", 0),
        ("$5", "5 dollars", 1),
        ("$5", "€5", 0),
        ("30^\\circ", "30 degrees", 1),
        ("\\angle ABC = 30^{\\circ}", "30", 1),
        ("25 °C", "25", 1),
        ("2 million", "2,000,000", 1),
        ("2 million dollars", "$2000000", 1),
        ("2 million", "2", 0),
        ("5x", "5", 0),
        ("5k", "5", 0),
        ("5abc", "5", 0),
        ("5 N", "5", 1),
        ("5 A", "5", 1),
        ("5A", "5", 0),  # glued, a letter is algebra
        # mathematics
        ("\\sqrt{16}", "4", 1),
        ("sqrt(16)", "4 cm", 1),
        ("2*sqrt(3)", "\\sqrt{12}", 1),
        ("\\frac{\\pi}{2}", "pi/2", 1),
        ("π/2", "\\frac{\\pi}{3}", 0),
        ("(x+1)^2", "x^2 + 2x + 1", 1),
        ("x**2", "x^2", 1),
        ("x^2", "x^3", 0),
        ("2^{10}", "1024", 1),
        ("5!", "120", 1),
        ("-(1/2)", "-0.5", 1),
        ("1.41421356", "\\sqrt{2}", 1),
        ("1.41", "\\sqrt{2}", 0),
        ("(1, 2)", "(1,2)", 1),
        ("\\{2, 1\\}", "\\{1, 2\\}", 1),
        ("5, 6", "5", 0),
        ("5 and 6", "6", 0),
        ("1 2 3 4 5", "5", 0),
        ("x > 5", "5", 0),
        ("I think that it is 5", "5", 0),
        # a truth that is no number is compared as it is written
        ("7:30 am", "7:30 am", 1),
        ("the lake north of town", "the lake north of town", 1),
        ("the lake south of town", "the lake north of town", 0),
        ("7:31 am", "7:30 am", 0),
    ],
)
def test_worked_examples(answer: str, truth: str, reward: float) -> None:
    assert score_numerical(answer, truth) == reward


@settings(max_examples=200, deadline=None)
@given(st.fractions(max_denominator=1000), st.fractions(max_denominator=1000))
def test_fractions_are_equal_if_their_values_are(left: Fraction, right: Fraction) -> None:
    latex = f"\\frac{{{right.numerator}}}{{{right.denominator}}}"
    assert score_numerical(f"{left.numerator}/{left.denominator}", latex) == float(left == right)
    assert score_numerical(str(left), str(left)) == 1.0


@settings(max_examples=200, deadline=None)
@given(st.decimals(-(10**9), 10**9, places=3))
def test_decimals_in_every_notation(value) -> None:
    assert score_numerical(f"{value:,}", f"{value:f}") == 1.0
    assert score_numerical(f"{value:e}", f"{value:f}") == 1.0
    assert score_numerical(f"{value:f}", f"{value + 1:f}") == 0.0


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_reading_never_fails(text: str) -> None:
    read_plain_number(clean_number_text(text))


def test_plain_numbers_need_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(answer: str, truth: str, tolerance: float) -> bool:
        raise AssertionError(f"the library was asked about {answer!r} and {truth!r}")

    monkeypatch.setattr(maths, "_ask", never)
    for answer in HALF:
        assert score_numerical(answer, "0.25") == 0.0


def test_concurrent_threads_get_their_own_answers() -> None:
    """Twice as many roots as workers: an answer handed to the wrong caller would show."""
    pairs = [(f"\\sqrt{{{i * i}}}", str(i + i % 2)) for i in range(3, 63)]
    with ThreadPoolExecutor(8) as threads:
        scores = list(threads.map(lambda pair: score_numerical(*pair), pairs))
    assert scores == [float(i % 2 == 0) for i in range(3, 63)]


EXPLOSIVE = ["9**9**9**9", "9^{9^{9^9}}", "(9^9)^9^9", "10^{10^{10}}", "9!!!", "99999!", "1" + "0" * 60 + "!"]
EXPLOSIVE += ["5" * 100_000, "((" * 50_000, "\\frac{" * 20_000, "1+" * 600 + "1", " " * 100_000 + "{", "x" * 100_000]
EXPLOSIVE += ["I believe that the length must be 5", "\\sqrt{" * 20 + "2" + "}" * 20]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("answer", EXPLOSIVE)
def test_explosive_answers_never_reach_the_library(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maths, "_ask", lambda answer, truth, tolerance: True)
    assert score_numerical(answer, "5") == 0.0


def test_the_pool_ends_what_takes_too_long_and_goes_on() -> None:
    pool = MathPool(workers=1, cpu_seconds=0.5)
    try:
        assert not pool.same_mathematics("9^{9^{9^9}}", "5")
        assert not pool.same_mathematics("999999!!", "3^{999999!}")
        assert pool.same_mathematics("\\sqrt{16}", "4")
    finally:
        pool.close()


def test_what_python_can_stop_costs_no_worker(caplog: pytest.LogCaptureFixture) -> None:
    pool = MathPool(workers=1, cpu_seconds=0.9)
    try:
        assert pool.same_mathematics("\\sqrt{16}", "4")
        (worker,) = pool._alive
        assert not pool.same_mathematics("\\int_0^3 \\frac{\\sin(x^5)e^{x}}{x^5+3} dx", "5")
        assert "not comparable, so not equal" in caplog.text
        assert pool.same_mathematics("\\sqrt{25}", "5")
        assert pool._alive == {worker}
    finally:
        pool.close()


def test_a_worker_that_only_waits_is_ended() -> None:
    pool = MathPool(workers=1, wall_seconds=0.5)
    try:
        assert pool.same_mathematics("\\sqrt{16}", "4")
        (worker,) = pool._alive
        os.kill(worker._process.pid, signal.SIGSTOP)
        assert not pool.same_mathematics("\\sqrt{25}", "5")
        assert worker._process.poll() is not None
        assert pool.same_mathematics("\\sqrt{36}", "6")
    finally:
        pool.close()


def test_a_worker_that_was_killed_costs_no_reward() -> None:
    pool = MathPool(workers=1)
    try:
        assert pool.same_mathematics("\\sqrt{16}", "4")
        (worker,) = pool._alive
        worker._process.kill()
        time.sleep(0.1)
        assert pool.same_mathematics("\\sqrt{25}", "5")
        assert worker not in pool._alive
        assert len(pool._alive) == 1
    finally:
        pool.close()
    with pytest.raises(MathWorkerError, match="closed"):
        pool.same_mathematics("\\sqrt{36}", "6")


def test_an_interrupted_comparison_does_not_answer_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self, seconds: float) -> bytes:
        raise KeyboardInterrupt

    pool = MathPool(workers=1)
    try:
        assert pool.same_mathematics("\\sqrt{16}", "4")
        with monkeypatch.context() as patch:
            patch.setattr(math_pool._Worker, "_read", interrupt)
            with pytest.raises(KeyboardInterrupt):
                pool.same_mathematics("\\sqrt{25}", "5")
        assert not pool.same_mathematics("\\sqrt{36}", "7")
    finally:
        pool.close()


def test_a_worker_that_cannot_start_is_an_error_and_no_score(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "worker.py"
    broken.write_text("raise SystemExit(3)")
    monkeypatch.setattr(math_pool, "_SCRIPT", broken)
    pool = MathPool(workers=1)
    for _ in range(3):  # and the slot is given back
        with pytest.raises(MathWorkerError, match="did not start: the worker ended with exit status 3"):
            pool.same_mathematics("\\sqrt{16}", "4")


LEAVE = """
import os, sys
from reward_score import math_pool
from reward_score.numerical import score_numerical
assert score_numerical("\\\\sqrt{16}", "4") == 1.0
print(*[worker._process.pid for worker in math_pool._POOL._alive], flush=True)
if sys.argv[1] == "killed":
    os.kill(os.getpid(), 9)
if sys.argv[1] == "forked":
    child = os.fork()
    assert len(math_pool._POOL._alive) == (1 if child else 0)  # the worker stays the parent's
    assert score_numerical("\\\\sqrt{25}", "5") == 1.0
    if child:
        assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize("way", ["normally", "killed", "forked"])
def test_no_worker_outlives_its_parent(way: str) -> None:
    done = subprocess.run([sys.executable, "-c", LEAVE, way], stdout=subprocess.PIPE, text=True, timeout=600)
    assert done.returncode == (-signal.SIGKILL if way == "killed" else 0)
    pids = [int(pid) for pid in done.stdout.split()]
    assert pids
    deadline = time.monotonic() + 300
    while any(map(_runs, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_runs, pids))


def _runs(pid: int) -> bool:
    """Whether a process is there and no zombie: in a container nobody may wait for an orphan."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
