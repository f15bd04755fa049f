"""One evaluation, from the questions to its results: asked, kept, scored, compared."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from data_preprocess.core.files import replacing
from recipe.sophiavl.evaluate.answers import Answers
from recipe.sophiavl.evaluate.asking import AskSettings, answer_seed
from recipe.sophiavl.evaluate.figures import Floats, Scored, measures_of
from recipe.sophiavl.evaluate.policy import Answer, PolicyClient
from recipe.sophiavl.evaluate.questions import Question, Row, messages_json, stream
from recipe.sophiavl.evaluate.thinking import ThinkingScores
from recipe.sophiavl.server_process import ServerError
from recipe.sophiavl.trm_training.asking import ask_each
from recipe.sophiavl.trust_grpo import TrustGRPOConfig
from reward_score import OutcomeSettings, score_outcome

SCORED = "scored.jsonl"
# So many errors in a row, and no answer, are no fault of single rows.
_MOST_ERRORS = 32
_MOST_TOLD = 20


@dataclass(frozen=True)
class Scoring:
    """What counts as right.

    Attributes:
        outcome: settings of the outcome reward.
        threshold: least outcome reward of a right answer.
        threshold_by_type: another one for single problem types, by name in lower case.
    """

    outcome: OutcomeSettings = field(default_factory=OutcomeSettings)
    threshold: float = TrustGRPOConfig.correct_threshold
    threshold_by_type: Mapping[str, float] = field(default_factory=dict)

    def correct(self, reward: float, problem_type: str) -> bool:
        """Whether an answer of this reward is right."""
        return reward >= self.threshold_by_type.get(problem_type.lower(), self.threshold)


class Request(NamedTuple):
    """An answer that is asked for; `messages` as JSON."""

    question: Question
    sample: int
    messages: bytes


@dataclass
class Found:
    """The scored answers of an evaluation.

    Attributes:
        values: measures by name, each of shape (questions,), NaN where a question has none.
        errors: answers that there are not, by kind.
        first_errors: the first of them in words.
        missing_thinking: thinking rewards that are missing, by reason.
        parted: answers whose thinking the server had parted from them.
    """

    values: dict[str, Floats]
    errors: Counter[str]
    first_errors: list[str]
    missing_thinking: Counter[str]
    parted: int


async def ask(
    client: PolicyClient,
    files: Sequence[Path],
    todo: Mapping[Question, Sequence[int]],
    answers: Answers,
    settings: AskSettings,
) -> None:
    """Ask for the samples of `todo` and write each answer down the moment it arrives.

    Raises:
        ServerError: the server went away, or refuses everything.
    """
    errors = 0

    def take(request: Request, answer: Answer) -> None:
        nonlocal errors
        answers.add(request.question.id, request.sample, answer)
        errors = errors + 1 if answer.error is not None else 0
        if errors >= _MOST_ERRORS:
            raise ServerError(
                f"{client.url}: the last {errors} questions were all refused: {answer.error}. Mend that, and give the "
                "same command with --retry-errors"
            )

    async def answered(request: Request) -> Answer:
        seed = answer_seed(settings.seed, request.question.id, request.sample)
        return await client.answer(request.messages, seed)

    total = sum(map(len, todo.values()))
    requests = _requests(files, todo, settings.system_prompt)
    await ask_each(answered, requests, take, bound=settings.concurrency, total=total, label="answering", unit="answer")


def _requests(
    files: Sequence[Path], todo: Mapping[Question, Sequence[int]], system_prompt: str | None
) -> Iterator[Request]:
    for question, row in stream(files, todo):
        messages = messages_json(row, system_prompt)
        for sample in todo[question]:
            yield Request(question, sample, messages)


def score(
    folder: Path,
    files: Sequence[Path],
    questions: Sequence[Question],
    answers: Answers,
    samples: int,
    scoring: Scoring,
    thinking: ThinkingScores | None,
) -> Found:
    """Score all answers, in the order of the data, and write them to ``scored.jsonl``."""
    found = Found({}, Counter(), [], Counter(), 0)
    rows: list[dict[str, float]] = []
    with replacing(folder / SCORED) as temporary, temporary.open("w", encoding="utf-8") as out:
        for question, row in tqdm(stream(files, questions), "scoring", len(questions), unit="row"):
            scored = []
            for sample in range(samples):
                answer = Answer(None, question.fault) if question.fault else answers.get(question.id, sample)
                answer = answer or Answer(None, "not asked")
                line = _score_one(question, row, answer, scoring, thinking, found)
                out.write(json.dumps({"id": question.id, "sample": sample, **line}) + "\n")
                if answer.text is not None:
                    scored.append(
                        Scored(
                            line["reward"],
                            line["correct"],
                            line["answer"],
                            answer.cut,
                            line["thinking_reward"],
                            answer.completion_tokens,
                        )
                    )
            rows.append(measures_of(scored, samples))
    found.values = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return found


def _score_one(
    question: Question,
    row: Row,
    answer: Answer,
    scoring: Scoring,
    thinking: ThinkingScores | None,
    found: Found,
) -> dict[str, Any]:
    """One line of ``scored.jsonl``; counts in `found`."""
    info = row["extra_info"] or {}
    truth = (row["reward_model"] or {}).get("ground_truth")
    line: dict[str, Any] = {
        "where": question.where,
        "data_source": question.data_source,
        "problem_type": question.problem_type,
        "question": info.get("question"),
        "truth": truth,
        "response": answer.text,
        **dict.fromkeys(("answer", "reward", "correct", "format_ok", "thinking_reward", "thinking_error")),
        **{name: getattr(answer, name) for name in ("cut", "error", "prompt_tokens", "completion_tokens")},
    }
    if answer.text is None:
        fault = question.fault is not None
        found.errors["the row itself" if fault else str(answer.error).partition(":")[0]] += 1
        if len(found.first_errors) < _MOST_TOLD:
            found.first_errors.append(f"{question.where}: {answer.error}")
        return line
    found.parted += answer.parted
    outcome = score_outcome(question.problem_type, answer.text, truth, info.get("options"), settings=scoring.outcome)
    line |= {"answer": outcome.answer, "reward": outcome.reward, "format_ok": outcome.format_ok}
    line["correct"] = scoring.correct(outcome.reward, question.problem_type)
    if thinking is not None:
        line["thinking_reward"], line["thinking_error"] = thinking.find(question.id, answer.text)
        if line["thinking_reward"] is None:
            found.missing_thinking[str(line["thinking_error"])] += 1
    return line
