"""verl's RL data set with the images that the policy and the thinking reward model both see, and validation marked."""

from __future__ import annotations

import os
from collections.abc import Mapping
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
        return super()._build_messages(example, key)


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
