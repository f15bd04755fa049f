"""Which checkpoint a path means, and what is refused before anything is loaded or written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from recipe.sophiavl import merge as merging
from recipe.sophiavl.merge import check_target, find_checkpoint, main
from recipe.sophiavl.validation import SettingsError

RANKS = 2
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with two checkpoints of two ranks, of which the first is the newest that was finished."""
    folder = tmp_path / "run"
    for step in (4, 12):
        actor = folder / f"checkpoints/global_step_{step}/actor"
        (actor / "huggingface").mkdir(parents=True)
        for name in ("config.json", "tokenizer_config.json"):
            (actor / "huggingface" / name).write_text("{}")
        for rank in range(RANKS):
            torch.save({"weight": torch.zeros(300)}, actor / f"model_world_size_{RANKS}_rank_{rank}.pt")
        (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": RANKS}))
    (folder / "checkpoints/latest_checkpointed_iteration.txt").write_text("12")
    return folder


@pytest.mark.parametrize(
    ("path", "step"),
    [
        ("", 12),
        ("checkpoints", 12),
        ("checkpoints/global_step_4", 4),
        ("checkpoints/global_step_4/actor", 4),
        ("checkpoints/global_step_12", 12),
    ],
)
def test_a_path_means_one_checkpoint(run: Path, path: str, step: int) -> None:
    found = find_checkpoint(run / path)
    assert found.folder == run / f"checkpoints/global_step_{step}/actor"
    assert [shard.name for shard in found.shards] == [f"model_world_size_2_rank_{rank}.pt" for rank in range(RANKS)]
    assert not found.adapters


def test_a_checkpoint_with_adapters_is_told(run: Path) -> None:
    (run / "checkpoints/global_step_12/actor/lora_train_meta.json").write_text('{"r": 8}')
    assert "base weights and adapters of 2 ranks" in find_checkpoint(run).describe()


ACTOR = "checkpoints/global_step_12/actor"


@pytest.mark.parametrize(
    ("spoil", "path", "says"),
    [
        (lambda run: None, "nothing", "nothing: no such folder"),
        (lambda run: None, "../", "no checkpoint. Give a run's folder"),
        (lambda run: shutil.rmtree(run / "checkpoints"), "", "no checkpoint. Give a run's folder"),
        (lambda run: None, f"{ACTOR}/huggingface", "a model folder already"),
        (
            lambda run: (run / ACTOR / "fsdp_config.json").unlink(),
            "",
            "global_step_12: half-written: it has no fsdp_config",
        ),
        (lambda run: (run / ACTOR / "fsdp_config.json").write_text('{"world'), "", "fsdp_config.json: half-written"),
        (lambda run: (run / ACTOR / "fsdp_config.json").write_text("[1]"), "", "fsdp_config.json: half-written"),
        (lambda run: (run / ACTOR / "model_world_size_2_rank_1.pt").unlink(), "", "rank_1.pt: missing"),
        (lambda run: _cut(run / ACTOR / "model_world_size_2_rank_1.pt"), "", "rank_1.pt: half-written"),
        (lambda run: (run / ACTOR / "model_world_size_2_rank_0.pt").write_bytes(b""), "", "rank_0.pt: half-written"),
        (lambda run: (run / ACTOR / "huggingface/config.json").unlink(), "", "config.json: missing"),
        (
            lambda run: shutil.rmtree(run / "checkpoints/global_step_12"),
            "",
            "global_step_12: missing, though it is the",
        ),
        (lambda run: _latest(run).unlink(), "", "no checkpoint was finished here"),
        (lambda run: _latest(run).write_text("4"), "checkpoints/global_step_12", "finished is of step 4"),
        (lambda run: _latest(run).write_text("4"), ACTOR, "finished is of step 4"),
    ],
)
def test_what_is_no_whole_checkpoint_is_refused_in_one_sentence(run: Path, spoil, path: str, says: str, capsys) -> None:
    spoil(run)
    with pytest.raises(SystemExit) as stop:
        main([str(run / path), str(run / "out")])
    assert says in str(stop.value)
    assert "\n" not in str(stop.value)
    assert not (run / "out").exists()


def _latest(run: Path) -> Path:
    return run / "checkpoints/latest_checkpointed_iteration.txt"


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


def test_nothing_is_overwritten(run: Path) -> None:
    out = run / "out"
    check_target(out)
    out.mkdir()
    check_target(out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(SystemExit, match="out: exists already, and is not empty"):
        main([str(run), str(out)])
    with pytest.raises(SettingsError, match=r"notes.txt: exists already"):
        check_target(out / "notes.txt")
    assert [file.name for file in out.iterdir()] == ["notes.txt"]


def test_a_dry_run_checks_and_writes_nothing(run: Path, capsys: pytest.CaptureFixture) -> None:
    before = sorted(run.rglob("*"))
    main([str(run), str(run / "out"), "--dry-run"])
    assert f"{run / ACTOR}: weights of 2 ranks" in capsys.readouterr().out
    assert sorted(run.rglob("*")) == before


def test_the_script_takes_a_dry_run_and_says_what_is_wrong(run: Path) -> None:
    command = ["bash", "examples/merge_checkpoint.sh", str(run), str(run / "out")]
    environment = {**os.environ, "VIRTUAL_ENV": sys.prefix, "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"}
    good = subprocess.run([*command, "--dry-run"], cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert (good.returncode, good.stderr) == (0, "")
    assert f"{run / ACTOR}: weights of 2 ranks" in good.stdout
    _latest(run).unlink()
    bad = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert bad.returncode == 1
    assert bad.stderr.startswith("error: ")
    assert bad.stderr.count("\n") == 1


def test_a_merge_that_fails_leaves_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half_a_merge(_shards: Path, out: Path) -> None:
        (out / "config.json").write_text("{}")
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(merging.internals, "merge_shards", half_a_merge)
    with pytest.raises(RuntimeError, match="full"):
        merging.merge(find_checkpoint(run), run / "models/out")
    assert not list((run / "models").iterdir())


def test_adapters_alone_are_no_model(run: Path) -> None:
    actor = run / ACTOR
    (actor / "lora_train_meta.json").write_text('{"r": 8}')
    for shard in find_checkpoint(run).shards:
        torch.save({"q_proj.lora_A.default.weight": torch.zeros(3)}, shard)
    with pytest.raises(SettingsError, match="adapters alone"):
        merging.merge(find_checkpoint(run), run / "out")
    assert not (run / "out").exists()
