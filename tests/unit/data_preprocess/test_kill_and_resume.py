"""Killed at any moment and started again, the output is that of an uninterrupted run."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import psutil
import pytest
from preprocess_builders import contents, good_rows, text_row, write_dataset

from data_preprocess.core import files, pipeline
from data_preprocess.core.pipeline import Settings, run
from data_preprocess.core.published import published_source
from data_preprocess.sophiavl_130k import Sophia130k

KILLS = 10
SEED = 20250522
FILES_OF_A_RUN = 16 + 10  # the parts, and the shards


def start(source: Path, out: Path) -> subprocess.Popen[bytes]:
    options = ["--workers", "2", "--val-fraction", "0.2", "--shard-rows", "700"]
    command = [sys.executable, "-m", "data_preprocess.sophiavl_130k", str(source), "--out", str(out), *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()


def kill(process: subprocess.Popen[bytes]) -> None:
    """kill -9 of the main process alone; its workers must end by themselves."""
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive, "workers outlive a killed run"


def written(out: Path) -> int:
    """How far a run has come: the files that it has written so far."""
    return sum(len(list(folder.glob("*"))) for folder in (out, out / ".work") if folder.is_dir())


def wait_until_written(process: subprocess.Popen[bytes], out: Path, files_written: int) -> bool:
    """Wait for a moment of the run, which comes late on a busy machine; False if the run ends before it."""
    while process.poll() is None:
        if written(out) >= files_written:
            return True
        time.sleep(0.002)
    return False


def test_kill_at_random_moments_then_resume(tmp_path: Path) -> None:
    rows = good_rows(1500) + [text_row(number) for number in range(1500, 4000)]
    rows[700]["solution"] = ""
    rows[3000]["problem_type"] = "nonsense"
    source = write_dataset(tmp_path / "in", rows)
    finish(start(source, tmp_path / "whole"))
    expected = contents(tmp_path / "whole")

    chance = random.Random(SEED)
    kills, at_work = 0, 0
    folders = (tmp_path / f"killed{number}" for number in count())
    out = next(folders)
    while kills < KILLS:
        process = start(source, out)
        moment = written(out) + chance.randint(0, FILES_OF_A_RUN // 4)
        if wait_until_written(process, out, moment):
            time.sleep(chance.uniform(0, 0.05))
            kill(process)
            kills += 1
            at_work += any(out.glob(".work/*.parquet"))
        else:
            finish(process)
            assert contents(out) == expected
            out = next(folders)
    finish(start(source, out))
    assert contents(out) == expected
    assert at_work >= KILLS // 2, "few kills met a run at work: the test has shown nothing"


class Crash(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_crash_around_every_single_write_then_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    monkeypatch.setattr(pipeline, "PART_ROWS", 10)
    source = write_dataset(tmp_path / "in", good_rows(40))
    settings = Settings(val_fraction=0.3, shard_rows=12)

    def convert(out: Path) -> None:
        run(published_source(str(source), out), Sophia130k(), settings, out)

    convert(tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    replace, calls, crash_at = Path.replace, 0, 0

    def crashing(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls != crash_at:
            return replace(self, target)
        if not before:
            replace(self, target)
        raise Crash

    monkeypatch.setattr(files.Path, "replace", crashing)
    for crash_at in range(1, 100):
        calls = 0
        out = tmp_path / f"crash{crash_at}"
        try:
            convert(out)
        except Crash:
            calls = 1000
            convert(out)
            assert contents(out) == expected
        else:
            break
    assert crash_at > 4 + 5  # parts, and shards and manifests


def test_a_part_that_was_damaged_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "PART_ROWS", 10)
    source = write_dataset(tmp_path / "in", good_rows(40))
    convert = [published_source(str(source), tmp_path), Sophia130k(), Settings()]
    run(*convert, tmp_path / "whole")

    def stop(*args: object, **kwargs: object) -> None:
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "assemble", stop)
        with pytest.raises(Crash):
            run(*convert, tmp_path / "out")
    part = tmp_path / "out" / ".work" / "000002.parquet"
    part.write_bytes(part.read_bytes()[:-10])
    (tmp_path / "out" / ".work" / "000001.parquet").unlink()
    run(*convert, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
