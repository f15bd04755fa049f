"""verl's RL data set with the images that the policy and the thinking reward model both see, and validation marked."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Mapping
from functools import cache
from itertools import chain
from typing import Any

from omegaconf import DictConfig, OmegaConf
from PIL import Image
from verl.utils.dataset.rl_dataset import RLHFDataset

from data_preprocess.core.errors import RowError
from data_preprocess.core.images import upright
from recipe.sophiavl.reward_manager import VALIDATION_FIELD
from recipe.sophiavl.trm.images import BadImageError, ImageInput, load_image

_WORKERS_KEY = "filter_overlong_prompts_workers"
_MOST_WORKERS = 16


class SophiaVLDataset(RLHFDataset):
    """Rows of RL parquet files (``data.custom_cls``).

    verl's own class hands a path on as a path, and an image to be turned by its EXIF as it is stored, which the policy
    and the TRM's server then show differently. Here every image is read and turned upright once, when its row is read;
    the row's messages hold its pixels for the policy and the same encoded bytes for the TRM.

    Attributes:
        validation: what the field ``is_validation`` of every row says; set by the trainer. The table stays as it is.
    """

    validation = False

    def __init__(self, data_files: Any, tokenizer: Any, config: DictConfig, **kwargs: Any) -> None:
        if config.get(_WORKERS_KEY) is None:
            config = OmegaConf.merge(config, {_WORKERS_KEY: filter_workers(len(os.sched_getaffinity(0)))})
        super().__init__(data_files, tokenizer, config, **kwargs)

    def __getitem__(self, item: int) -> dict[str, Any]:
        return super().__getitem__(item) | {VALIDATION_FIELD: self.validation}

    def _build_messages(self, example: dict[str, Any], key: str) -> list[dict[str, Any]]:
        """verl calls it for the length filter and for the rollout.

        Raises:
            BadImageError: an image cannot be read; the message names its row.
        """
        images = example.get(self.image_key) or []
        try:
            example = {**example, self.image_key: [embedded(image) for image in images]}
        except (BadImageError, RowError, TypeError) as error:
            info = example.get("extra_info") or {}
            row = f"data_source={example.get('data_source')!r}, extra_info.index={info.get('index')}"
            raise BadImageError(f"row with {row}: field {self.image_key!r}: {error}") from error
        messages = super()._build_messages(example, key)
        contents = [message["content"] for message in messages if not isinstance(message["content"], str)]
        for part in chain.from_iterable(contents):
            if part["type"] == "image" and "bytes" in part:
                part["image"] = open_image(part["bytes"])
        return messages


class _Encoded:
    """Mixin of a lazily decoded Pillow image: it pickles as the bytes of its file, and one thread at a time decodes it.

    verl hands every response on with its row, to a reward worker and to the TransferQueue, and its agent loop reads the
    image of a question in several threads at once. Pillow itself pickles the pixels, ten times as large.
    """

    def load(self) -> Any:
        with self.decoding:
            return super().load()

    def __reduce__(self) -> tuple[Any, ...]:
        return open_image, (self.encoded,)


@cache
def _encoded_kind(kind: type[Image.Image]) -> type[Image.Image]:
    return type(kind.__name__, (_Encoded, kind), {})


def open_image(encoded: bytes) -> Image.Image:
    """The image of a file's bytes, not decoded yet. What is changed in it in place stays behind when it is pickled."""
    image = Image.open(io.BytesIO(encoded))
    image.__class__ = _encoded_kind(type(image))
    image.encoded, image.decoding = encoded, threading.RLock()
    return image


def embedded(image: ImageInput) -> dict[str, Any] | Image.Image:
    """The image as a part of a message: its encoded bytes, upright, with what else its mapping holds.

    A PIL image, as Hugging Face's image columns give it, is decoded and upright already, and stays.

    Raises:
        BadImageError: no bytes, an unreadable file or a broken data URL.
        RowError: bytes that are no image.
        TypeError: not one of the kinds of `ImageInput`.
    """
    loaded = load_image(image)
    if isinstance(loaded, Image.Image):
        return loaded
    rest = {name: value for name, value in image.items() if name != "path"} if isinstance(image, Mapping) else {}
    return rest | {"bytes": upright(loaded)}


def filter_workers(cpus: int) -> int | None:
    """Processes of verl's length filter: half of the CPUs, 16 at most; None (this process itself) for one.

    Each takes 1,000 rows at a time, with the encoded images: 0.2 GiB at 200 kB an image.
    """
    workers = min(_MOST_WORKERS, cpus // 2)
    return workers if workers > 1 else None
