"""All loggers get the same metrics, some a sample of groups too, and none ends a run. With verl's ``Tracking``."""

from __future__ import annotations

import json
import logging
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from recipe.sophiavl import loggers
from recipe.sophiavl.group_samples import GroupSample, group_sample
from recipe.sophiavl.loggers import RunTracking
from recipe.sophiavl.report import load_metrics

METRICS = {
    1: {"outcome_reward/mean": 0.5, "trust/gamma_mean": np.float32(0.25), "val-core/s/reward/mean@1": 1, "a": 2.0},
    2: {"outcome_reward/mean": 0.75, "actor/kl_loss": -1e-9},
}
HOSTILE = "<think>\x1b[2J<script>‮</script></think>"
ROW = {"outcome_reward": 1.0, "thinking_reward": None, "format_ok": True, "thinking_error": "timeout", "gamma": 0.5}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TENSORBOARD_DIR", str(tmp_path / "tensorboard"))
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(tmp_path / "metrics-001.jsonl"))
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    return tmp_path


def samples() -> list[GroupSample]:
    image = Image.new("RGB", (40, 30), "red")
    return [
        group_sample("How many?", "2", [image], [(HOSTILE, ROW), ("other", ROW | {"thinking_reward": 0.5})]),
        group_sample("Without an image?", "no", [], [("third", ROW)]),
    ]


def log_all(*names: str) -> RunTracking:
    tracking = RunTracking("project", "experiment", list(names), {"trainer": {}})
    for step, metrics in METRICS.items():
        tracking.log_groups(samples(), step)
        tracking.log(metrics, step)
    return tracking


def test_tensorboard_holds_the_metrics_of_the_file_and_the_groups(folder: Path) -> None:
    log_all("file", "tensorboard")  # and no end: a run may be killed
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"tensors": 0, "scalars": 0, "images": 0})
    events.Reload()
    held: dict[int, dict[str, float]] = {}
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            held.setdefault(event.step, {})[name] = event.value
    logged = load_metrics([folder / "metrics-001.jsonl"])
    assert held == {step: pytest.approx(data) for step, data in logged.items()}
    (first, _) = events.Tensors("groups/1/text_summary")
    text = first.tensor_proto.string_val[0].decode()
    for part in ("gamma 0.500", "    How many?", "response 1: outcome 1.000, thinking –", "␛[2J<script>⟨U+202E⟩"):
        assert part in text
    assert [(image.step, image.width, image.height) for image in events.Images("groups/1/images")] == [
        (1, 40, 30),
        (2, 40, 30),
    ]
    assert "groups/2/images" not in events.Tags()["images"]


def wandb_records(file: Path) -> Iterator[wandb_internal_pb2.Record]:
    """What a run without a network has written: LevelDB's log format after a header of seven bytes, in parts of CRC,
    length, kind (whole, first, middle, last) and content, none of which crosses the end of a block."""
    data, at, content = file.read_bytes(), 7, b""
    while at + 7 < len(data):
        if (rest := -at % 32768) and rest < 7:
            at += rest
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        content += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield wandb_internal_pb2.Record.FromString(content)
            content = b""


def wandb_history(folder: Path) -> dict[int, dict[str, Any]]:
    """What was logged, by step."""
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    rows = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in wandb_records(file)
        if record.WhichOneof("record_type") == "history"
    ]
    return {row["_step"]: row for row in rows}


def test_wandb_offline_holds_the_metrics_of_the_file_and_the_groups(folder: Path) -> None:
    log_all("file", "wandb").finish()
    wandb.teardown()  # ends the process that writes the file
    history = wandb_history(folder)
    logged = load_metrics([folder / "metrics-001.jsonl"])
    for step, data in logged.items():
        own = {name: value for name, value in history[step].items() if not name.startswith(("_", "groups"))}
        assert own == pytest.approx(data)
    (table, *_) = sorted(folder.glob("wandb/offline-run-*/files/media/table/groups_0_*.table.json"))
    held = json.loads(table.read_text())
    rows = [dict(zip(held["columns"], row, strict=True)) for row in held["data"]]
    assert [(row["group"], row["question"], row["thinking_reward"]) for row in rows] == [
        (1, "How many?", None),
        (1, "How many?", 0.5),
        (2, "Without an image?", None),
    ]
    assert "␛[2J<script>⟨U+202E⟩" in rows[0]["response"]
    images = sorted(folder.glob("wandb/offline-run-*/files/media/images/groups/*/images_*.png"))
    assert {(file.parent.name, Image.open(file).size) for file in images} == {("1", (40, 30))}


@pytest.mark.parametrize("name", ["console", "file", "tensorboard"])
def test_only_a_logger_with_a_place_for_groups_gets_them(folder: Path, name: str) -> None:
    assert RunTracking("p", "e", name).takes_groups == (name == "tensorboard")


class Broken:
    """A logger of verl that fails at some of its steps."""

    def __init__(self, *steps: int) -> None:
        self.fails_at = steps
        self.asked: list[int] = []

    def log(self, data: dict[str, float], step: int) -> None:
        self.asked.append(step)
        if step in self.fails_at:
            raise ConnectionError(f"no route to host at {step}")

    def finish(self) -> None:
        raise OSError("gone")


def with_broken(monkeypatch: pytest.MonkeyPatch, *steps: int) -> tuple[RunTracking, Broken]:
    """Tracking whose tensorboard is this."""
    broken = Broken(*steps)
    monkeypatch.setattr("verl.utils.tracking._TensorboardAdapter", lambda *names: broken)
    monkeypatch.setattr(loggers, "_log", lambda part, data, step: part.log(data, step))
    return RunTracking("p", "e", ["tensorboard", "file"]), broken


def test_a_logger_that_fails_is_told_once_and_takes_nothing_with_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tracking, broken = with_broken(monkeypatch, 2, 3)
    for step in range(1, 6):
        tracking.log({"a": step}, step)
    tracking.finish(exit_code=1)
    assert broken.asked == [1, 2, 3, 4, 5]
    assert sorted(load_metrics([folder / "metrics-001.jsonl"])) == [1, 2, 3, 4, 5]
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert told[0].startswith("trainer.logger: tensorboard failed at step 2 (ConnectionError: no route to host at 2).")
    assert told[1].startswith("trainer.logger: tensorboard failed at the end (OSError: gone).")
    assert len(told) == 2


def test_a_logger_that_keeps_failing_is_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking, broken = with_broken(monkeypatch, *range(2, 100))
    for step in range(1, 100):
        tracking.log({"a": step}, step)
    assert broken.asked == [1, 2, 3, 4]
    assert max(load_metrics([folder / "metrics-001.jsonl"])) == 99


def test_a_logger_that_does_not_start_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "tensorboard").write_text("a file where the folder should be")
    tracking = log_all("tensorboard", "file")
    assert "tensorboard failed at the start (FileExistsError" in caplog.text
    assert not tracking.takes_groups
    assert sorted(load_metrics([folder / "metrics-001.jsonl"])) == [1, 2]


def test_a_sample_that_can_not_be_shown_costs_no_metrics(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracking = RunTracking("p", "e", ["tensorboard"])
    tracking.log_groups([None], 1)
    tracking.log({"a": math.nan}, 1)
    assert "tensorboard failed with the groups of step 1 (AttributeError" in caplog.text
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert events.Tags()["scalars"] == ["a"]


def test_the_run_s_own_files_are_not_optional(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(folder))
    with pytest.raises(IsADirectoryError):
        RunTracking("p", "e", ["file"])
