"""What is told from a run's folder, and the names that the settings and the folder share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from recipe.sophiavl import run_folder
from recipe.sophiavl.run_folder import RunFolder
from recipe.sophiavl.validation import SettingsError

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    (tmp_path / "run").mkdir()
    return RunFolder(tmp_path / "run")


def test_the_settings_put_everything_where_the_folder_is_read() -> None:
    with initialize_config_dir(str(REPOSITORY / "recipe/sophiavl/config"), version_base=None):
        config = compose("sophiavl_trainer", ["trainer.experiment_name=mine"])
        explicit = compose("sophiavl_trainer", ["run_dir=here", "trainer.rollout_data_dir=there"])
    assert config.run_dir == "outputs/mine"
    assert config.trainer.default_local_dir == f"outputs/mine/{run_folder.CHECKPOINTS}"
    assert config.trainer.rollout_data_dir == f"outputs/mine/{run_folder.ROLLOUTS}"
    assert config.trainer.validation_data_dir == f"outputs/mine/{run_folder.VALIDATION}"
    assert "file" in config.trainer.logger
    assert (explicit.trainer.validation_data_dir, explicit.trainer.rollout_data_dir) == ("here/validation", "there")


@pytest.mark.parametrize(
    "left", ["rollouts/1.jsonl", "validation/0.jsonl", "checkpoints/global_step_1/x", "metrics-7.jsonl"]
)
def test_whatever_a_run_left_is_a_run(folder: RunFolder, left: str) -> None:
    assert not folder.holds_run()
    file = folder.path / left
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("{}")
    assert folder.holds_run()


def test_a_start_that_came_to_nothing_left_no_run(folder: RunFolder) -> None:
    assert not RunFolder(folder.path / "none").holds_run()
    folder.write_config("a: 1\n")
    folder.write_record({})
    (folder.path / "train.log").write_text("out of memory")
    (folder.path / "metrics-001.jsonl").touch()
    (folder.path / "rollouts").mkdir()
    assert not folder.holds_run()


def test_each_start_has_metrics_of_its_own_which_sort_by_start(folder: RunFolder) -> None:
    for _ in range(11):
        file = folder.new_metrics_file()
        assert not file.exists()
        file.touch()
    names = [file.name for file in sorted(folder.path.glob(run_folder.METRICS_PATTERN))]
    assert names == [f"metrics-{number:03}.jsonl" for number in range(1, 12)]


def test_the_removal_takes_the_run_and_nothing_else(folder: RunFolder) -> None:
    (folder.path / "rollouts").mkdir()
    (folder.path / "rollouts/1.jsonl").write_text("{}")
    (folder.path / "metrics-001.jsonl").write_text("{}")
    assert folder.removal() == f"rm -r {folder.path}"
    (folder.path / "my notes.txt").write_text("dear")
    subprocess.run(folder.removal(), shell=True, check=True)
    assert [file.name for file in folder.path.iterdir()] == ["my notes.txt"]


def test_checkpoints_elsewhere_belong_to_the_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", tmp_path / "big disk/checkpoints")
    for made in (folder.path / "rollouts", folder.checkpoints):
        made.mkdir(parents=True)
    subprocess.run(folder.removal(), shell=True, check=True)
    assert [file.name for file in tmp_path.iterdir()] == ["big disk"]
    assert not folder.checkpoints.exists()


def test_a_damaged_record_is_named(folder: RunFolder) -> None:
    assert folder.record() is None
    for text in ("{", '{"starts": [], "experiment": {}}'):
        (folder.path / "run.json").write_text(text)
        with pytest.raises(SettingsError, match=r"run/run\.json: not the record of a run"):
            folder.record()


def test_the_step_of_the_newest_checkpoint(folder: RunFolder) -> None:
    assert folder.latest_step() is None
    (folder.path / "checkpoints").mkdir()
    latest = folder.path / "checkpoints/latest_checkpointed_iteration.txt"
    for text, step in (("12", 12), ("", None)):  # written in part
        latest.write_text(text)
        assert folder.latest_step() == step


def test_two_processes_do_not_work_in_one_folder(folder: RunFolder) -> None:
    hold = (
        "import sys; from pathlib import Path; from recipe.sophiavl.run_folder import RunFolder;"
        "folder = RunFolder(Path(sys.argv[1])); folder.lock(); print('mine', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", hold, str(folder.path)], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert other.stdout.readline() == b"mine\n"
        with pytest.raises(SettingsError, match="another start is at work there"):
            folder.lock()
    finally:
        other.kill()  # as a crash would
        other.communicate()
    folder.lock()
