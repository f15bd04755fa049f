"""Plain PyTorch training of the tiny Qwen2.5-VL models on the CPU: first the eyes, then the language."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from tiny_qwen import HIDDEN, IMAGE_TOKENS, MERGE, PATCH
from tqdm import trange
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessor

from data_preprocess.easy_vqa import COLORS, PICTURE_SIDE, PLACES, SHAPES, Scene, ShapeImage

MERGED = PICTURE_SIDE // (PATCH * MERGE)  # rows and columns of tokens in a picture
_IGNORE = -100


@dataclass(frozen=True)
class Example:
    """One training text: a prompt with one image mark, the reply to learn, and the scene's rows in the pixel table."""

    prompt: str
    reply: str
    scene: tuple[int, int, int]


class Pixels:
    """The patches of many pictures at each place, made once, for scenes of any three of them.

    Args:
        flip: turn the scenes of every second batch upside down: as good as twice the pictures to learn shapes from.
    """

    def __init__(self, images: Sequence[ShapeImage], processor: Qwen2VLImageProcessor, *, flip: bool = False) -> None:
        self.flip = flip
        rows = [Scene((image, image, image)).image() for image in images]
        output = processor(images=rows, return_tensors="pt")
        self.grid, self.dimension = output["image_grid_thw"][:1], output["pixel_values"].shape[-1]
        # (pictures, rows of tokens, places, columns of tokens, patches in a token x patch dimension)
        self.patches = output["pixel_values"].view(len(images), MERGED, len(PLACES), MERGED, -1)

    def __getitem__(self, scenes: Sequence[Sequence[int]] | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Patches (scenes * patches, dimension) and grids (scenes, 3) of these (scenes, 3) rows, as the model wants."""
        rows = torch.as_tensor(scenes)
        at_places = [self.patches[rows[:, i], :, i] for i in range(len(PLACES))]
        patches = torch.stack(at_places, 2)
        if self.flip and torch.rand(()) < 0.5:
            # rows of tokens, rows of patches in a token, and rows of pixels in a patch
            parts = patches.unflatten(-1, (MERGE, MERGE, -1, PATCH, PATCH))
            patches = parts.flip(1, 4, 7)
        return patches.reshape(-1, self.dimension), self.grid.expand(len(rows), -1)


class Encoder:
    """Texts to token ids as verl and vLLM make them: the prompt with its image tokens, then the reply and its end."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self.ids = lru_cache(100_000)(self._ids)

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def prompt_ids(self, prompt: str) -> tuple[int, ...]:
        """Token ids of a prompt that went through the chat template."""
        return self.ids(prompt.replace("<|image_pad|>", "<|image_pad|>" * IMAGE_TOKENS))

    def batch(self, examples: Sequence[Example], pixels: Pixels, *, with_reply: bool) -> dict[str, torch.Tensor]:
        """Model inputs: right-padded with labels on the replies, or left-padded prompts to generate from."""
        rows, labels = [], []
        for example in examples:
            prompt = self.prompt_ids(example.prompt)
            reply = self.ids(example.reply + self.tokenizer.eos_token) if with_reply else ()
            rows.append(prompt + reply)
            labels.append((_IGNORE,) * len(prompt) + reply)
        width = max(map(len, rows))

        def pad(values: tuple[int, ...], fill: int) -> list[int]:
            filler = [fill] * (width - len(values))
            return [*values, *filler] if with_reply else [*filler, *values]

        ids = torch.tensor([pad(row, self.tokenizer.pad_token_id) for row in rows])
        patches, grid = pixels[[example.scene for example in examples]]
        inputs = {
            "input_ids": ids,
            "attention_mask": torch.tensor([pad((1,) * len(row), 0) for row in rows]),
            "mm_token_type_ids": (ids == self.tokenizer.convert_tokens_to_ids("<|image_pad|>")).int(),
            "pixel_values": patches,
            "image_grid_thw": grid,
        }
        if with_reply:
            inputs["labels"] = torch.tensor([pad(label, _IGNORE) for label in labels])
        return inputs


def optimise(
    parameters: Sequence[torch.nn.Parameter], loss_of: Callable[[], torch.Tensor], steps: int, lr: float, name: str
) -> None:
    """AdamW with warm-up and cosine decay to a tenth, gradients clipped at norm 1."""
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.01, betas=(0.9, 0.98))
    warm_up = max(1, steps // 20)

    def factor(step: int) -> float:
        return min((step + 1) / warm_up, 0.1 + 0.45 * (1 + math.cos(math.pi * step / steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    average = None
    with trange(steps, desc=name, mininterval=2) as progress:
        for _ in progress:
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            average = loss.item() if average is None else 0.98 * average + 0.02 * loss.item()
            progress.set_postfix(loss=f"{average:.4f}")


def train_eyes(
    model: Qwen2_5_VLForConditionalGeneration, images: Sequence[ShapeImage], pixels: Pixels, steps: int, lr: float
) -> None:
    """Teach the vision tower colour, shape and place of each picture with linear heads, which are thrown away."""
    looks = torch.tensor([(COLORS.index(image.color), SHAPES.index(image.shape)) for image in images])
    heads = torch.nn.ModuleList([torch.nn.Linear(HIDDEN, len(words)) for words in (COLORS, SHAPES, PLACES)])

    def loss_of() -> torch.Tensor:
        rows = torch.randint(len(images), (48, len(PLACES)))
        tokens = see(model, *pixels[rows]).view(len(rows), MERGED, len(PLACES), MERGED, HIDDEN)
        features = tokens.mean((1, 3)).flatten(0, 1)
        truths = [*looks[rows].flatten(0, 1).T, torch.arange(len(PLACES)).repeat(len(rows))]
        pairs = zip(heads, truths, strict=True)
        return sum(torch.nn.functional.cross_entropy(head(features), truth) for head, truth in pairs)

    optimise([*model.model.visual.parameters(), *heads.parameters()], loss_of, steps, lr, "eyes")


def see(model: Qwen2_5_VLForConditionalGeneration, patches: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """What the vision tower hands to the language model: (image tokens, hidden)."""
    return model.model.visual(patches, grid_thw=grid).pooler_output


def train_language(
    model: Qwen2_5_VLForConditionalGeneration,
    encoder: Encoder,
    pixels: Pixels,
    draw: Callable[[], Example],
    *,
    steps: int,
    batch_size: int,
    lr: float,
    name: str,
) -> None:
    """SFT of the whole model on freshly drawn examples, loss on the replies."""

    def loss_of() -> torch.Tensor:
        inputs = encoder.batch([draw() for _ in range(batch_size)], pixels, with_reply=True)
        return model(**inputs, use_cache=False).loss

    optimise(list(model.parameters()), loss_of, steps, lr, name)


@torch.no_grad()
def generate(
    model: Qwen2_5_VLForConditionalGeneration,
    encoder: Encoder,
    pixels: Pixels,
    examples: Sequence[Example],
    *,
    temperature: float,
    max_new_tokens: int,
) -> list[str]:
    """Replies to the examples' prompts; temperature 0 is greedy."""
    sampling: dict[str, Any] = {"do_sample": False}
    if temperature:
        sampling = {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
    replies = []
    for start in range(0, len(examples), 128):
        inputs = encoder.batch(examples[start : start + 128], pixels, with_reply=False)
        output = model.generate(**inputs, **sampling, max_new_tokens=max_new_tokens)
        new = output[:, inputs["input_ids"].shape[1] :]
        replies += encoder.tokenizer.batch_decode(new, skip_special_tokens=True)
    return replies
