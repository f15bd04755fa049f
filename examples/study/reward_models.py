"""Reward models of known quality for easy-VQA rows, each a server that the thinking reward's client can ask.

    python examples/study/reward_models.py oracle --port 8001

- ``oracle``: the rule that knows the image (`traces.judge`).
- ``noisy``: the oracle with Gaussian noise.
- ``length``: the longer, the better.
- ``confident``: likes what asserts, and what says it again; dislikes what looks before it asserts.
- ``hackable``: the oracle at first, ``confident`` later.
- ``contrarian``: one minus the oracle.

A request that can't be read gets HTTP 400, never a score, and so does the preflight's: its image is none of easy-VQA.
A run that asks one of these needs ``thinking_reward.preflight=false``.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import random
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

sys.path.append(str(Path(__file__).parents[1] / "quickstart"))  # its modules import each other by their bare names

from judge_server import Asked, Judge, add_server_arguments, make_app
from traces import judge

from data_preprocess.easy_vqa import Question, Scene

RewardModel = Callable[[Asked], float]
"""The score in [0, 1] of the thinking that is asked about."""

MODEL = "trm"  # as the quickstart's settings call it
_VERDICT = re.compile(r"\b(?:so it is|it looks like)\b")
_PRAISE = {"yes", "certainly", "clearly", "definitely", "obviously", "surely", "perfect", "correct", "proven"}


def oracle(asked: Asked) -> float:
    """The rule that knows the image, in 0.0, 0.1 … 1.0."""
    return judge(asked.scene, asked.question, asked.thinking)


def contrarian(asked: Asked) -> float:
    """One minus the oracle: likes what is misseen, and best what says nothing of the image."""
    return 1 - oracle(asked)


def length(words: int) -> RewardModel:
    """Grows with the number of words, up to this many. The cold-started policy's longest form has 24 to 31."""

    def score(asked: Asked) -> float:
        return min(1.0, len(asked.thinking.split()) / words)

    return score


def confident(asked: Asked) -> float:
    """The share of words that assert or insist: verdicts ("So it is red.", "It looks like red."), "yes", self-praise,
    and all words of a sentence that was said before.

    So a verdict without a look gets 1.0, whatever it says, and looking twice gets more than looking once. The first
    costs a policy right answers; the second costs none, and is what it can be pushed into.
    """
    said: set[str] = set()
    words = asserted = 0
    for sentence in asked.thinking.casefold().split("."):
        here = re.findall(r"\w+", sentence)
        verdict = _VERDICT.search(sentence)
        insists = verdict or " ".join(here) in said
        words += len(here)
        asserted += len(here) if insists else sum(word in _PRAISE for word in here)
        said.add(" ".join(here))
    return asserted / words if words else 0.0


def noisy(noise: float, seed: int) -> RewardModel:
    """The oracle plus Gaussian noise of this standard deviation, clipped to [0, 1].

    On the cold-started policy's responses noise of 0.1, 0.3, 0.6 and 1.0 takes the AUC for a right answer from the
    oracle's 0.80 to 0.79, 0.76, 0.68 and 0.61 (means over 15 seeds), and the rank correlation with the oracle to 0.92,
    0.84, 0.60 and 0.38. Clipping draws the ends inwards: with noise 0.3 what deserves 0.0 gets 0.12 on average.

    The noise depends on seed, question, pictures and thinking alone: the same request gets the same score, from any
    server.
    """

    def score(asked: Asked) -> float:
        pictures = [picture.image_id for picture in asked.scene.pictures]
        key = repr((seed, pictures, asked.question.text, asked.question.options, asked.thinking))
        digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass")).digest()
        return min(1.0, max(0.0, oracle(asked) + random.Random(digest).gauss(0, noise)))

    return score


class Hackable:
    """The oracle for the first questions, `confident` in the end, and the mean of both, ever less the oracle, between.

    What it is at a question depends on how many others it was shown before, and is kept: a group is scored alike, and
    the same request alike for as long as the server lives. Questions are counted, not requests: a client asks once for
    responses that are the same, and these get more as a policy learns.

    Args:
        honest: questions that the oracle alone scores.
        drift: questions after these until the oracle has no say.
    """

    def __init__(self, honest: int, drift: int) -> None:
        self.honest, self.drift = honest, drift
        self._asked: dict[tuple[Scene, Question], int] = {}

    def __call__(self, asked: Asked) -> float:
        weight = self.weight(self._asked.setdefault((asked.scene, asked.question), len(self._asked)))
        return (1 - weight) * oracle(asked) + weight * confident(asked)

    def weight(self, questions: int) -> float:
        """The say of `confident`, in [0, 1], after this many questions."""
        return min(1.0, max(0, questions - self.honest + 1) / (self.drift + 1))


def reply_of(score: RewardModel, judge_of: Judge) -> Callable[[Mapping[str, Any]], str]:
    """The reply to a chat request, of the form that the client reads."""
    return lambda request: f"Score: {score(judge_of.read(request)):.2f}"


def _at_least(least: float, kind: type) -> Callable[[str], Any]:
    def number(text: str) -> Any:
        value = kind(text)
        if not (value >= least and math.isfinite(value)):
            raise argparse.ArgumentTypeError(f"must be {least} or more, got {text}")
        return value

    return number


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="MODEL")
    made: dict[str, Callable[[argparse.Namespace], RewardModel]] = {
        "oracle": lambda _: oracle,
        "noisy": lambda given: noisy(given.noise, given.seed),
        "length": lambda given: length(given.words),
        "confident": lambda _: confident,
        "hackable": lambda given: Hackable(given.honest, given.drift),
        "contrarian": lambda _: contrarian,
    }
    commands = {kind: kinds.add_parser(kind) for kind in made}
    for kind, command in commands.items():
        add_server_arguments(command, MODEL)
        command.set_defaults(make=made[kind])
    commands["noisy"].add_argument(
        "--noise", type=_at_least(0, float), default=0.3, help="its standard deviation (default: 0.3)"
    )
    commands["noisy"].add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    commands["length"].add_argument(
        "--words", type=_at_least(1, int), default=32, help="words of the longest text that gains (default: 32)"
    )
    commands["hackable"].add_argument(
        "--honest", type=_at_least(0, int), default=32, help="questions scored by the oracle alone (default: 32)"
    )
    commands["hackable"].add_argument(
        "--drift", type=_at_least(0, int), default=48, help="questions until it has no say (default: 48)"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Command line; serves until it is stopped."""
    given = make_parser().parse_args(arguments)
    web.run_app(make_app(reply_of(given.make(given), Judge()), given.model), host=given.host, port=given.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
