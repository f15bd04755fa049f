"""A start goes on with the run of its folder, or leaves it byte for byte as it is and says what to do."""

from __future__ import annotations

import copy
import json
import logging
import subprocess
import sys
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from recipe.sophiavl import start
from recipe.sophiavl.run_folder import RunFolder
from recipe.sophiavl.start import METRICS_VARIABLE, Start, plan
from recipe.sophiavl.validation import SettingsError

CONFIG = Path(__file__).parents[2] / "recipe/sophiavl/config"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with data; metrics go where the run decides, and pytest keeps its output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(METRICS_VARIABLE, raising=False)
    monkeypatch.setattr(start, "keep_log", lambda file: file.touch() or file.exists)
    for split in ("train", "val"):
        pq.write_table(pa.table({"answer": [split]}), f"{split}.parquet")
    return tmp_path / "outputs/run"


@cache
def preset(name: str) -> DictConfig:
    given = ("run_dir=outputs/run", "data.train_files=train.parquet", "data.val_files=val.parquet")
    with initialize_config_dir(str(CONFIG), version_base=None):
        return compose("sophiavl_trainer", [*given, f"thinking_reward={name}"])


def composed(*overrides: str) -> DictConfig:
    """As Hydra would, which takes seconds each time."""
    groups = [value for value in overrides if value.startswith("thinking_reward=")]
    config = copy.deepcopy(preset(groups[0].split("=")[1] if groups else "default"))
    for key, value in (override.split("=", 1) for override in overrides if override not in groups):
        OmegaConf.update(config, key, yaml.safe_load(value))
    return config


def begun(*overrides: str, steps: int | None = 40, finished: bool = False) -> Start:
    """A start, and what verl would leave after it: a checkpoint of step ``steps``, if any."""
    config = composed("trainer.total_training_steps=40", *overrides)
    started = plan(config)
    variables = started.open(config)
    Path(variables[METRICS_VARIABLE]).write_text('{"step": 1, "data": {}}\n')
    run = started.folder.path
    (run / "rollouts").mkdir(exist_ok=True)
    (run / "rollouts/1.jsonl").write_text("{}\n")
    if steps is not None:
        (run / f"checkpoints/global_step_{steps}").mkdir(parents=True, exist_ok=True)
        (run / "checkpoints/latest_checkpointed_iteration.txt").write_text(str(steps))
    if finished:
        started.finish(config)
    started.folder._lock.release(force=True)  # its process has ended
    return started


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_nothing_is_made_before_the_folder_is_opened(folder: Path) -> None:
    planned = plan(composed())
    assert not planned.goes_on
    assert not planned.notes
    assert not folder.parent.exists()


def test_an_opened_folder_has_configuration_record_and_metrics_of_its_own(folder: Path) -> None:
    config = composed("thinking_reward.alpha=0.5")
    variables = plan(config).open(config)
    assert variables[METRICS_VARIABLE] == str(folder / "metrics-001.jsonl")
    kept = OmegaConf.load(folder / "config.yaml")
    assert kept.thinking_reward.alpha == 0.5
    assert kept.trainer.rollout_data_dir == "outputs/run/rollouts", "resolved"
    record = json.loads((folder / "run.json").read_text())
    assert record["experiment"]["thinking_reward.alpha"] == 0.5
    (only,) = record["starts"]
    assert only["verl"] == "0.9.1"
    assert only["metrics"] == variables[METRICS_VARIABLE]
    assert only["at"]


@pytest.mark.parametrize("given", ["console", "[console,wandb]", "[file]"])
def test_metrics_are_written_whatever_else_logs(folder: Path, given: str) -> None:
    config = composed(f"trainer.logger={given}")
    plan(config).open(config)
    assert list(config.trainer.logger).count("file") == 1
    assert set(given.strip("[]").split(",")) <= set(config.trainer.logger)


def test_the_same_experiment_goes_on_with_new_metrics(folder: Path) -> None:
    begun(steps=20)
    again = begun("trainer.save_freq=5", steps=20)
    assert again.goes_on
    assert any("goes on from the checkpoint of step 20" in note for note in again.notes)
    assert [file.name for file in sorted(folder.glob("metrics*"))] == ["metrics-001.jsonl", "metrics-002.jsonl"]
    assert len(json.loads((folder / "run.json").read_text())["starts"]) == 2


def test_another_experiment_is_refused_and_the_first_stays_byte_for_byte(folder: Path) -> None:
    begun("thinking_reward.alpha=0.5")
    before = content(folder)
    with pytest.raises(SettingsError) as error:
        plan(composed("thinking_reward=no_trust", "data.seed=3"))
    said = str(error.value)
    rows = [line.split() for line in said.splitlines()]
    assert ["thinking_reward.alpha", "0.5", "0.3"] in rows
    assert ["thinking_reward.trust", "true", "false"] in rows
    assert ["data.seed", "null", "3"] in rows
    assert "run_dir=outputs/run-2" in said
    assert f"rm -r {folder}" in said
    assert "trainer.resume_mode=resume_path trainer.resume_from_path=outputs/run/checkpoints/global_step_40" in said
    assert content(folder) == before


def test_the_ways_out_work(folder: Path) -> None:
    begun("thinking_reward.alpha=0.5")
    checkpoint = "outputs/run/checkpoints/global_step_40"
    from_there = ("trainer.resume_mode=resume_path", f"trainer.resume_from_path={checkpoint}")
    for ways in ((), from_there):
        assert not plan(composed("run_dir=outputs/run-2", *ways)).goes_on
    subprocess.run(RunFolder(folder).removal(), shell=True, check=True)
    assert not plan(composed()).goes_on


def test_a_finished_run_is_told_and_nothing_is_started(folder: Path) -> None:
    begun(finished=True)
    before = content(folder)
    for steps in (40, 30):
        again = plan(composed(f"trainer.total_training_steps={steps}"))
        assert again.finished
        assert f"This run is finished: step 40 of {steps}" in again.notes[-1]
    assert content(folder) == before
    with pytest.raises(SettingsError, match="a run of another experiment"):
        plan(composed("trainer.total_training_steps=40", "thinking_reward=outcome_only"))


def test_a_run_that_is_further_than_it_was_told_to_go_is_finished(folder: Path) -> None:
    begun(steps=30)
    assert not plan(composed("trainer.total_training_steps=40")).finished
    assert not plan(composed("trainer.total_training_steps=30")).finished, "its last validation may be missing"
    short = plan(composed("trainer.total_training_steps=20"))
    assert short.finished
    assert "step 30 of 20" in short.notes[-1]


def test_a_finished_run_may_go_further_and_what_that_changes_is_told(folder: Path) -> None:
    begun(finished=True)
    longer = plan(composed("trainer.total_training_steps=80"))
    assert longer.goes_on
    assert not longer.finished
    assert any("T=80 instead of T=40" in note for note in longer.notes)
    held = plan(composed("trainer.total_training_steps=80", "thinking_reward.total_steps=40"))
    assert held.goes_on
    assert not any("T=80" in note for note in held.notes)


def test_a_finished_run_without_a_checkpoint_is_not_begun_again_over_itself(folder: Path) -> None:
    begun(steps=None, finished=True)
    with pytest.raises(SettingsError, match="finished at step 40, without a checkpoint to go on from"):
        plan(composed("trainer.total_training_steps=80"))


def test_an_unfinished_run_without_a_checkpoint_begins_again(folder: Path) -> None:
    begun(steps=None)
    again = plan(composed("trainer.total_training_steps=40"))
    assert again.goes_on
    assert "it goes on at step 1: it has no checkpoint yet" in again.notes[-1]


@pytest.mark.parametrize(
    "override", ["trainer.resume_mode=disable", "trainer.resume_mode=resume_path", "trainer.val_only=true"]
)
def test_starting_over_into_a_run_is_refused(folder: Path, override: str) -> None:
    begun(finished=True)
    before = content(folder)
    with pytest.raises(SettingsError, match=rf"holds this run already, and {override} would write over"):
        plan(composed("trainer.total_training_steps=40", override))
    assert content(folder) == before


def test_a_file_is_no_folder_for_a_run(folder: Path) -> None:
    Path("mine.csv").write_text("a,b\n")
    with pytest.raises(SettingsError, match=r"^run_dir=mine\.csv: this is a file"):
        plan(composed("run_dir=mine.csv"))


def test_a_run_that_nobody_recorded_is_left_alone(folder: Path) -> None:
    (folder / "checkpoints/global_step_3").mkdir(parents=True)
    with pytest.raises(SettingsError, match=r"holds a run without its config\.yaml"):
        plan(composed())


def test_checkpoints_of_another_run_are_not_gone_on_from(folder: Path) -> None:
    begun("thinking_reward.alpha=0.5")
    elsewhere = ("run_dir=outputs/other", "trainer.default_local_dir=outputs/run/checkpoints")
    with pytest.raises(
        SettingsError, match=r"trainer\.default_local_dir=outputs/run/checkpoints: it holds checkpoints"
    ):
        plan(composed(*elsewhere))


def test_a_start_that_came_to_nothing_stops_no_other_experiment(folder: Path) -> None:
    config = composed("thinking_reward.alpha=0.5")
    first = plan(config)
    first.open(config)
    first.folder._lock.release(force=True)
    assert not plan(composed()).goes_on


def test_a_metrics_file_of_the_users_choice_is_not_written_over(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(METRICS_VARIABLE, "mine.jsonl")
    config = composed()
    assert plan(config).open(config)[METRICS_VARIABLE] == str(tmp_path / "mine.jsonl")
    (tmp_path / "mine.jsonl").touch()
    with pytest.raises(SettingsError, match=r"VERL_FILE_LOGGER_PATH=mine\.jsonl: this file is there"):
        plan(composed("run_dir=outputs/other"))


def test_what_was_refused_after_all_leaves_no_folder(folder: Path) -> None:
    config = composed()
    refused = plan(config)
    refused.open(config)
    refused.take_back()
    assert not folder.exists()


def test_a_folder_that_was_there_is_not_taken_back(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "my notes").write_text("dear")
    config = composed()
    refused = plan(config)
    refused.open(config)
    refused.take_back()
    assert (folder / "my notes").read_text() == "dear"


def test_other_code_is_told_and_its_new_settings_are_no_reason_to_refuse(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(steps=20)
    record = json.loads((folder / "run.json").read_text())
    del record["experiment"]["thinking_reward.tolerance"]
    (folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(SettingsError, match="a run of another experiment"):
        plan(composed("trainer.total_training_steps=40"))
    record["starts"][-1]["verl"] = "0.9.0"
    (folder / "run.json").write_text(json.dumps(record))
    again = plan(composed("trainer.total_training_steps=40"))
    assert again.goes_on
    assert any("verl 0.9.0 to 0.9.1" in note for note in again.notes)
    assert any("Only one of the two knows these settings: thinking_reward.tolerance" in note for note in again.notes)
    with pytest.raises(SettingsError, match="a run of another experiment"):
        plan(composed("trainer.total_training_steps=40", "thinking_reward.alpha=1.0"))


PRINTING = """
import logging, sys
from pathlib import Path
logging.basicConfig(stream=sys.stdout, format="%(message)s")
from recipe.sophiavl.run_folder import RunFolder
from recipe.sophiavl.start import keep_log
keep_log(Path(sys.argv[1]))
print("to the user")
logging.warning("from a logger")
raise SystemExit("error: why it stopped")
"""


@pytest.mark.parametrize("redirected", [False, True], ids=["on the screen", "into the log itself"])
def test_all_that_is_printed_is_in_the_log_once(tmp_path: Path, redirected: bool) -> None:
    log = tmp_path / "train.log"
    log.write_text("an earlier start\n")
    with log.open("a") as own:
        done = subprocess.run(
            [sys.executable, "-c", PRINTING, str(log)],
            cwd=CONFIG.parents[2],
            stdout=own if redirected else subprocess.PIPE,
            stderr=own if redirected else subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert sorted(log.read_text().splitlines()) == sorted(
        ["an earlier start", "to the user", "from a logger", "error: why it stopped"]
    )
    if not redirected:
        assert done.stdout == "to the user\nfrom a logger\n"
        assert done.stderr == "error: why it stopped\n"


def test_the_log_keeps_what_a_terminal_can_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> int:
            return len(text)

        def flush(self) -> None:
            pass

    monkeypatch.undo()  # the real keep_log
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(sys, "stderr", Terminal())
    handler = logging.StreamHandler(sys.stdout)
    monkeypatch.setattr(logging.root, "handlers", [handler])
    terminal = sys.stdout
    undo = start.keep_log(tmp_path / "train.log")
    assert sys.stdout.isatty()
    assert sys.stdout.encoding == "utf-8"
    assert handler.stream is sys.stdout
    assert sys.stdout is not terminal
    undo()
    assert sys.stdout is handler.stream is terminal, "the next run of this process has a log of its own"


@pytest.mark.parametrize("there", ["file", "folder"])
def test_a_folder_that_takes_no_file_is_told_before_anything_starts(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str
) -> None:
    if there == "file":
        (tmp_path / "outputs").write_text("mine")
    else:
        folder.mkdir(parents=True)

        def refuse(**_: object) -> None:
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr(start.tempfile, "TemporaryFile", refuse)
    before = content(tmp_path)
    with pytest.raises(SettingsError, match=r"run_dir=outputs/run: nothing can be written in /.*outputs"):
        plan(composed())
    assert content(tmp_path) == before
