"""Scored reasoning as training samples for verl's SFT trainer (``verl/trainer/sft_trainer.py``).

A sample is the very conversation that the client later asks a served model with: the same template file, the same
cleaning of question and reasoning (`prompt.build_messages`), followed by the reply that the model should learn.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import datasets
import pyarrow.compute as pc
import torch
from omegaconf import DictConfig
from PIL import Image, ImageOps
from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset
from verl.utils.tokenizer.chat_template import extract_system_prompt_and_generation

from recipe.sophiavl.trm.prompt import (
    PromptTemplate,
    build_messages,
    clean_question,
    clean_thinking,
    load_template,
)
from recipe.sophiavl.trm.scale import VALUES

TARGETS = ("score", "reply")
_COLUMNS = ("question", "images", "thinking", "score")
# verl compares the tokens of each sample's turns with those of the whole conversation, which doubles the work: whether
# a chat template passes does not depend on the sample, so a few tell.
_SAMPLES_CHECKED = 8


class ThinkingSFTDataset(MultiTurnSFTDataset):
    """Parquet files with question, images, thinking and score, as conversations.

    Args:
        config: verl's ``data`` group, with ``prompt_path`` (YAML template; null = the package's own), ``target``
            ("score": one of 0.0, 0.1 … 1.0; "reply": the judge's own words, which end in its score) and
            ``max_thinking_chars`` (as ``thinking_reward.max_thinking_chars`` will be when the model is asked).

    Raises:
        ValueError: an unknown target, a missing column, a row without score or reply.
        PromptError: the prompt file cannot be used.
    """

    def __init__(
        self,
        parquet_files: str | list[str],
        tokenizer: Any,
        config: DictConfig,
        processor: Any = None,
        max_samples: int = -1,
    ) -> None:
        if processor is None:
            raise ValueError("model.path: a thinking reward model sees images, but this model has no image processor")
        self.template: PromptTemplate = load_template(config.get("prompt_path"))
        self.target = config.get("target", "score")
        if self.target not in TARGETS:
            raise ValueError(f"data.target={self.target!r}: must be one of {', '.join(TARGETS)}")
        self.max_thinking_chars = config.get("max_thinking_chars")
        self._unchecked = _SAMPLES_CHECKED
        super().__init__(parquet_files, tokenizer, config, processor, max_samples)

    def _read_files_and_process(self) -> None:
        files = [str(file) for file in self.parquet_files]
        # Memory-mapped: the images of a large set fit on no machine's memory, and every rank reads them.
        rows = datasets.load_dataset("parquet", data_files=files, split="train")
        check_columns(rows, files, self.target)
        if 0 < self.max_samples < len(rows):
            rows = rows.select(range(self.max_samples))
        self.dataframe = _Rows(rows)
        self.messages = rows
        self.tools = self.enable_thinking = None
        self.system_prompt, self.generation_prompt = extract_system_prompt_and_generation(
            self.tokenizer, **self.apply_chat_template_kwargs
        )

    def _build_messages(self, example: Mapping[str, Any]) -> list[dict[str, Any]]:
        reply = example["reply"] if self.target == "reply" else score_text(example["score"])
        images = [rgb_image(image["bytes"]) for image in example["images"] or ()]
        prompt = conversation(self.template, example["question"], images, example["thinking"], self.max_thinking_chars)
        return [*prompt, {"role": "assistant", "content": [{"type": "text", "text": reply}]}]

    def __getitem__(self, item: int) -> dict[str, Any]:
        """See verl; a row without images has empty ``multi_modal_inputs``, because verl's collator takes the keys of
        a batch from its first row."""
        try:
            row = super().__getitem__(item)
        except ValueError as error:
            raise ValueError(
                f"row {item} of {', '.join(map(str, self.parquet_files))}: {error}. If it is too long, raise "
                "data.max_length or lower data.max_thinking_chars"
            ) from error
        row.setdefault("multi_modal_inputs", {})
        return row

    def sanity_check(self, input_ids: torch.Tensor, messages: list[dict], tools: Any, enable_thinking: Any) -> None:
        """See verl; the first few samples only."""
        if self._unchecked > 0:
            self._unchecked -= 1
            super().sanity_check(input_ids, messages, tools, enable_thinking)


class _Rows:
    """What verl's dataset reads of a pandas frame (``frame.iloc[i].to_dict()``), over a memory-mapped table."""

    def __init__(self, rows: datasets.Dataset) -> None:
        self._rows = rows
        self.iloc = self

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, item: int) -> SimpleNamespace:
        return SimpleNamespace(to_dict=lambda: self._rows[int(item)])


def conversation(
    template: PromptTemplate,
    question: str,
    images: Sequence[Image.Image],
    thinking: str,
    max_thinking_chars: int | None,
) -> list[dict[str, Any]]:
    """The client's messages with PIL images in the place of URLs, as Hugging Face processors take them."""
    images_left = iter(images)
    messages = build_messages(
        template, clean_question(question), [""] * len(images), clean_thinking(template, thinking, max_thinking_chars)
    )
    for message in messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        message["content"] = [
            part if part["type"] == "text" else {"type": "image", "image": next(images_left)} for part in parts
        ]
    return messages


def score_text(score: float) -> str:
    """A score as the model should write it: the nearest of 0.0, 0.1 … 1.0, which is all that it may say when served."""
    if not 0.0 <= score <= 1.0:
        raise ValueError(f"score {score!r} is not in [0, 1]")
    return VALUES[round(score * 10)]


def rgb_image(data: bytes) -> Image.Image:
    """Decode an image as vLLM does when it serves: turned upright by its EXIF, transparency on white."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white


def check_columns(rows: datasets.Dataset, files: Sequence[str], target: str) -> None:
    """Check that every row has what its conversation is made of.

    Raises:
        ValueError: a column is missing, a row has no value in it, or its score is not in [0, 1].
    """
    names = [*_COLUMNS, *(("reply",) if target == "reply" else ())]
    missing = [name for name in names if name not in rows.column_names]
    if missing:
        raise ValueError(
            f"{', '.join(files)}: lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; training files are "
            "made by recipe.sophiavl.trm_training.balance or data_preprocess.sophiavl_thinking_156k"
            + (". Without the judge's replies use data.target=score" if missing == ["reply"] else "")
        )
    where = ", ".join(files)
    for name in names:
        empty = pc.index(pc.is_null(rows.data.column(name)), True).as_py()
        if empty >= 0 and name != "images":
            raise ValueError(f"{where}: row {empty} has no {name}")
    for row, score in enumerate(rows.data.column("score").to_pylist()):
        if not isinstance(score, (int, float)) or not 0.0 <= score <= 1.0:
            raise ValueError(f"{where}: row {row}: score {score!r} is not in [0, 1]")
