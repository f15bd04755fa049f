"""The runner with workers that only pretend: what is started, started again, given up, and left after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import yaml

from recipe.sophiavl.study import run_config, runner
from recipe.sophiavl.study.__main__ import main
from recipe.sophiavl.study.grid import load_study
from recipe.sophiavl.validation import SettingsError

# Makes the first run that is missing, each in a process of its own where --most says so; `behaviour` may interfere.
WORKER = """
import argparse, sys, time
from pathlib import Path
from filelock import FileLock
from recipe.sophiavl.study.grid import load_study
from recipe.sophiavl.study.runner import AT_LIMIT, FAILED, NOTHING_LEFT, failure_file, result_file
parser = argparse.ArgumentParser()
parser.add_argument("study", type=Path)
for name in ("--results", "--runs"):
    parser.add_argument(name, type=Path)
parser.add_argument("--most", type=int)
parser.add_argument("--stall-s", type=float)
given = parser.parse_args()
given.results.mkdir(exist_ok=True)
made = 0
for cell in load_study(given.study).cells():
    file = result_file(given.results, cell)
    if file.exists() or failure_file(given.runs, cell).exists():
        continue
    {behaviour}
    with (given.runs / "order").open("a") as order:
        order.write(cell.name + "\\n")
    file.write_text("made")
    made += 1
    if made == given.most:
        sys.exit(AT_LIMIT)
sys.exit(NOTHING_LEFT)
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Of five runs."""
    file = tmp_path / "study.yaml"
    given = {
        "settings": [],
        "variants": {"a": [], "b": []},
        "reward_models": {"oracle": "serve"},
        "judge": "a:b",
        "grid": [{"variants": ["a", "b"], "reward_models": ["oracle"], "seeds": 2}],
    }
    file.write_text(yaml.safe_dump(given))
    return file


def pretend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, behaviour: str = "pass") -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER.replace("{behaviour}", textwrap.indent(behaviour, "    ").strip()))
    monkeypatch.setattr(runner, "_WORKER", (sys.executable, str(script)))
    monkeypatch.setattr(runner, "_POLL_S", 0.02)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))


def order(tmp_path: Path) -> list[str]:
    return (tmp_path / "runs/order").read_text().split()


def run(tmp_path: Path, study: Path, **settings: int) -> runner.Outcome:
    return runner.run(study, tmp_path / "results", tmp_path / "runs", **{"workers": 1, **settings})


def test_all_runs_are_made_once_and_never_again(tmp_path: Path, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, tmp_path)
    assert run(tmp_path, study) == runner.Outcome(made=5, failed={}, left=0)
    assert order(tmp_path) == ["start.none.0", "a.oracle.1", "b.oracle.1", "a.oracle.2", "b.oracle.2"]
    assert run(tmp_path, study) == runner.Outcome(made=0, failed={}, left=0)
    assert len(order(tmp_path)) == 5


def test_a_run_each_engine(tmp_path: Path, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, tmp_path)
    assert run(tmp_path, study, runs_per_engine=1).made == 5


def test_a_run_that_fails_is_told_and_the_others_go_on(
    tmp_path: Path, study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail = (
        "if cell.name == 'b.oracle.1':\n    failure_file(given.runs, cell).write_text('Traceback\\nValueError: no')\n"
    )
    pretend(monkeypatch, tmp_path, fail + "    sys.exit(FAILED)")
    where = ["--results", str(tmp_path / "results"), "--runs", str(tmp_path / "runs"), "--workers", "1"]
    assert main(["run", str(study), *where]) == 1
    told = capsys.readouterr()
    assert "b.oracle.1 failed: ValueError: no" in told.err
    assert "4 runs made, 1 failed, 1 left" in told.out
    pretend(monkeypatch, tmp_path)
    assert run(tmp_path, study) == runner.Outcome(made=1, failed={}, left=0), "the same command tries it again"


def test_a_worker_that_comes_to_nothing_is_not_started_for_ever(
    tmp_path: Path, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, tmp_path, "if cell.name == 'b.oracle.1': os._exit(9)".replace("os._exit", "sys.exit"))
    with pytest.raises(runner.WorkerError, match=r"exit code 9 before a run did; its log is .*worker-0\.log"):
        run(tmp_path, study)
    assert order(tmp_path) == ["start.none.0", "a.oracle.1"]


def test_interrupted_it_ends_its_workers_and_goes_on_later(
    tmp_path: Path, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, tmp_path, "if cell.name == 'b.oracle.1': time.sleep(600)")
    where = f"results={str(tmp_path / 'results')!r}, runs={str(tmp_path / 'runs')!r}, file={str(study)!r}"
    code = (
        "import sys; from pathlib import Path; from recipe.sophiavl.study import runner; "
        f"runner._WORKER = {runner._WORKER!r}; runner._POLL_S = 0.02; "
        f"runner.run(**{{name: Path(path) for name, path in dict({where}).items()}}, workers=1)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    limit = time.monotonic() + 60
    while not (tmp_path / "results/a.oracle.1.jsonl").exists():
        assert time.monotonic() < limit
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert not _running(str(tmp_path / "worker.py")), "a worker is left"
    pretend(monkeypatch, tmp_path)
    assert run(tmp_path, study).made == 3


def _running(script: str) -> list[str]:
    found = subprocess.run(["pgrep", "-f", script], capture_output=True, text=True, check=False).stdout.split()
    return [pid for pid in found if int(pid) != os.getpid()]


def test_what_is_left_is_listed_and_nothing_started(
    tmp_path: Path, study: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_config, "check_study", lambda study: None)
    results = tmp_path / "results"
    results.mkdir()
    (results / "a.oracle.1.jsonl").write_text("made")
    assert main(["run", str(study), "--results", str(results), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "made        a.oracle.1" in told
    assert "would make  b.oracle.2" in told
    assert "1 of 5 runs are made, 4 would be" in told
    for cell in load_study(study).cells():
        (results / f"{cell.name}.jsonl").write_text("made")
    assert main(["run", str(study), "--results", str(results), "--dry-run"]) == 0
    assert "5 of 5 runs are made, 0 would be" in capsys.readouterr().out


def test_what_a_worker_finds_wrong_with_the_study_ends_it(
    tmp_path: Path, study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(monkeypatch, tmp_path, "print('error: judge=a:b: no such function', file=sys.stderr)\nsys.exit(2)")
    where = ["--results", str(tmp_path / "results"), "--runs", str(tmp_path / "runs"), "--workers", "1"]
    assert main(["run", str(study), *where]) == 2
    assert capsys.readouterr().err.strip().endswith("judge=a:b: no such function")


def test_a_failure_without_a_reason_and_one_that_another_command_takes_away(
    tmp_path: Path, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail = "if cell.name == 'b.oracle.1':\n    failure_file(given.runs, cell).write_text('')\n    sys.exit(FAILED)"
    pretend(monkeypatch, tmp_path, fail)
    assert run(tmp_path, study).failed == {"b.oracle.1": "no reason is told"}
    progress = runner._Progress(runner.load_study(study), tmp_path / "results", tmp_path / "runs")
    assert progress.ended() == 1
    (tmp_path / "runs/b.oracle.1.failed").unlink()
    assert progress.ended() == 1, "what has ended has ended"


def test_a_wrong_study_starts_nothing(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no study"):
        run(tmp_path, tmp_path / "nowhere.yaml")
    assert not (tmp_path / "runs").exists()
