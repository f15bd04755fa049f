"""SophiaVL-R1-Thinking-156k (questions, reasoning and its scores) to parquet for the thinking reward model's SFT.

    python -m data_preprocess.sophiavl_thinking_156k FOLDER --out data/thinking_156k --val-fraction 0.02

FOLDER is the published data set, as `hf download ... --local-dir FOLDER` leaves it: JSON files and image folders. The
output holds question, images, thinking and score (`data_preprocess.schema.THINKING_SCHEMA`); the training side renders
them with the very template that the served model is asked with.

Fields are found under the names in `ALIASES`; --field question=NAME says otherwise. Of a whole response only the
reasoning is kept, because that is what the model scores.

A known fault of the published files: images were matched to rows by the question's text, so that one image stands for
many different ones (https://github.com/kxfan2002/SophiaVL-R1/issues/11). No row shows it by itself;
`python -m data_preprocess.inspect` lists, by data source, how many different images there are.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_preprocess.core import checks, cli
from data_preprocess.core.adapter import Adapter, Draft
from data_preprocess.core.errors import Fault, RowError, SourceError
from data_preprocess.core.published import images_of, published_source
from data_preprocess.core.sources import LocalSource
from data_preprocess.schema import THINKING_SCHEMA, thinking_row

ALIASES: dict[str, tuple[str, ...]] = {
    "question": ("question", "problem"),
    "thinking": ("thinking", "thinking_process", "think", "process", "reasoning", "response"),
    "score": ("score", "thinking_score", "thinking_reward", "reward"),
    "images": ("path", "image_path", "images", "image"),
    "data_source": ("data_source", "source"),
}
_REASONING = re.compile(r"<think>(.*?)(?:</think>|<answer>|\Z)", re.DOTALL)
_KIND = "scored thinking"


@dataclass(frozen=True)
class Thinking156k(Adapter):
    """Adapter of scored reasoning.

    Attributes:
        names: (column of the output, the source's name of it) where the aliases do not do.
        max_prompt_chars: longest question and reasoning together, in characters; None for no limit.
    """

    schema = THINKING_SCHEMA
    images_beside_file = True
    names: tuple[tuple[str, str], ...] = ()
    max_prompt_chars: int | None = None

    def draft(self, fields: Mapping[str, Any], file: str) -> Draft:
        """See `Adapter.draft`."""
        names = {column: self._name(column, fields) for column in ALIASES}
        source = checks.text_field(fields.get(names["data_source"]), names["data_source"])
        question = checks.question_field(fields.get(names["question"]), names["question"])
        written = checks.required_text(fields.get(names["thinking"]), names["thinking"])
        thinking = checks.required_text(reasoning_of(written), names["thinking"])
        score = checks.score_field(fields.get(names["score"]), names["score"])
        images = images_of(fields, names["images"])
        checks.check_length(len(question) + len(thinking), self.max_prompt_chars, names["thinking"])
        data_source = source or "SophiaVL-R1-Thinking-156k"

        def make_row(data: Sequence[bytes], index: int) -> dict[str, Any]:
            try:
                return thinking_row(
                    data_source=data_source,
                    question=question,
                    thinking=thinking,
                    score=score,
                    split="",
                    index=index,
                    images=data,
                )
            except ValueError as error:
                raise RowError(Fault.IMAGE_MARKS, names["question"], str(error)) from error

        return Draft(question, images, names["images"], _KIND, data_source, make_row)

    def _name(self, column: str, fields: Mapping[str, Any]) -> str:
        chosen = dict(self.names).get(column)
        aliases = ALIASES[column]
        return chosen or next((name for name in aliases if name in fields), aliases[0])


def reasoning_of(written: str) -> str:
    """The reasoning in a response: what stands in its think tags, else everything before the answer."""
    found = _REASONING.search(written)
    return (found[1] if found else written.split("<answer>")[0]).replace("</think>", "").strip()


def field_names(pairs: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """``question=NAME`` settings as pairs.

    Raises:
        SourceError: not of that form, or an unknown column.
    """
    names = []
    for pair in pairs:
        column, _, name = pair.partition("=")
        if column not in ALIASES or not name:
            raise SourceError(f"--field {pair!r}: must be one of {', '.join(ALIASES)}, =, and the source's name")
        names.append((column, name))
    return tuple(names)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = cli.parser("sophiavl_thinking_156k", __doc__, "folder of the published data set, or its hub name")
    parser.add_argument(
        "--field", action="append", default=[], metavar="COLUMN=NAME", help="the source's name of a column"
    )

    def build(args: argparse.Namespace) -> tuple[LocalSource, Thinking156k]:
        adapter = Thinking156k(field_names(args.field), args.max_prompt_chars)
        return published_source(args.source, args.out), adapter

    return cli.main(parser, build, argv)


if __name__ == "__main__":
    sys.exit(main())
