"""Thinking rewards of a policy's answers, asked for as a training run asks; a score that is missing stays missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from recipe.sophiavl.evaluate.answers import Answers
from recipe.sophiavl.evaluate.questions import Question, images_of, stream
from recipe.sophiavl.trm.client import ThinkingRewardClient, ThinkingScore
from recipe.sophiavl.trm.client_settings import ClientSettings
from recipe.sophiavl.trm.questions import question_text
from recipe.sophiavl.trm_training.annotate import asked_with
from recipe.sophiavl.trm_training.asking import NOT_TRANSPORT, Request, ask_all, kinds, storable_reply
from recipe.sophiavl.trm_training.evaluate.scoring import MAX_REPLY_CHARS, ServerError
from recipe.sophiavl.trm_training.journal import Journal, Result
from recipe.sophiavl.trm_training.pairs import pair_digest
from reward_score import extract_thinking

SCORES = "thinking.jsonl"
NO_REPLY = "no usable reply"


class ThinkingScores:
    """What a TRM makes of answers, in a folder; equal thinking about a question is asked about once.

    Args:
        config: how to reach the TRM, with a ``structured_output`` that is settled.

    Raises:
        JournalError: the folder's scores are another TRM's, or another process writes there.
    """

    def __init__(self, folder: Path, config: ClientSettings) -> None:
        self._config = config
        self._journal = Journal(folder / SCORES, asked_with(config))

    def __enter__(self) -> ThinkingScores:
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.close()

    def find(self, question: str, response: str) -> tuple[float | None, str | None]:
        """The score of a response, and why there is none. Without the format it is 0 by rule, as in training."""
        thinking = extract_thinking(response)
        if thinking is None:
            return 0.0, None
        known = self._journal.find(pair_digest(question, thinking), 0)
        return (None, NO_REPLY) if known is None else (known.score, known.error)

    async def ask(self, files: Sequence[Path], questions: Sequence[Question], samples: int, answers: Answers) -> None:
        """Ask for every score that is missing; those without a usable reply are asked for by the next call.

        Raises:
            ServerError: more requests failed than not.
        """
        failed: Counter[str] = Counter()
        asked = 0

        def take(request: Request[str], score: ThinkingScore) -> None:
            nonlocal asked
            asked += 1
            if score.error is None or score.error in NOT_TRANSPORT:
                reply = storable_reply(score, MAX_REPLY_CHARS)
                self._journal.add(Result(request.key, 0, score.value, score.error, reply, round(score.latency_s, 4)))
            else:
                failed[score.error] += 1

        lacking = [one for one in questions if any(self._unscored(one, samples, answers))]
        if lacking:
            async with ThinkingRewardClient(self._config) as client:
                requests = self._requests(files, lacking, samples, answers)
                bound, total = self._config.max_concurrency, len(lacking) * samples
                await ask_all(client, requests, take, bound=bound, total=total, label="thinking")
        if 2 * failed.total() > asked:
            raise ServerError(
                f"{failed.total()} of {asked} thinking rewards from {', '.join(self._config.urls)} failed "
                f"({kinds(failed)}): look at that server, then give the same command, which asks for these alone"
            )

    def _unscored(self, question: Question, samples: int, answers: Answers) -> Iterator[tuple[str, str]]:
        """The different thinkings of a question without a score, with their digests."""
        seen: set[str] = set()
        for sample in range(samples):
            answer = answers.get(question.id, sample)
            thinking = None if answer is None or answer.text is None else extract_thinking(answer.text)
            if thinking is None:
                continue
            key = pair_digest(question.id, thinking)
            if key not in seen and self._journal.find(key, 0) is None:
                seen.add(key)
                yield key, thinking

    def _requests(
        self, files: Sequence[Path], lacking: Sequence[Question], samples: int, answers: Answers
    ) -> Iterator[Request[str]]:
        for question, row in stream(files, lacking):
            images = images_of(row)
            for key, thinking in list(self._unscored(question, samples, answers)):
                yield Request(key, question_text(row["extra_info"]), images, thinking)
