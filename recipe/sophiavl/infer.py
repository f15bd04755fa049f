"""Ask a policy: prints its thinking and its answer, and, with a thinking reward model, the score of the thinking.

python -m recipe.sophiavl.infer MODEL_OR_URL --image cat.png --question "How many cats are there?"
python -m recipe.sophiavl.infer MODEL_OR_URL questions.jsonl --json >answers.jsonl
python -m recipe.sophiavl.infer MODEL_OR_URL FOLDER_OF_IMAGES --question "What is this?"
echo '{"question": "How many?", "image": "cat.png"}' | python -m recipe.sophiavl.infer MODEL_OR_URL -

MODEL_OR_URL is a model folder or a name on the hub, which vLLM serves meanwhile as a training's rollout does, or the
base URL of an OpenAI-compatible server. A file (.jsonl, .json, .csv, .tsv, .parquet) has a column question, and where
there are any, image or images (paths from the file's folder) and options; RL parquet files are taken as they are. A
line of standard input is such an object as JSON, or a question about the images of --image.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import select
import sys
import tempfile
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_preprocess.core.errors import SourceError
from data_preprocess.core.sources import SUFFIXES, read_file, suffix_of
from data_preprocess.schema import rl_row
from page_kit.text import shown
from recipe.sophiavl.evaluate.asking import AskSettings, answer_seed, read_body, read_prompt
from recipe.sophiavl.evaluate.policy import Answer, PolicyClient, find_model
from recipe.sophiavl.evaluate.questions import BadRowError, images_of, messages_of
from recipe.sophiavl.evaluate.serving import add_serving_arguments, check_target, is_url, model_name, served
from recipe.sophiavl.trm.arguments import add_client_arguments, client_settings
from recipe.sophiavl.trm.client import ThinkingRewardClient
from recipe.sophiavl.trm.client_settings import ClientSettings
from recipe.sophiavl.trm.questions import question_text
from recipe.sophiavl.trm_training.commands import DONE, FAILED, add_settings, exit_status, read_settings
from recipe.sophiavl.trm_training.evaluate.scoring import settled
from recipe.sophiavl.validation import SettingsError
from reward_score.format import parse_response

STDIN = "-"
# How long a stop may take, and how much is read at once.
_LOOK_S, _PIECE_BYTES = 0.2, 2**16
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Asked:
    """A question to ask.

    Attributes:
        row: as `data_preprocess.schema.RL_SCHEMA` has it, with paths in the place of bytes; None where there is none.
        images: the images' names, for people.
        error: why it cannot be asked.
    """

    row: Mapping[str, Any] | None
    images: Sequence[str] = ()
    error: str | None = None


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m recipe.sophiavl.infer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", metavar="MODEL_OR_URL", help="model folder, name on the hub, or base URL such as http://host:8000/v1")
    add("source", metavar="SOURCE", nargs="?", help="file of questions, folder of images, or - for standard input")
    add("--image", action="append", default=[], help="image file of the question; repeatable")
    add("--question", help="the question; of a folder, about each image")
    add("--model", dest="served_model", help="name of the model at the URL (default: the only one there)")
    add("--json", action="store_true", help="one JSON object a line")
    add_serving_arguments(parser)
    add_settings(parser.add_argument_group("asking"), AskSettings, system_prompt=read_prompt, extra_body=read_body)
    add_client_arguments(parser, "trm-")
    return parser


def questions_of(
    source: str | None, images: Sequence[str], question: str | None, stop: threading.Event
) -> Iterator[Asked]:
    """The questions that the command line names, one at a time.

    Args:
        stop: ends the reading of standard input, which may wait for ever.

    Raises:
        SettingsError: it names none, or no usable file or folder.
    """
    if source is None:
        if question is None:
            raise SettingsError("nothing to ask: give --question (and --image), a file, a folder of images, or -")
        return iter([_asked(question, images)])
    if source == STDIN:
        return (_from_line(line, images) for line in _lines(sys.stdin.fileno(), stop) if line.strip())
    if images:
        raise SettingsError(f"--image={images[0]}: is for --question alone or with -, and {source} names its own")
    path = Path(source)
    if path.is_dir():
        return _from_folder(path, question)
    if not path.is_file():
        raise SettingsError(f"SOURCE {source}: no such file or folder")
    if suffix_of(path) not in SUFFIXES:
        raise SettingsError(f"SOURCE {source}: not one of {', '.join(SUFFIXES)}; an image goes to --image")
    return _from_file(path, question)


def _from_folder(folder: Path, question: str | None) -> Iterator[Asked]:
    if question is None:
        raise SettingsError(f"SOURCE {folder}: a folder of images needs --question")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise SettingsError(f"SOURCE {folder}: no images in it ({', '.join(IMAGE_SUFFIXES)})")
    return (_asked(question, [str(file)]) for file in files)


def _from_file(file: Path, question: str | None) -> Iterator[Asked]:
    try:
        for number, (row, fault) in enumerate(read_file(file)):
            where = f"{file}, row {number}"
            yield (
                Asked(None, error=f"{where}: {fault}") if row is None else _from_row(row, where, file.parent, question)
            )
    except SourceError as error:
        raise SettingsError(f"SOURCE {error}") from error


def _lines(file: int, stop: threading.Event) -> Iterator[str]:
    rest = b""
    while not stop.is_set():
        if not select.select([file], [], [], _LOOK_S)[0]:
            continue
        piece = os.read(file, _PIECE_BYTES)
        *lines, rest = (rest + piece).split(b"\n") if piece else (rest, b"")
        yield from (line.decode("utf-8", "replace") for line in lines)
        if not piece:
            return


def _from_line(line: str, images: Sequence[str]) -> Asked:
    if not line.lstrip().startswith("{"):
        return _asked(line.strip(), images)
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Asked(None, error=f"a line of standard input is broken JSON ({error})")
    return _from_row({"images": images, **row}, "a line of standard input", Path(), None)


def _from_row(row: Mapping[str, Any], where: str, folder: Path, question: str | None) -> Asked:
    """A row of an RL file as it is, or one with question, image or images, and options."""
    if isinstance(row.get("prompt"), list) and isinstance(row.get("extra_info"), dict):
        names = [str(image.get("path") or "embedded") for image in row.get("images") or () if isinstance(image, dict)]
        return Asked(row, names)
    text = row.get("question") or question
    if not isinstance(text, str):
        return Asked(None, error=f"{where}: no question (columns: {', '.join(map(str, row))[:200]})")
    images, options = row.get("image") or row.get("images") or [], row.get("options") or []
    images = images if isinstance(images, list) else [images]
    try:
        options = json.loads(options) if isinstance(options, str) else options
        return _asked(text, [_placed(image, folder) for image in images], options)
    except (ValueError, TypeError, AttributeError) as error:
        return Asked(None, error=f"{where}: {error}")


def _placed(image: Any, folder: Path) -> Any:
    """A path as from `folder`; encoded images, as parquet has them, stay."""
    return str(folder / image) if isinstance(image, str) and not image.startswith("data:") else image


def _asked(question: str, images: Sequence[Any], options: Sequence[str] = ()) -> Asked:
    row = rl_row(
        data_source="infer",
        question=question,
        problem_type="free-form",
        answer="",
        split="infer",
        index=0,
        images=[b""] * len(images),
        options=options,
    )
    return Asked({**row, "images": list(images)}, [image if isinstance(image, str) else "embedded" for image in images])


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: 0; 1 where a question has no answer or the server fails, 2 for wrong settings, 130 on Ctrl-C."""
    return exit_status(lambda: _run(make_parser().parse_args(argv)))


def _run(given: argparse.Namespace) -> int:
    settings = read_settings(given, AskSettings)
    if bool(given.trm_url) != bool(given.trm_model):
        raise SettingsError("--trm-url and --trm-model go together: give both, or neither")
    trm = client_settings(given, "trm-") if given.trm_url else None
    check_target(given.model, given.serve_flags)
    stop = threading.Event()
    questions = questions_of(given.source, given.image, given.question, stop)
    log = Path(tempfile.gettempdir()) / f"sophiavl-infer-{os.getpid()}.log"
    with served(given.model, log, given.serve_flags) as server:
        if is_url(given.model):
            name, _ = asyncio.run(find_model(server.url, given.served_model, settings))
        else:
            name = model_name(given.model)
        client = PolicyClient(server.url, name, settings, server.died)
        status = asyncio.run(_answer_all(client, questions, trm, stop, given.json))
    log.unlink(missing_ok=True)  # where something failed, it is looked at
    return status


async def _answer_all(
    client: PolicyClient, questions: Iterator[Asked], trm: ClientSettings | None, stop: threading.Event, as_json: bool
) -> int:
    failed = False
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(client)
        scorer = None
        if trm is not None:
            scorer = await stack.enter_async_context(ThinkingRewardClient(await settled(trm)))
        async for result in _in_order(client, questions, scorer, stop):
            failed |= result["error"] is not None
            print(json.dumps(result) if as_json else text_of(result), flush=True)
    return FAILED if failed else DONE


async def _in_order(
    client: PolicyClient, questions: Iterator[Asked], scorer: ThinkingRewardClient | None, stop: threading.Event
) -> AsyncIterator[dict[str, Any]]:
    """The results in the order of the questions, each as soon as it and all before it are there."""
    under_way: deque[asyncio.Task[dict[str, Any]]] = deque()
    reading: asyncio.Task[Asked | None] | None = None
    ended, number = False, 0
    try:
        while not ended or under_way:
            if reading is None and not ended and len(under_way) < client.settings.concurrency:
                reading = asyncio.create_task(asyncio.to_thread(next, questions, None))
            waited = [task for task in (reading, under_way[0] if under_way else None) if task is not None]
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if reading is not None and reading.done():
                asked, reading = reading.result(), None
                if asked is None:
                    ended = True
                else:
                    under_way.append(asyncio.create_task(_answer(client, asked, number, scorer)))
                    number += 1
            while under_way and under_way[0].done():
                yield under_way.popleft().result()
    finally:
        stop.set()
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


async def _answer(
    client: PolicyClient, asked: Asked, number: int, scorer: ThinkingRewardClient | None
) -> dict[str, Any]:
    """One question's result, as ``--json`` prints it."""
    fields = ("question", "response", "thinking", "answer", "thinking_reward", "thinking_error", "tokens")
    result: dict[str, Any] = {**dict.fromkeys(fields), "images": list(asked.images), "cut": False, "error": asked.error}
    if asked.row is None:
        return result
    info = asked.row["extra_info"]
    result["question"] = info["question"]
    try:
        images = await asyncio.to_thread(images_of, asked.row)
        messages = json.dumps(messages_of(asked.row, images, client.settings.system_prompt)).encode()
    except BadRowError as error:
        return result | {"error": str(error)}
    answer: Answer = await client.answer(messages, answer_seed(client.settings.seed, str(number), 0))
    result |= {"response": answer.text, "cut": answer.cut, "tokens": answer.completion_tokens, "error": answer.error}
    parsed = None if answer.text is None else parse_response(answer.text)
    if parsed is None:
        return result
    result |= {"thinking": parsed.thinking, "answer": parsed.answer}
    if scorer is not None:
        score = await scorer.score(question_text(info), images, parsed.thinking)
        result |= {"thinking_reward": score.value, "thinking_error": score.error}
    return result


def text_of(result: Mapping[str, Any]) -> str:
    """A result for a terminal; characters that would write to it are shown, not sent."""
    lines = [f"# {name}" for name in result["images"]] + [f"Question: {result['question'] or '–'}"]
    if result["error"] is not None:
        lines.append(f"No answer: {result['error']}")
    elif result["thinking"] is None:
        lines.append(f"Without the format <think>…</think><answer>…</answer>: {result['response']}")
    else:
        lines += [f"Thinking: {result['thinking']}", f"Answer: {result['answer']}"]
    if result["cut"]:
        lines.append("The answer was cut at --max-tokens.")
    if result["thinking_reward"] is not None:
        lines.append(f"Thinking reward: {result['thinking_reward']:.2f}")
    elif result["thinking_error"] is not None:
        lines.append(f"Thinking reward: missing ({result['thinking_error']})")
    return shown("\n".join(lines)) + "\n"


if __name__ == "__main__":
    sys.exit(main())
