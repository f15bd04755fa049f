"""A worker's way through a grid, with runs that only pretend."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from recipe.sophiavl.study.grid import Cell, Study
from recipe.sophiavl.study.runner import AT_LIMIT, CLAIMS, FAILED, NOTHING_LEFT, WRONG_STUDY, result_file
from recipe.sophiavl.study.work import work

REPOSITORY = Path(__file__).parents[3]
GIVEN: dict[str, Any] = {
    "settings": [],
    "variants": {"a": []},
    "reward_models": {"oracle": "serve"},
    "judge": "a:b",
    "grid": [{"variants": ["a"], "reward_models": ["oracle"], "seeds": 3}],
}


class Maker:
    """Makes runs; the one that is called a.oracle.2 fails."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: list[str] = []
        (folder / "runs").mkdir()

    def make(self, cell: Cell) -> None:
        if cell.name == "a.oracle.2":
            raise RuntimeError("no luck")
        self.made.append(cell.name)
        result_file(self.folder / "results", cell).write_text("made")

    def go(self, most: int = 0) -> int:
        where = (self.folder / "results", self.folder / "runs")
        return work(Study(**GIVEN), *where, self.make, most=most, stall_s=600.0)


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


def test_it_ends_at_a_failure_and_goes_on_without_it(tmp_path: Path, maker: Maker) -> None:
    assert maker.go() == FAILED
    assert maker.made == ["start.none.0", "a.oracle.1"]
    assert "RuntimeError: no luck" in (tmp_path / "runs/a.oracle.2.failed").read_text()
    assert maker.go() == NOTHING_LEFT
    assert maker.made == ["start.none.0", "a.oracle.1", "a.oracle.3"]
    assert not list((tmp_path / "runs").glob("*.tries"))


def test_it_ends_after_so_many(tmp_path: Path, maker: Maker) -> None:
    assert maker.go(most=1) == AT_LIMIT
    assert maker.made == ["start.none.0"]


def test_what_another_worker_has_claimed_is_left_to_it(tmp_path: Path, maker: Maker) -> None:
    (tmp_path / "results" / CLAIMS).mkdir(parents=True)
    with FileLock(tmp_path / "results" / CLAIMS / "a.oracle.1"):
        assert maker.go(most=1) == AT_LIMIT
        assert maker.go() == FAILED
    assert maker.made == ["start.none.0"]
    assert maker.go() == NOTHING_LEFT
    assert maker.made == ["start.none.0", "a.oracle.1", "a.oracle.3"]


def test_a_run_that_kills_its_process_is_given_up_and_the_others_are_made(tmp_path: Path, maker: Maker) -> None:
    (tmp_path / "runs/a.oracle.1.tries").write_text("xx")
    assert maker.go() == FAILED
    assert "was killed 2 times" in (tmp_path / "runs/a.oracle.1.failed").read_text()
    assert maker.go() == NOTHING_LEFT
    assert maker.made == ["start.none.0", "a.oracle.3"]


def test_a_killed_process_leaves_its_try(tmp_path: Path) -> None:
    script = (
        "import os; from pathlib import Path; from tests.unit.study.test_worker import Maker; "
        f"maker = Maker(Path({str(tmp_path)!r})); maker.make = lambda cell: os.kill(os.getpid(), 9); maker.go()"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=False, timeout=120)
    assert done.returncode == -9
    assert (tmp_path / "runs/start.none.0.tries").read_text() == "x"


def test_without_its_parent_it_makes_no_other_run(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    parents = iter([1, 1, 2])
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    assert maker.go() == AT_LIMIT
    assert maker.made == ["start.none.0"]


def test_a_wrong_study_is_told_before_an_engine_is_started(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("just text")
    where = ["--results", str(tmp_path), "--runs", str(tmp_path), "--stall-s", "600"]
    command = [sys.executable, "-m", "recipe.sophiavl.study.worker", str(tmp_path / "study.yaml"), *where]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == WRONG_STUDY
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
