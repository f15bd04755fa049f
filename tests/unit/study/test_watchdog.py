"""A run that has come to a standstill ends its process, and one that goes on does not."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

# Writes `file` in the run's folder every 0.1 s for 5 s, under a watchdog of 3 s.
SCRIPT = """
import signal, sys, time
from pathlib import Path
from recipe.sophiavl.study import watchdog
watchdog._END_S = 0.5
run_dir, file, deaf = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "deaf"
if deaf:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with watchdog.ended_when_stalled(run_dir, 3.0, lambda why: print(why, flush=True), 7):
    for number in range(50):
        if file:
            (run_dir / file).write_text(str(number))
        time.sleep(0.1)
print("the end", flush=True)
"""


@pytest.mark.parametrize(
    ("file", "deaf", "code"),
    [("rollouts/1.jsonl", "", 0), ("", "", -15), ("train.log", "", -15), ("", "deaf", 7)],
    ids=["goes on", "stalls", "only prints", "does not end by SIGTERM"],
)
def test_a_run_ends_only_where_it_writes_nothing(tmp_path: Path, file: str, deaf: str, code: int) -> None:
    (tmp_path / "rollouts").mkdir()
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), file, deaf],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == code, done.stderr
    assert ("the end" in done.stdout) == (code == 0)
    assert ("the run wrote nothing for" in done.stdout) == (code != 0)
    assert time.monotonic() - started < 100


def test_a_folder_that_is_not_there_yet_counts_from_the_start(tmp_path: Path) -> None:
    from recipe.sophiavl.study.watchdog import ended_when_stalled

    told: list[str] = []
    with ended_when_stalled(tmp_path / "later", 30.0, told.append, 1):
        pass
    assert told == []
