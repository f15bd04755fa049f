"""A worker's way through a grid, with runs that only pretend."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from recipe.sophiavl.study import worker
from recipe.sophiavl.study.grid import Study
from recipe.sophiavl.study.runner import AT_LIMIT, CLAIMS, FAILED, NOTHING_LEFT, WRONG_STUDY
from recipe.sophiavl.study.worker import work

GIVEN: dict[str, Any] = {
    "settings": [],
    "variants": {"a": []},
    "reward_models": {"oracle": "serve"},
    "judge": "a:b",
    "grid": [{"variants": ["a"], "reward_models": ["oracle"], "seeds": 3}],
}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The runs that were made, by their names; one that is called a.oracle.2 fails."""
    found: list[str] = []

    def make(_study: Study, cell: Any, results: Path, *_: Any) -> None:
        if cell.name == "a.oracle.2":
            raise RuntimeError("no luck")
        found.append(cell.name)
        worker.result_file(results, cell).write_text("made")

    monkeypatch.setattr(worker, "make_run", make)
    (tmp_path / "runs").mkdir()
    return found


def go(tmp_path: Path, most: int = 0) -> int:
    return work(Study(**GIVEN), tmp_path / "results", tmp_path / "runs", most, 600.0, lambda *_: None)


def test_it_ends_at_a_failure_and_goes_on_without_it(tmp_path: Path, made: list[str]) -> None:
    assert go(tmp_path) == FAILED
    assert made == ["start.none.0", "a.oracle.1"]
    assert "RuntimeError: no luck" in (tmp_path / "runs/a.oracle.2.failed").read_text()
    assert go(tmp_path) == NOTHING_LEFT
    assert made == ["start.none.0", "a.oracle.1", "a.oracle.3"]
    assert not list((tmp_path / "runs").glob("*.tries"))


def test_it_ends_after_so_many(tmp_path: Path, made: list[str]) -> None:
    assert go(tmp_path, most=1) == AT_LIMIT
    assert made == ["start.none.0"]


def test_what_another_worker_has_claimed_is_left_to_it(tmp_path: Path, made: list[str]) -> None:
    (tmp_path / "results" / CLAIMS).mkdir(parents=True)
    with FileLock(tmp_path / "results" / CLAIMS / "a.oracle.1"):
        assert go(tmp_path, most=1) == AT_LIMIT
        assert go(tmp_path) == FAILED
    assert made == ["start.none.0"]
    assert go(tmp_path) == NOTHING_LEFT
    assert made == ["start.none.0", "a.oracle.1", "a.oracle.3"]


def test_a_run_that_kills_its_process_is_given_up_and_the_others_are_made(tmp_path: Path, made: list[str]) -> None:
    (tmp_path / "runs/a.oracle.1.tries").write_text("xx")
    assert go(tmp_path) == FAILED
    assert "was killed 2 times" in (tmp_path / "runs/a.oracle.1.failed").read_text()
    assert go(tmp_path) == NOTHING_LEFT
    assert made == ["start.none.0", "a.oracle.3"]


def test_a_killed_process_leaves_its_try(tmp_path: Path) -> None:
    script = (
        "import os; from pathlib import Path; from recipe.sophiavl.study import worker; from tests.unit.study import "
        f"test_worker; worker.make_run = lambda *_: os.kill(os.getpid(), 9); test_worker.go(Path({str(tmp_path)!r}))"
    )
    (tmp_path / "runs").mkdir()
    done = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[3], check=False, timeout=120)
    assert done.returncode == -9
    assert (tmp_path / "runs/start.none.0.tries").read_text() == "x"


def test_without_its_parent_it_makes_no_other_run(
    tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parents = iter([1, 1, 2])
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    assert go(tmp_path) == AT_LIMIT
    assert made == ["start.none.0"]


def test_a_wrong_study_is_told_before_an_engine_is_started(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "study.yaml").write_text("just text")
    where = ["--results", str(tmp_path), "--runs", str(tmp_path), "--stall-s", "600"]
    assert worker.main([str(tmp_path / "study.yaml"), *where]) == WRONG_STUDY
    assert "error: " in capsys.readouterr().err
