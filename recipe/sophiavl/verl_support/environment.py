"""Process environment for machines without an accelerator. Imports nothing heavy: it runs before verl does.

verl reads ``VERL_PLATFORM`` while it is imported, and Ray workers inherit the driver's environment, so the entry point
calls :func:`configure` first. On a machine with an accelerator nothing is set.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from recipe.sophiavl.verl_support import cpu_resources

# NVIDIA, AMD, Ascend
_ACCELERATOR_NODES = ("nvidia[0-9]*", "kfd", "davinci[0-9]*")

# Beside what cpu_resources chooses for the machine.
CPU_ENVIRONMENT: dict[str, str] = {
    # our platform class (cpu_platform.py); verl 0.9.1 itself knows nvidia, amd and huawei
    "VERL_PLATFORM": "cpu",
    # verl 0.9.1's engine registry is keyed by device and knows "cuda" and "npu" only
    "VERL_ENGINE_DEVICE": "cuda",
    # vLLM 0.28 sizes its CPU cache from one NUMA node unless told the GiB
    "VLLM_CPU_KVCACHE_SPACE": "1",
    # Several engines share the cores: a thread that waits must sleep. libgomp (torch's and vLLM's) by default spins for
    # some milliseconds, in which a matrix product beside another process takes three times as long.
    "OMP_WAIT_POLICY": "passive",
    # vLLM 0.28 otherwise binds the threads of each server to the same cores, all but one
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # vLLM 0.28's engine otherwise has a worker process of its own; while one of the two works the other spins, and to
    # import vLLM again takes 7 s. Holds where distributed_executor_backend is "uni" (or, for `vllm serve`, not given).
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray would otherwise hide the (logical) GPUs that it hands out
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def accelerator_present(dev: Path = Path("/dev")) -> bool:
    """Whether this machine has an NVIDIA, AMD or Ascend device node, visible to this process or not."""
    return any(any(dev.glob(pattern)) for pattern in _ACCELERATOR_NODES)


def why_no_accelerator(dev: Path = Path("/dev")) -> str:
    """A sentence about why no accelerator was found, and what to do where there is one all the same."""
    seen = "no GPU is seen here (/dev/nvidia0, /dev/kfd, /dev/davinci0)."
    if (dev / "dxg").exists():
        return f"{seen} This is WSL2, whose GPUs have no such nodes: start with VERL_PLATFORM=nvidia."
    return (
        f"{seen} If this is the head of a Ray cluster whose other nodes have GPUs, start with RAY_ADDRESS=HOST:PORT of "
        "that cluster; if verl should use a GPU that has no such node, with VERL_PLATFORM=nvidia, amd or huawei."
    )


def platform() -> str:
    """What ``VERL_PLATFORM`` says, as verl reads it; "" where it is not set. Nothing else reads this variable."""
    return os.environ.get("VERL_PLATFORM", "").strip().lower()


def on_cpu() -> bool:
    """Whether verl runs on the CPU platform in this process, once :func:`configure` was called."""
    return platform() == "cpu"


def wants_cpu_platform() -> bool:
    """Whether the CPU platform applies: asked for by ``VERL_PLATFORM=cpu``, or no accelerator and no other wish.

    A driver that joins an existing Ray cluster (``RAY_ADDRESS``) may itself have no accelerator: it is left alone.
    """
    if platform():
        return on_cpu()
    return not accelerator_present() and not os.environ.get("RAY_ADDRESS")


def cpu_environment(environ: Mapping[str, str] | None = None) -> tuple[dict[str, str], str]:
    """The CPU platform's variables, with the user's values where there are some, and one line about the choice.

    Args:
        environ: the user's environment; this process's own by default.
    """
    environ = os.environ if environ is None else environ
    chosen, line = cpu_resources.resolve(cpu_resources.read_machine(), environ)
    fixed = {name: environ.get(name, "").strip() or value for name, value in CPU_ENVIRONMENT.items()}
    return fixed | chosen, line


def configure() -> str:
    """Set the variables of `cpu_environment`, if the CPU platform applies.

    Returns:
        One line about what was chosen, for `announce`; empty where the platform does not apply.
    """
    if not wants_cpu_platform():
        return ""
    variables, line = cpu_environment()
    os.environ.update(variables)
    return line


def announce(line: str, device: str) -> None:
    """Say what was chosen (on standard error, once for all ranks) where the run is one on the CPU."""
    if line and device == "cpu" and os.environ.get("RANK", "0") == "0":  # torchrun's
        print(line, file=sys.stderr)


def gpu_memory_gb() -> float | None:
    """Memory of this process's first GPU in GB (10^9 bytes); None where CUDA sees none. Loads torch."""
    import torch

    return torch.cuda.get_device_properties(0).total_memory / 1e9 if torch.cuda.is_available() else None


def main() -> None:
    """Print the settings as shell exports, for scripts that start vLLM or several of the recipe's commands, which then
    say themselves what was chosen."""
    if wants_cpu_platform():
        variables, _ = cpu_environment()
        for name, value in variables.items():
            print(f"export {name}={shlex.quote(value)}")


if __name__ == "__main__":
    main()
