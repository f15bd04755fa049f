"""Plain PyTorch training of the tiny Qwen2.5-VL models, on a CPU or a GPU: first the eyes, then the language."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from tiny_qwen import HIDDEN, IMAGE_TOKENS, MERGE, PATCH, TEMPORAL_PATCH, model_config
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from torchvision.transforms.functional import pil_to_tensor
from tqdm import trange
from transformers import (
    AttentionInterface,
    PreTrainedTokenizerFast,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLModel,
    Qwen2VLImageProcessor,
)
from transformers.vision_utils import get_vision_cu_seqlens, get_vision_position_ids, get_vision_window_index

from data_preprocess.easy_vqa import COLORS, FRAME, PICTURE_SIDE, PLACES, SHAPES, ShapeImage

MERGED = PICTURE_SIDE // (PATCH * MERGE)  # rows and columns of tokens in a picture
_IGNORE = -100


@dataclass(frozen=True)
class Example:
    """One training text: a prompt with one image mark, the reply to learn, and the scene's rows in the pixel table."""

    prompt: str
    reply: str
    scene: tuple[int, int, int]


class Pixels:
    """Pictures, and what the image processor would make of scenes of any three of them.

    Args:
        augment: mirror, turn, shift and zoom each picture at random: as good as many more to learn shapes from.
        device: where the pictures are kept and the scenes are made.
    """

    def __init__(
        self,
        images: Sequence[ShapeImage],
        processor: Qwen2VLImageProcessor,
        *,
        augment: bool = False,
        device: str = "cpu",
    ) -> None:
        self.augment = augment
        # (pictures, channels, height, width)
        self.pictures = torch.stack([pil_to_tensor(image.picture()) for image in images]).to(device)
        self.mean, self.std = (
            torch.tensor(values, device=device)[:, None, None] for values in (processor.image_mean, processor.image_std)
        )
        self.grid = torch.tensor([[1, PICTURE_SIDE // PATCH, len(PLACES) * PICTURE_SIDE // PATCH]])
        self.layout = lru_cache(2)(self._layout)

    def __getitem__(self, scenes: Sequence[Sequence[int]] | torch.Tensor) -> torch.Tensor:
        """Patches (scenes * patches, dimension) of these (scenes, 3) rows of pictures, in the processor's order."""
        rows = torch.as_tensor(scenes, device=self.pictures.device)
        pictures = self.pictures[rows] / 255
        if self.augment:
            pictures = _augmented(pictures.flatten(0, 1)).view_as(pictures)
        image = pictures.permute(0, 2, 3, 1, 4).flatten(3)
        inside = torch.zeros_like(image[0, 0])
        inside[FRAME:-FRAME, FRAME:-FRAME] = 1
        image = (image * inside - self.mean) / self.std
        # scenes, channels, then by height and by width: tokens, patches in a token, pixels in a patch
        parts = image.unflatten(3, (-1, MERGE, PATCH)).unflatten(2, (-1, MERGE, PATCH))
        patches = parts.permute(0, 2, 5, 3, 6, 1, 4, 7).unsqueeze(6)
        return patches.expand(*patches.shape[:6], TEMPORAL_PATCH, -1, -1).reshape(-1, 3 * TEMPORAL_PATCH * PATCH**2)

    def _layout(self, scenes: int) -> dict[str, torch.Tensor]:
        """What the vision tower would work out for these many scenes at every call, in loops over images."""
        grid = self.grid.expand(scenes, -1)
        window_index, windows = get_vision_window_index(grid, MERGE, PICTURE_SIDE, PATCH)
        layout = {
            "image_grid_thw": grid,
            "image_position_ids": get_vision_position_ids(grid, MERGE),
            "image_cu_seqlens": get_vision_cu_seqlens(grid),
            "image_window_index": window_index,
            "image_cu_window_seqlens": windows,
        }
        return {name: value.to(self.pictures.device) for name, value in layout.items()}

    def inputs(self, scenes: torch.Tensor) -> dict[str, torch.Tensor]:
        """The model's inputs for these (scenes, 3) rows, beside texts of one scene each."""
        return {"pixel_values": self[scenes], **self.layout(len(scenes))}


def _augmented(pictures: torch.Tensor) -> torch.Tensor:
    """The (pictures, channels, height, width) mirrored, turned upside down, shifted and zoomed, each at random."""
    count, device = len(pictures), pictures.device
    signs = torch.randint(2, (count, 2), device=device) * 2 - 1
    # Half of the batches stay as sharp as they are.
    strength = float(torch.rand(()) < 0.5)
    zoom = 1 + strength * 0.15 * (2 * torch.rand(count, 1, device=device) - 1)
    shift = strength * 0.15 * (2 * torch.rand(count, 2, device=device) - 1)
    transform = torch.cat([torch.diag_embed(signs * zoom), shift[..., None]], 2)
    grid = torch.nn.functional.affine_grid(transform, list(pictures.shape), align_corners=False)
    return torch.nn.functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


class Encoder:
    """Texts to token ids as verl and vLLM make them: the prompt with its image tokens, then the reply and its end."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self.ids = lru_cache(100_000)(self._ids)
        with torch.device("meta"):
            self.positions = Qwen2_5_VLModel(model_config(tokenizer)).get_rope_index

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def prompt_ids(self, prompt: str) -> tuple[int, ...]:
        """Token ids of a prompt that went through the chat template."""
        return self.ids(prompt.replace("<|image_pad|>", "<|image_pad|>" * IMAGE_TOKENS))

    def texts(self, examples: Sequence[Example], *, with_reply: bool) -> dict[str, torch.Tensor]:
        """Model inputs but for the images: right-padded with labels on the replies, or left-padded prompts."""
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
        inputs = {
            "input_ids": ids,
            "attention_mask": torch.tensor([pad((1,) * len(row), 0) for row in rows]),
            "mm_token_type_ids": (ids == self.tokenizer.convert_tokens_to_ids("<|image_pad|>")).int(),
        }
        if with_reply:
            inputs["labels"] = torch.tensor([pad(label, _IGNORE) for label in labels])
        return inputs

    def batch(self, examples: Sequence[Example], pixels: Pixels, *, with_reply: bool) -> dict[str, torch.Tensor]:
        """`texts` and the images."""
        patches = pixels[[example.scene for example in examples]]
        inputs = self.texts(examples, with_reply=with_reply) | {"image_grid_thw": pixels.grid.expand(len(examples), -1)}
        return {name: value.to(patches.device) for name, value in inputs.items()} | {"pixel_values": patches}


class Batches(IterableDataset):
    """Endless batches of freshly drawn examples: the model's inputs but for the images, and the rows of their pictures.

    Args:
        draw: draws an example with `rng`, which every worker process seeds for itself.
        grid: a scene's rows and columns of patches, (1, 3).
    """

    def __init__(
        self, draw: Callable[[], Example], rng: random.Random, encoder: Encoder, grid: torch.Tensor, batch_size: int
    ) -> None:
        self.draw, self.rng, self.encoder, self.grid, self.batch_size = draw, rng, encoder, grid, batch_size

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        if worker := get_worker_info():
            self.rng.seed(f"{self.rng.random()} {worker.id}")
        grids = self.grid.expand(self.batch_size, -1)
        while True:
            examples = [self.draw() for _ in range(self.batch_size)]
            inputs = self.encoder.texts(examples, with_reply=True)
            kinds = inputs.pop("mm_token_type_ids")
            # At every call the model would work them out in a loop over rows.
            inputs["position_ids"], _ = self.encoder.positions(
                inputs["input_ids"], kinds, grids, attention_mask=inputs["attention_mask"]
            )
            yield inputs | {"scenes": torch.tensor([example.scene for example in examples])}


def optimise(
    parameters: Sequence[torch.nn.Parameter], loss_of: Callable[[], torch.Tensor], steps: int, lr: float, name: str
) -> None:
    """AdamW with warm-up and cosine decay to a tenth, gradients clipped at norm 1."""
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.01, betas=(0.9, 0.98), fused=True)
    warm_up = max(1, steps // 20)

    def factor(step: int) -> float:
        return min((step + 1) / warm_up, 0.1 + 0.45 * (1 + math.cos(math.pi * step / steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    average = None
    with trange(steps, desc=name, mininterval=2) as progress:
        for step in progress:
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            if step % 10 == 0:  # reading it waits for a GPU
                average = loss.item() if average is None else 0.8 * average + 0.2 * loss.item()
                progress.set_postfix(loss=f"{average:.4f}", refresh=False)


def windows_at_once(model: Qwen2_5_VLForConditionalGeneration) -> None:
    """Let the vision tower attend in all windows of equal size with one call; it would loop over them."""
    model.model.visual.config._attn_implementation = _WINDOWS


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    scaling: float,
    cu_seq_lens_q: torch.Tensor,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Attention within windows of equal size: (1, heads, patches, head dimension) to (1, patches, heads, dimension)."""
    windows = len(cu_seq_lens_q) - 1
    parts = (states[0].unflatten(1, (windows, -1)).transpose(0, 1) for states in (query, key, value))
    seen = torch.nn.functional.scaled_dot_product_attention(*parts, scale=scaling)
    return seen.transpose(1, 2).flatten(0, 1)[None], None


# The name decides how the vision tower calls it: with all windows and where they begin, as FlashAttention wants them.
_WINDOWS = "flash_attention_in_equal_windows"
AttentionInterface.register(_WINDOWS, _attend)


def train_eyes(
    model: Qwen2_5_VLForConditionalGeneration, images: Sequence[ShapeImage], pixels: Pixels, steps: int, lr: float
) -> None:
    """Teach the vision tower colour, shape and place of each picture with linear heads, which are thrown away."""
    device = pixels.pictures.device
    looks = torch.tensor([(COLORS.index(image.color), SHAPES.index(image.shape)) for image in images])
    heads = torch.nn.ModuleList([torch.nn.Linear(HIDDEN, len(words)) for words in (COLORS, SHAPES, PLACES)]).to(device)

    def loss_of() -> torch.Tensor:
        rows = torch.randint(len(images), (48, len(PLACES)))
        tokens = see(model, pixels.inputs(rows)).view(len(rows), MERGED, len(PLACES), MERGED, HIDDEN)
        features = tokens.mean((1, 3)).flatten(0, 1)
        truths = [*looks[rows].flatten(0, 1).T, torch.arange(len(PLACES)).repeat(len(rows))]
        pairs = zip(heads, truths, strict=True)
        return sum(torch.nn.functional.cross_entropy(head(features), truth.to(device)) for head, truth in pairs)

    optimise([*model.model.visual.parameters(), *heads.parameters()], loss_of, steps, lr, "eyes")


def see(model: Qwen2_5_VLForConditionalGeneration, images: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the vision tower hands to the language model, from `Pixels.inputs`: (image tokens, hidden)."""
    named = {name.removeprefix("image_"): value for name, value in images.items()}
    return model.model.visual(named.pop("pixel_values"), **named).pooler_output


def train_language(
    model: Qwen2_5_VLForConditionalGeneration,
    batches: Batches,
    pixels: Pixels,
    *,
    steps: int,
    workers: int,
    lr: float,
    name: str,
) -> None:
    """SFT of the whole model on freshly drawn examples, loss on the replies.

    Args:
        workers: processes that draw the examples; 0 draws them between the steps.
    """
    device = pixels.pictures.device
    loader = iter(DataLoader(batches, batch_size=None, num_workers=workers))

    def loss_of() -> torch.Tensor:
        inputs = next(loader)
        scenes = inputs.pop("scenes")
        texts = {name: value.to(device) for name, value in inputs.items()}
        return model(**texts, **pixels.inputs(scenes), use_cache=False).loss

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
