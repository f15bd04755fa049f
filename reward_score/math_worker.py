"""Child process of :mod:`reward_score.math_pool`: math-verify under limits of time and memory.

Run as a script, not as part of the package. Reads one JSON list ``[answer, truth, tolerance]`` a line; writes ``R``
when ready and ``1`` (equal), ``0``, or ``?`` (not decided) for each line. Ends at end of file, so that it never
outlives its parent. One comparison has a limit of processor time: at a third of it Python stops it, which costs no new
process; the kernel ends the process at the whole, since Python can't break into one big-integer operation.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import sys
from typing import Any

# As in numerical.py: right to 6 decimals, or digits below 1.
_ROUNDING = 1e-6
_NOTHING = 1e-100  # what the library can't tell from 0


class _TimeUp(BaseException):
    """The comparison took its share; no Exception, which the libraries would catch."""


def _stop(signal_number: int, frame: object) -> None:
    raise _TimeUp


def same_mathematics(answer: str, truth: str, tolerance: float) -> bool:
    """Whether two LaTeX expressions are equal; False where either can't be read as a whole.

    Numbers are compared by value: the library would try to simplify their difference to nothing.
    """
    from math_verify import LatexExtractionConfig, parse, verify

    # The dollars make it one formula. Otherwise the library picks a number out of any text.
    one, other = (
        parse(f"${text}$", [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None)
        for text in (truth, answer)
    )
    if one and other and _is_number(one[0]) and _is_number(other[0]):
        return _same_number(other[0], one[0], tolerance)
    return bool(verify(one, other, timeout_seconds=None))


def _is_number(expression: object) -> bool:
    return bool(getattr(expression, "is_number", False)) and expression.is_finite is not False


def _same_number(answer: Any, truth: Any, tolerance: float) -> bool:
    difference, size, true_size = (abs(value.evalf(20)) for value in (answer - truth, answer, truth))
    return bool(difference <= max(_NOTHING, _ROUNDING * min(1, max(size, true_size)), tolerance * true_size))


def main(cpu_seconds: float, memory_bytes: int) -> None:
    """Serve until end of file. The results' pipe is the standard output; nothing else may write to it."""
    results = os.dup(1)
    os.dup2(2, 1)
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGVTALRM, _stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF, signal.SIGVTALRM})
    same_mathematics("\\sqrt{4}+x", "2+x", 0.0)  # imports, and the parser's tables
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.write(results, b"R")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the parser writes its complaints there
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        reply = _reply(json.loads(line), cpu_seconds / 3)
        signal.setitimer(signal.ITIMER_PROF, 0)
        os.write(results, reply)


def _reply(comparison: list[Any], cpu_seconds: float) -> bytes:
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, cpu_seconds)
        return b"1" if same_mathematics(*comparison) else b"0"
    except (_TimeUp, ArithmeticError, MemoryError, RecursionError, TypeError, ValueError):
        return b"?"  # too long, or beyond the library's numbers
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


if __name__ == "__main__":
    del sys.path[0]  # this script's folder: its modules are no top-level ones
    main(float(sys.argv[1]), int(sys.argv[2]))
