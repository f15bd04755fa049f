"""Whether the thinking reward's latency hides behind the rollout: step time with the TRM on against off.

Two real short runs of the quickstart's policy on this machine (verl, Ray, FSDP, vLLM), one after the other: outcome
reward only, then with a stand-in TRM that takes half a second for each reply. Prints verl's own ``timing_s/step`` and
its parts.

    python -m benchmarks.bench_overlap [--prompts 32] [--steps 8] [--latency-s 0.5]

A response is scored while others are still generated, so what remains visible is the latency after the last response.
Hence the rollout must take several waves, as it does in training: here 32 prompts x 8 responses, 32 at once.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from data_preprocess import easy_vqa
from recipe.sophiavl.report import Steps
from testbed.stand_in import stand_in_process
from testbed.training import TrainingRun, batches

PARTS = ("step", "gen", "old_log_prob", "ref", "adv", "update_actor")
# Steps that pay for warming up, in either run.
SKIPPED_STEPS = 2


def measure(folder: Path, options: argparse.Namespace, *overrides: str) -> dict[str, float]:
    """Median seconds of each part of a step."""
    run = TrainingRun(
        folder,
        f"data.train_files={options.data}/train.parquet",
        f"data.val_files={options.data}/val.parquet",
        *batches(options.prompts, responses=8, micro_batch=64),
        f"actor_rollout_ref.rollout.max_num_seqs={options.sequences}",
        f"trainer.total_training_steps={options.steps}",
        "trainer.val_before_train=false",
        "trainer.test_freq=-1",
        "trainer.save_freq=-1",
        *overrides,
    ).run()
    return medians(run.metrics())


def medians(steps: Steps) -> dict[str, float]:
    """Median of each timing over the steps after the warm-up."""
    timed = [data for step, data in steps.items() if step > SKIPPED_STEPS]
    return {part: statistics.median(data[f"timing_s/{part}"] for data in timed) for part in PARTS}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_overlap",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--prompts", type=int, default=32, help="prompts a step, of 8 responses each")
    parser.add_argument("--sequences", type=int, default=32, help="sequences that the rollout generates at once")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--latency-s", type=float, default=0.5, help="seconds of the stand-in TRM for each reply")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, stand_in_process(options.latency_s, 1024) as url:
        folder = Path(temporary)
        options.data = folder / "data"
        easy_vqa.main(["--out", str(options.data), "--train-size", str(options.prompts * options.steps)])
        off = measure(folder / "off", options, "thinking_reward=outcome_only")
        on = measure(
            folder / "on",
            options,
            f"thinking_reward.urls=[{url}]",
            "thinking_reward.model=stand-in",
            "thinking_reward.max_concurrency=1024",
            "thinking_reward.preflight=false",
        )
    table = Table(title=f"{options.prompts} x 8 responses a step, {options.latency_s} s a score (medians, seconds)")
    for heading in ("part", "outcome only", "with thinking reward", "ratio"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for part in PARTS:
        table.add_row(part, f"{off[part]:.2f}", f"{on[part]:.2f}", f"{on[part] / off[part]:.2f}")
    console = Console()
    console.print(table)
    console.print(f"step time with the thinking reward: {on['step'] / off['step']:.3f} x outcome only")


if __name__ == "__main__":
    main()
