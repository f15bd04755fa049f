"""Child process of :mod:`reward_score.math_pool`: math-verify under limits of time and memory.

Run as a script, not as part of the package. Reads one JSON list ``[answer, truth]`` a line; writes ``R`` when ready and
``1`` (equal) or ``0`` for each line. Ends at end of file, so that it never outlives its parent. The kernel ends it when
one comparison takes more than its share of processor time: Python could not, within one big-integer operation.
"""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import signal
import sys

# Plain-text notation that the LaTeX parser would take for products of letters.
_TO_LATEX = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\*\*", "^"),
        (r"\*|×|·", r" \\cdot "),
        (r"÷", r" \\div "),
        (r"π|(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi "),
        (r"∞|(?<![\\A-Za-z])(?:infinity|inf)(?![A-Za-z])", r"\\infty "),
        (r"(?:√|(?<![\\A-Za-z])sqrt)\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"(?:√|(?<![\\A-Za-z])sqrt)\s*(\d+(?:\.\d+)?|[A-Za-z])", r"\\sqrt{\1}"),
        (r"(?<![\\A-Za-z])(sin|cos|tan|cot|log|ln|exp)(?![A-Za-z])", r"\\\1 "),
        (r"≤", r"\\le "),
        (r"≥", r"\\ge "),
        (r"≠", r"\\ne "),
        (r"°", r"^\\circ "),
    )
)


def same_mathematics(answer: str, truth: str) -> bool:
    """Whether two LaTeX or plain expressions are equal; False where either can't be read as a whole."""
    from math_verify import LatexExtractionConfig, parse, verify

    def parsed(text: str) -> list:
        for pattern, replacement in _TO_LATEX:
            text = pattern.sub(replacement, text)
        # The dollars make it one formula. Otherwise the library picks a number out of any text.
        return parse(f"${text}$", [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None)

    return bool(verify(parsed(truth), parsed(answer), timeout_seconds=None))


def main(cpu_seconds: float, memory_bytes: int) -> None:
    """Serve until end of file. The results' pipe is the standard output; nothing else may write to it."""
    results = os.dup(1)
    os.dup2(2, 1)
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    same_mathematics("\\sqrt{4}+x", "2+x")  # imports, and the parser's tables
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.write(results, b"R")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the parser writes its complaints there
    for line in sys.stdin.buffer:
        answer, truth = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        equal = same_mathematics(answer, truth)
        signal.setitimer(signal.ITIMER_PROF, 0)
        os.write(results, b"1" if equal else b"0")


if __name__ == "__main__":
    del sys.path[0]  # this script's folder: its modules are no top-level ones
    main(float(sys.argv[1]), int(sys.argv[2]))
