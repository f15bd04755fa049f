"""The run's own data set: the policy and the TRM see the same pixels, and validation is marked beside the table."""

from __future__ import annotations

import asyncio
import base64
import copy
import io
import pickle
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import ExifTags, Image
from verl.utils.dataset.rl_dataset import RLHFDataset, get_dataset_class
from vllm.multimodal.media.image import ImageMediaIO

from recipe.sophiavl.reward_manager import VALIDATION_FIELD, prompt_images
from recipe.sophiavl.rl_dataset import SophiaVLDataset, filter_workers, open_image
from recipe.sophiavl.trainer import trust_grpo_trainer
from recipe.sophiavl.trm.images import BadImageError, data_url, digest_image, load_image
from recipe.sophiavl.validation import SettingsError

CONFIG = Path(__file__).parents[2] / "recipe/sophiavl/config"
PATCH = 14
# A multiple of the policy's patches, so that its loader does not scale it.
SIZE = (4 * PATCH, 8 * PATCH)
LEFT_RED = Image.new("RGB", SIZE, "blue")
LEFT_RED.paste("red", (0, 0, SIZE[0] // 4, SIZE[1]))


def encoded(kind: str, orientation: int | None = None, mode: str = "RGB", **options: Any) -> bytes:
    out, exif = io.BytesIO(), Image.Exif()
    if orientation:
        exif[ExifTags.Base.Orientation] = orientation
    LEFT_RED.convert(mode).save(out, kind, exif=exif, **options)
    return out.getvalue()


def dataset(folder: Path, images: Sequence[Any], **config: Any) -> SophiaVLDataset:
    """One row for each image; an image is bytes, a path, or a mapping."""
    rows = [
        {
            "data_source": "s",
            "prompt": [{"role": "user", "content": "<image>Which?"}],
            "images": [image],
            "extra_info": {"index": index},
        }
        for index, image in enumerate(images)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    made = OmegaConf.create({"filter_overlong_prompts": False, "cache_dir": str(folder / "cache")} | config)
    return SophiaVLDataset(str(folder / "rows.parquet"), tokenizer=None, config=made, processor=object())


def seen_by_policy(row: dict[str, Any]) -> Image.Image:
    """As verl's agent loop gives the image to the policy's processor."""
    images, _, _ = asyncio.run(
        SophiaVLDataset.process_multi_modal_info(row["raw_prompt"], image_patch_size=PATCH, config=None)
    )
    return images[0]


def seen_by_trm(row: dict[str, Any]) -> Image.Image:
    """As the TRM's server decodes what our client sends."""
    (image,) = prompt_images(row["raw_prompt"])
    url = data_url(digest_image(load_image(image)))
    return ImageMediaIO().load_bytes(base64.b64decode(url.split(",")[1])).media


@pytest.mark.parametrize("as_path", [False, True])
@pytest.mark.parametrize(
    "data",
    [
        *(encoded("JPEG", orientation) for orientation in range(1, 9)),
        encoded("PNG", 6),
        encoded("WEBP", 8),
        encoded("PNG", mode="P", transparency=0),
        encoded("PNG", mode="LA"),
        encoded("BMP"),
    ],
)
def test_policy_and_trm_see_the_same_pixels(tmp_path: Path, data: bytes, as_path: bool) -> None:
    (tmp_path / "image").write_bytes(data)
    path = str(tmp_path / "image")
    kinds = [path, f"file://{path}"] if as_path else [{"bytes": data, "path": None}, {"bytes": None, "path": path}]
    for kind in kinds:
        (row,) = dataset(tmp_path, [kind])
        policy, trm = seen_by_policy(row), seen_by_trm(row)
        assert policy.size == trm.size
        assert policy.tobytes() == trm.tobytes()


def grain(side: int) -> Image.Image:
    return Image.frombytes("RGB", (side, side), np.random.default_rng(0).bytes(3 * side * side))


def test_a_row_is_handed_on_with_its_encoded_image_and_without_pixels(tmp_path: Path) -> None:
    out = io.BytesIO()
    grain(40 * PATCH).save(out, "JPEG")
    (row,) = dataset(tmp_path, [{"bytes": out.getvalue(), "path": None}])
    seen_by_policy(row)  # it is decoded now
    handed_on = pickle.dumps(row)
    assert len(handed_on) < 1.1 * len(out.getvalue())
    for again in (pickle.loads(handed_on), copy.deepcopy(row)):
        assert prompt_images(again["raw_prompt"]) == prompt_images(row["raw_prompt"])
        assert seen_by_policy(again).tobytes() == seen_by_policy(row).tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_image_may_be_read_by_several_threads_at_once(kind: str) -> None:
    """As the agent loop does for the responses of a question."""
    out = io.BytesIO()
    grain(600).save(out, kind)
    expected = Image.open(io.BytesIO(out.getvalue())).tobytes()
    with ThreadPoolExecutor(8) as threads:
        for _ in range(5):
            image = open_image(out.getvalue())
            assert set(threads.map(lambda _: image.convert("RGB").tobytes() == expected, range(8))) == {True}  # noqa: B023


@pytest.mark.parametrize(("orientation", "red"), [(1, (3, 60)), (6, (50, 3)), (3, (50, 60))])
def test_what_is_seen_is_upright(tmp_path: Path, orientation: int, red: tuple[int, int]) -> None:
    (row,) = dataset(tmp_path, [{"bytes": encoded("PNG", orientation), "path": None}])
    assert seen_by_policy(row).getpixel(red) == (255, 0, 0)


def test_bytes_that_all_show_alike_reach_the_trm_untouched_with_the_settings_beside_them(tmp_path: Path) -> None:
    data = encoded("JPEG")
    (row,) = dataset(tmp_path, [{"bytes": data, "path": "a.jpg", "max_pixels": 3136}])
    assert prompt_images(row["raw_prompt"]) == [data]
    assert seen_by_policy(row).size == (2 * PATCH, 4 * PATCH)


def test_an_image_that_cannot_be_read_is_named_by_its_row(tmp_path: Path) -> None:
    rows = dataset(tmp_path, [{"bytes": encoded("PNG"), "path": None}, {"bytes": b"no image", "path": None}])
    assert rows[0]["raw_prompt"]
    with pytest.raises(BadImageError, match=r"data_source='s', extra_info\.index=1: field 'images': .*no image of a"):
        rows[1]
    with pytest.raises(BadImageError, match=r"none\.png cannot be read"):
        dataset(tmp_path, ["none.png"])[0]


def test_text_only_rows_stay_text(tmp_path: Path) -> None:
    table = pa.table({"prompt": [[{"role": "user", "content": "1 + 1?"}]], "images": [[]]})
    pq.write_table(table, tmp_path / "rows.parquet")
    config = OmegaConf.create({"filter_overlong_prompts": False, "cache_dir": str(tmp_path)})
    (row,) = SophiaVLDataset(str(tmp_path / "rows.parquet"), None, config)
    assert row["raw_prompt"] == [{"role": "user", "content": "1 + 1?"}]


def test_validation_is_marked_and_the_table_is_not_touched(tmp_path: Path) -> None:
    """A column added to a table whose rows were chosen (verl's length filter) writes every image anew."""

    class Base:
        def _init_dataloader(self) -> None:
            self.train_dataset, self.val_dataset = (
                dataset(tmp_path, [{"bytes": encoded("PNG"), "path": None}] * 4) for _ in range(2)
            )
            for made in (self.train_dataset, self.val_dataset):
                made.dataframe = made.dataframe.select([0, 2])
                tables.append((made, made.dataframe, made.dataframe.data))
            self.val_dataloader = ()

    tables: list[tuple[SophiaVLDataset, Any, Any]] = []
    trainer = object.__new__(trust_grpo_trainer(Base))
    trainer._init_dataloader()
    for made, frame, data in tables:
        assert made.dataframe is frame
        assert made.dataframe.data is data
    assert [row[VALIDATION_FIELD] for row in trainer.train_dataset] == [False, False]
    assert [row[VALIDATION_FIELD] for row in trainer.val_dataset] == [True, True]


def test_a_data_set_that_marks_no_validation_is_refused() -> None:
    class Base:
        def _init_dataloader(self) -> None:
            self.train_dataset = self.val_dataset = object.__new__(RLHFDataset)

    with pytest.raises(SettingsError, match=r"data\.custom_cls"):
        object.__new__(trust_grpo_trainer(Base))._init_dataloader()


def test_the_configuration_names_the_class_and_verl_loads_it() -> None:
    with initialize_config_dir(str(CONFIG), version_base=None):
        data = compose("sophiavl_trainer").data
    assert get_dataset_class(data) is SophiaVLDataset
    assert data.filter_overlong_prompts_workers is None


@pytest.mark.parametrize(("cpus", "workers"), [(1, None), (2, None), (4, 2), (30, 15), (192, 16)])
def test_workers_of_the_length_filter(cpus: int, workers: int | None) -> None:
    assert filter_workers(cpus) == workers


@pytest.mark.parametrize(("given", "used"), [(None, 2), (1, 1), (3, 3)])
def test_the_length_filter_gets_its_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given, used) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: range(4))
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    seen = []

    def note(self: Any, function: Any, num_proc: int | None, desc: str) -> Any:
        seen.append(num_proc)
        return self

    monkeypatch.setattr("datasets.Dataset.filter", note)
    settings = SimpleNamespace(filter_overlong_prompts=True, filter_overlong_prompts_workers=given)
    dataset(tmp_path, ["a.png"], **vars(settings))
    assert seen == [used]
