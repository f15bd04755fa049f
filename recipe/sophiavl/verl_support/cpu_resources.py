"""What a run without a GPU should take of this machine: number format and threads. Imports nothing heavy.

One place decides (:func:`choose`); `environment` puts the choice into environment variables, from which the engines,
``config/platform/cpu.yaml``, ``config/trm_platform/cpu.yaml`` and the launch scripts take it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

THREADS = "OMP_NUM_THREADS"
SERVER_THREADS = "SOPHIAVL_SERVER_THREADS"
DTYPE = "SOPHIAVL_CPU_DTYPE"

# As /proc/cpuinfo spells them: x86 (Intel Sapphire Rapids, AMD Zen 4, and later) and ARM (Neoverse V1 and later).
NATIVE_BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
# Those that multiply tiles. avx512_bf16 multiplies pairs, which does not pay for a small model's casts: 64 sequences
# of 96 tokens of the quickstart's policy, forward and backward, take 0.49 CPU s in float32, 0.81 in bfloat16 (Xeon).
_MATRIX_FLAGS = ("amx_bf16", "bf16")


@dataclass(frozen=True)
class Machine:
    """What this process may use.

    Attributes:
        native_bf16: the flags of `NATIVE_BF16_FLAGS` that every processor has.
        affinity: logical CPUs that the scheduler may put this process on (``taskset``, cpusets), >= 1.
        quota: CPUs' worth of time that cgroups grant, > 0; None where none limits it.
    """

    native_bf16: tuple[str, ...]
    affinity: int
    quota: float | None

    @property
    def cores(self) -> int:
        """Threads that can run at once, >= 1. A quota is rounded down: with a thread more than it pays for, all threads
        wait at every barrier for the one that is held back."""
        return self.affinity if self.quota is None else max(1, min(self.affinity, math.floor(self.quota)))

    def describe(self) -> str:
        """Its cores and where their number comes from."""
        limit = f"the cgroup's quota of {self.quota:g} of" if self.quota is not None else "affinity to"
        flags = ", ".join(self.native_bf16) or "no bf16 instructions"
        return f"{self.cores} cores ({limit} {self.affinity} CPUs; {flags})"


@dataclass(frozen=True)
class Choice:
    """What to use of a machine.

    Attributes:
        dtype: number format of the policy, the reference, the rollout and the TRM.
        threads: of an engine that works alone, as training does.
        server_threads: of each of the engines that work at once, the rollout server and the TRM's.
        reason: of the number format.
    """

    dtype: str
    threads: int
    server_threads: int
    reason: str

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that carry it."""
        return {DTYPE: self.dtype, THREADS: str(self.threads), SERVER_THREADS: str(self.server_threads)}


def choose(machine: Machine) -> Choice:
    """The choice for a machine, without what the user's environment says."""
    if set(machine.native_bf16) & set(_MATRIX_FLAGS):
        dtype, reason = "bfloat16", "the processor multiplies matrices of it"
    elif machine.native_bf16:
        dtype, reason = "float32", "no slower than bfloat16 with these instructions, and more exact"
    else:
        dtype, reason = "float32", "bfloat16 would be emulated"
    return Choice(dtype, machine.cores, max(1, machine.cores // 2), reason)


def resolve(machine: Machine, environ: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """The variables to set, and one line about what they say and why.

    Args:
        environ: the user's environment, whose values go before the choice. ``OMP_NUM_THREADS`` alone holds for the
            servers too.
    """
    choice = choose(machine)
    given = {name: value.strip() for name, value in environ.items() if value.strip()}
    wishes = {SERVER_THREADS: given[THREADS]} if THREADS in given else {}
    wishes |= {name: given[name] for name in choice.variables if name in given}
    variables = choice.variables | wishes

    def told(name: str, reason: str) -> str:
        value, chosen = variables[name], choice.variables[name]
        return f"{value} ({reason})" if value == chosen else f"{value} (set in the environment in place of {chosen})"

    line = (
        f"CPU platform: {machine.describe()}. {DTYPE}={told(DTYPE, choice.reason)}, "
        f"{THREADS}={told(THREADS, 'training works alone')}, "
        f"{SERVER_THREADS}={told(SERVER_THREADS, 'the rollout and the TRM work at once')}."
    )
    return variables, line


def read_machine(root: Path = Path("/")) -> Machine:
    """This machine as this process sees it.

    Args:
        root: where ``proc`` and ``sys`` are.
    """
    quotas = _quotas(root / "sys/fs/cgroup", (root / "proc/self/cgroup").read_text(encoding="utf-8"))
    flags = processor_flags((root / "proc/cpuinfo").read_text(encoding="utf-8"))
    native = tuple(flag for flag in NATIVE_BF16_FLAGS if flag in flags)
    return Machine(native, len(os.sched_getaffinity(0)), min(quotas, default=None))


def processor_flags(cpuinfo: str) -> frozenset[str]:
    """The flags that all processors of ``/proc/cpuinfo`` have (``flags`` on x86, ``Features`` on ARM)."""
    lines = (line.partition(":") for line in cpuinfo.splitlines())
    sets = [frozenset(flags.split()) for name, _, flags in lines if name.strip() in ("flags", "Features")]
    return frozenset.intersection(*sets) if sets else frozenset()


def _quotas(mount: Path, cgroups: str) -> Iterator[float]:
    """CPUs' worth of time that this process's cgroups and all above them grant, where they limit it.

    Args:
        mount: of cgroup v2, or of the folders of cgroup v1's controllers.
        cgroups: lines ``number:controllers:path`` of ``/proc/self/cgroup``; v2 names no controllers. In a container the
            path may be the host's, and only the mount itself, which is the last one looked at, be there.
    """
    for line in cgroups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for folder in {mount / name for name in (controllers, "cpu")} if controllers else {mount}:
            group = folder / path.strip("/")
            for place in (group, *group.parents):
                if place.is_relative_to(folder) and (found := _quota(place)) is not None:
                    yield found


def _quota(group: Path) -> float | None:
    """The quota of one cgroup, v2 or v1."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
    except FileNotFoundError:  # no such group here, or it has no controller of CPU time
        return None
    return None if quota in ("max", "-1") else int(quota) / int(period)
