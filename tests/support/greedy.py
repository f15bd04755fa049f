"""A model folder's greedy answers to rows of a data file, by transformers and by a vLLM server."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from testbed.vllm_server import VllmServer

Row = dict[str, Any]
MAX_TOKENS = 64  # of the preset that the tests train with


def rows_of(file: Path) -> dict[tuple[str, int], Row]:
    """The rows of an RL data file, by source and index."""
    return {(row["data_source"], row["extra_info"]["index"]): row for row in pq.read_table(file).to_pylist()}


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """A model's weights in float32, by the names that its modules have in memory."""
    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).state_dict()


def saved_weights(actor: Path) -> dict[str, torch.Tensor]:
    """What the one rank of a run saved in a checkpoint."""
    saved = torch.load(actor / "model_world_size_1_rank_0.pt", weights_only=False)
    return {name: getattr(weight, "_local_tensor", weight) for name, weight in saved.items()}


def with_transformers(
    folder: Path, rows: Sequence[Row], weights: Mapping[str, torch.Tensor] | None = None
) -> list[str]:
    """Responses of the model in a folder, in float32, one question at a time.

    Args:
        weights: in place of the folder's.
    """
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    if weights is not None:
        model.load_state_dict(weights)
    responses = []
    for row in rows:
        messages = _messages(row, lambda data: {"type": "image", "image": Image.open(io.BytesIO(data))})
        inputs = processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        tokens = model.generate(**inputs, max_new_tokens=MAX_TOKENS, do_sample=False)
        responses.append(processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    return responses


def from_server(server: VllmServer, rows: Sequence[Row]) -> list[str]:
    """Responses of a server."""
    responses = []
    for row in rows:
        messages = _messages(row, lambda data: {"type": "image_url", "image_url": {"url": _data_url(data)}})
        body = {"model": server.name, "messages": messages, "max_tokens": MAX_TOKENS, "temperature": 0}
        answer = httpx.post(f"{server.url}/chat/completions", json=body, timeout=120)
        answer.raise_for_status()
        responses.append(answer.json()["choices"][0]["message"]["content"])
    return responses


def _data_url(image: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


def _messages(row: Row, image_part: Callable[[bytes], dict[str, Any]]) -> list[dict[str, Any]]:
    """The row's prompt, with its images where ``<image>`` marks them."""
    images = iter(row["images"] or [])
    return [
        {
            "role": message["role"],
            "content": [
                image_part(next(images)["bytes"]) if part == "<image>" else {"type": "text", "text": part}
                for part in re.split("(<image>)", message["content"])
                if part
            ],
        }
        for message in row["prompt"]
    ]
