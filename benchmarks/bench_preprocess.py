"""Memory and speed of preprocessing against a plain pandas loop that does the same checks of images.

    python benchmarks/bench_preprocess.py [--rows 2000 20000] [--workers 2] [--keep FOLDER]

Makes synthetic folders in the format of SophiaVL-R1-130k with one 256 x 256 PNG a row, converts each with
`data_preprocess.sophiavl_130k` and with the loop below, each in a process of its own, and prints for both rows per
second and the peak of the resident memory, summed over all processes (pages that processes share count several times,
so the sum is an upper bound).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from PIL import Image, PngImagePlugin
from rich.console import Console
from rich.table import Table

SIDE = 256
POLL_S = 0.1
KINDS = 64
END_CHUNK = 12  # bytes of the chunk that ends a PNG
FOLDER = "Math/CLEVR-Math/images"


@dataclass(frozen=True)
class Measured:
    """One run: seconds on the wall and on all cores, and peak resident bytes of the process and all that it started."""

    rows: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int


def make_folder(root: Path, rows: int) -> None:
    """A published-format folder; no two image files are the same."""
    (root / FOLDER).mkdir(parents=True)
    (root / "json").mkdir()
    pictures = make_pictures(KINDS)
    with (root / "json" / "math.json").open("w") as file:
        for number in range(rows):
            # A comment in the PNG makes its bytes differ, at no cost.
            comment = PngImagePlugin.PngInfo()
            comment.add_text("number", str(number))
            chunk = io.BytesIO()
            for kind, data, _ in comment.chunks:
                PngImagePlugin.putchunk(chunk, kind, data)
            head, end = pictures[number % KINDS][:-END_CHUNK], pictures[number % KINDS][-END_CHUNK:]
            (root / FOLDER / f"{number}.png").write_bytes(head + chunk.getvalue() + end)
            row = {
                "problem_id": number,
                "problem": f"Take away {number} of the balls. How many things remain?",
                "data_type": "image",
                "problem_type": "numerical",
                "options": [],
                "process": "",
                "solution": f"<answer>{number}</answer>",
                "path": f"./{FOLDER}/{number}.png",
                "data_source": "CLEVR-Math",
            }
            file.write(("[" if number == 0 else ",\n") + json.dumps(row))
        file.write("]")


def make_pictures(count: int) -> list[bytes]:
    """PNG files of slopes with a little grain, so that they do not compress away."""
    chance = np.random.default_rng(0)
    slope = np.linspace(0, 120, SIDE, dtype=np.float32)
    pictures = []
    for _ in range(count):
        tint = chance.integers(0, 120, 3).astype(np.float32)
        pixels = slope[:, None, None] + slope[None, :, None] * 0.1 + tint + chance.integers(0, 3, (SIDE, SIDE, 1))
        out = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(out, "PNG")
        pictures.append(out.getvalue())
    return pictures


def pandas_loop(root: Path, out: Path) -> None:
    """What one writes first: read everything, loop over the rows, write everything."""
    import pandas as pd

    from data_preprocess.schema import rl_row

    made = []
    for number, row in pd.read_json(root / "json" / "math.json").iterrows():
        data = (root / row["path"]).read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            image.load()
        truth = row["solution"].removeprefix("<answer>").removesuffix("</answer>")
        made.append(
            rl_row(
                data_source=row["data_source"],
                question=row["problem"],
                problem_type=row["problem_type"],
                answer=truth,
                split="train",
                index=number,
                images=[data],
                options=row["options"],
            )
        )
    pd.DataFrame(made).to_parquet(out)


def measure(command: Sequence[str], rows: int) -> Measured:
    """Run `command` to its end.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    began, cpu_before, peak = time.monotonic(), _cpu_seconds(), 0
    process = psutil.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, resident(process))
        time.sleep(POLL_S)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Measured(rows, time.monotonic() - began, _cpu_seconds() - cpu_before, peak)


def _cpu_seconds() -> float:
    """CPU time of all child processes that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def resident(process: psutil.Process) -> int:
    """Resident bytes of a process and its descendants; one that ends meanwhile counts nothing."""
    total = 0
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for member in family:
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_preprocess",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[2000, 20_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers of processes to try")
    parser.add_argument("--keep", type=Path, help="folder for the synthetic data, kept and used again")
    parser.add_argument("--pandas-loop", type=Path, nargs=2, metavar=("SOURCE", "OUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.pandas_loop:
        pandas_loop(*args.pandas_loop)
        return
    folder = args.keep or Path(tempfile.mkdtemp(prefix="bench_preprocess_"))
    results: dict[str, list[Measured]] = {}
    for rows in args.rows:
        source, out = folder / f"rows{rows}", folder / "out"
        if not source.exists():
            make_folder(source, rows)
        ours = [sys.executable, "-m", "data_preprocess.sophiavl_130k", str(source), "--out", str(out)]
        commands = {f"ours, {count} workers": [*ours, "--workers", str(count)] for count in args.workers}
        commands["pandas loop"] = [sys.executable, __file__, "--pandas-loop", str(source), f"{out}.parquet"]
        for name, command in commands.items():
            shutil.rmtree(out, ignore_errors=True)
            results.setdefault(name, []).append(measure(command, rows))
            Path(f"{out}.parquet").unlink(missing_ok=True)
        shutil.rmtree(out, ignore_errors=True)
    if args.keep is None:
        shutil.rmtree(folder)
    report(results, Console())


def report(results: dict[str, list[Measured]], console: Console) -> None:
    """Print the table and the ratios."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    console.print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load average {load}")
    table = Table("", "rows", "seconds", "rows/s", "CPU seconds", "peak MiB")
    for name, runs in results.items():
        for run in runs:
            speed = (f"{run.seconds:.1f}", f"{run.rows / run.seconds:.0f}", f"{run.cpu_seconds:.1f}")
            table.add_row(name, str(run.rows), *speed, f"{run.peak_bytes / 2**20:.0f}")
    console.print(table)
    loop = results["pandas loop"][-1]
    for name, runs in results.items():
        first, last = runs[0], runs[-1]
        growth = f"memory at {last.rows} rows is {last.peak_bytes / first.peak_bytes:.2f} of that at {first.rows}"
        faster = f"{loop.seconds / last.seconds:.2f} times the speed of the pandas loop"
        smaller = f"{last.peak_bytes / loop.peak_bytes:.2f} of its memory"
        console.print(f"{name}: {growth}; {faster}, {smaller}")


if __name__ == "__main__":
    main()
