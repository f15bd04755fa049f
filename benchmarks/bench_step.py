"""What the choice of number format and threads is worth: seconds per step of the quickstart on this machine.

Short real runs (verl, Ray, FSDP, vLLM, and the quickstart's TRM on a vLLM server), in turn: with the platform's default
settings, with bfloat16 and one thread, and with the default's number format on 1, 2 and all cores. Prints medians of
verl's own timings over warm steps, and the lowest correlation of the rollout's probabilities with the actor's.

    python -m benchmarks.bench_step [--steps 4] [--rounds 1]
    python -m benchmarks.bench_step --isa avx2     # as if the processor had AVX2 only: a stand-in
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from data_preprocess import easy_vqa
from recipe.sophiavl.verl_support.cpu_resources import DTYPE, SERVER_THREADS, THREADS, Machine, choose, read_machine
from testbed.training import REPOSITORY, TrainingRun
from testbed.vllm_server import VllmServer

PARTS = ("step", "gen", "old_log_prob", "ref", "update_actor")
CORRELATION = "training/rollout_actor_probs_pearson_corr"
# The first step pays for warming up.
SKIPPED_STEPS = 1
BASELINE = "bfloat16, 1 thread"

# oneDNN, ATen and MKL take it from the environment; vLLM asks torch, which asks the processor.
AVX2_VARIABLES = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
AVX2_SITECUSTOMIZE = """
from wrapt import when_imported

@when_imported("torch.cpu")
def _avx2_only(cpu):
    cpu._is_avx512_supported = cpu._is_avx512_bf16_supported = cpu._is_amx_tile_supported = lambda: False
"""


@dataclass
class Setting:
    """One way to run, and what its warm steps took.

    Attributes:
        variables: of the environment, for the training and the TRM's server.
        seconds: of each part, one for each warm step.
        correlation: the lowest of any step.
    """

    variables: Mapping[str, str]
    seconds: dict[str, list[float]] = field(default_factory=lambda: {part: [] for part in PARTS})
    correlation: float = 1.0

    def median(self, part: str) -> float:
        return statistics.median(self.seconds[part])

    @property
    def told(self) -> str:
        threads, servers = self.variables[THREADS], self.variables[SERVER_THREADS]
        return f"{self.variables[DTYPE]}, {threads} for training, {servers} for each server"


def settings(machine: Machine) -> tuple[dict[str, Setting], dict[str, Setting]]:
    """The settings to compare, and those on 1, 2 and all cores; what is in both is one object."""
    default = Setting(choose(machine).variables)
    baseline = Setting({DTYPE: "bfloat16", THREADS: "1", SERVER_THREADS: "1"})
    by_cores = {machine.cores: default}
    for cores in (1, 2):
        if cores < machine.cores:
            fewer = choose(replace(machine, affinity=cores, quota=None)).variables
            by_cores[cores] = Setting({**fewer, DTYPE: default.variables[DTYPE]})
    return {"default": default, BASELINE: baseline}, {str(cores): by_cores[cores] for cores in sorted(by_cores)}


def run(setting: Setting, folder: Path, data: Path, steps: int, isa: Mapping[str, str]) -> None:
    """One run with a server of its own; adds its warm steps to the setting."""
    environment = {**setting.variables, **isa}
    trm = REPOSITORY / "examples/quickstart/models/trm"
    flags = ("--max-model-len", "4096", "--max-num-seqs", "64")
    with VllmServer(trm, folder / "trm.log", flags, name="trm", environment=environment) as server:
        training = TrainingRun(
            folder / "run",
            f"data.train_files={data}/train.parquet",
            f"data.val_files={data}/val.parquet",
            f"thinking_reward.urls=[{server.url}]",
            f"trainer.total_training_steps={steps}",
            "trainer.val_before_train=false",
            "trainer.test_freq=-1",
            "trainer.save_freq=-1",
            environment=environment,
        ).run()
    for step, metrics in training.metrics().items():
        setting.correlation = min(setting.correlation, metrics[CORRELATION])
        if step > SKIPPED_STEPS:
            for part in PARTS:
                setting.seconds[part].append(metrics[f"timing_s/{part}"])


def table(title: str, columns: Mapping[str, Setting], reference: str) -> Table:
    """Median seconds of each part, and the step's ratio to a reference column."""
    made = Table("", *columns, title=title)
    for part in PARTS:
        made.add_row(f"{part}, s", *(f"{setting.median(part):.2f}" for setting in columns.values()))
    of = columns[reference].median("step")
    made.add_row(f"step, of {reference}", *(f"{setting.median('step') / of:.2f}x" for setting in columns.values()))
    made.add_row("warm steps", *(str(len(setting.seconds["step"])) for setting in columns.values()))
    made.add_row("lowest correlation", *(f"{setting.correlation:.5f}" for setting in columns.values()))
    return made


def stand_in(folder: Path) -> dict[str, str]:
    """Variables with which torch, oneDNN, MKL and vLLM use AVX2 at most."""
    (folder / "sitecustomize.py").write_text(AVX2_SITECUSTOMIZE, encoding="utf-8")
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    return {**AVX2_VARIABLES, "PYTHONPATH": path}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4, help="of each run, the first of which does not count")
    parser.add_argument("--rounds", type=int, default=1, help="runs of each setting, in turn")
    parser.add_argument("--isa", choices=["avx2"], help="instructions to stand in for those of an older processor")
    options = parser.parse_args()
    if options.steps <= SKIPPED_STEPS:
        parser.error(f"--steps: more than {SKIPPED_STEPS}")
    machine = read_machine()
    if options.isa:
        machine = replace(machine, native_bf16=())
    compared, by_cores = settings(machine)
    console = Console()
    console.print(machine.describe() + (" (a stand-in: AVX2 instructions only)" if options.isa else ""))
    console.print("default: " + compared["default"].told)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        isa = stand_in(folder) if options.isa else {}
        easy_vqa.main(["--out", str(folder / "data"), "--train-size", "400"])
        every = list({id(setting): setting for setting in (*compared.values(), *by_cores.values())}.values())
        for turn in range(options.rounds):
            for number, setting in enumerate(every):
                place = folder / f"{turn}-{number}"
                place.mkdir()
                run(setting, place, folder / "data", options.steps, isa)
                console.print(f"{setting.told}: {setting.median('step'):.2f} s a step")
    console.print(table("the platform's default", compared, BASELINE))
    console.print(table("cores", by_cores, next(iter(by_cores))))


if __name__ == "__main__":
    main()
