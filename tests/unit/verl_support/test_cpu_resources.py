"""What a run takes of a machine: read from files as Linux writes them, overridden by the user, told in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipe.sophiavl.verl_support import cpu_resources
from recipe.sophiavl.verl_support.cpu_resources import DTYPE, SERVER_THREADS, THREADS, Machine, choose, resolve

X86 = "processor\t: {n}\nmodel name\t: Some CPU\nflags\t\t: fpu sse2 avx2 {more}\nbugs\t\t: spectre_v1 amx_bf16\n\n"
ARM = "processor\t: {n}\nFeatures\t: fp asimd {more}\nCPU part\t: 0xd40\n\n"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def machine(tmp_path: Path, cgroups: str, files: dict[str, str], monkeypatch: pytest.MonkeyPatch, cpus: int) -> Machine:
    monkeypatch.setattr(cpu_resources.os, "sched_getaffinity", lambda _: set(range(cpus)))
    at = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    return cpu_resources.read_machine(
        write(tmp_path, {"proc/self/cgroup": cgroups, "proc/cpuinfo": X86.format(n=0, more=""), **at})
    )


@pytest.mark.parametrize(
    ("text", "flag"),
    [(X86, "avx512_bf16"), (X86, "amx_bf16"), (ARM, "bf16")],
)
def test_native_bf16_is_a_flag_that_every_processor_has(tmp_path: Path, text: str, flag: str) -> None:
    with_flag, without = text.format(n=0, more=flag), text.format(n=1, more="")
    files = {"proc/self/cgroup": "0::/\n", "proc/cpuinfo": with_flag * 2}
    assert cpu_resources.read_machine(write(tmp_path, files)).native_bf16 == (flag,)
    for cpuinfo in (without, with_flag + without, "processor : 0\n"):
        write(tmp_path, {"proc/cpuinfo": cpuinfo})
        assert cpu_resources.read_machine(tmp_path).native_bf16 == ()


def test_a_flag_is_a_word_of_the_flags_line_only() -> None:
    flags = cpu_resources.processor_flags(X86.format(n=0, more="avx512_bf16x"))
    assert "avx2" in flags
    assert not flags & set(cpu_resources.NATIVE_BF16_FLAGS), "amx_bf16 stands under another heading"


@pytest.mark.parametrize(
    ("cgroups", "files", "quota"),
    [
        ("0::/\n", {}, None),  # the root has no cpu.max
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2.5),
        ("0::/a/b\n", {"cpu.max": "max 100000", "a/cpu.max": "150000 100000", "a/b/cpu.max": "400000 100000"}, 1.5),
        # a container of cgroup v1 without a name space of its own: only its own mount is there
        (
            "4:cpu,cpuacct:/docker/1f\n1:name=systemd:/docker/1f\n0::/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "300000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            3.0,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        # linked under the controller's own name
        ("2:cpuacct,cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "50000", "cpu/x/cpu.cfs_period_us": "100000"}, 0.5),
        ("3:cpuset:/x\n", {"cpu/x/cpu.cfs_quota_us": "50000", "cpu/x/cpu.cfs_period_us": "100000"}, None),
    ],
)
def test_the_smallest_quota_of_the_groups_above_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cgroups: str, files: dict[str, str], quota: float | None
) -> None:
    assert machine(tmp_path, cgroups, files, monkeypatch, cpus=8).quota == quota


@pytest.mark.parametrize(
    ("affinity", "quota", "cores"),
    [(8, None, 8), (8, 2.0, 2), (8, 2.9, 2), (8, 0.5, 1), (2, 6.0, 2), (1, None, 1)],
)
def test_cores_are_the_lesser_of_affinity_and_quota_rounded_down(
    affinity: int, quota: float | None, cores: int
) -> None:
    assert Machine((), affinity, quota).cores == cores


def test_the_affinity_of_this_process_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine(tmp_path, "0::/\n", {}, monkeypatch, cpus=3).cores == 3


@pytest.mark.parametrize(("cores", "servers"), [(1, 1), (2, 1), (3, 1), (16, 8)])
def test_what_works_alone_has_all_cores_and_what_works_at_once_shares_them(cores: int, servers: int) -> None:
    choice = choose(Machine((), cores, None))
    assert (choice.threads, choice.server_threads) == (cores, servers)


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        ((), "float32"),
        (("avx512_bf16",), "float32"),
        (("avx512_bf16", "amx_bf16"), "bfloat16"),
        (("bf16",), "bfloat16"),
    ],
)
def test_bfloat16_is_for_processors_that_multiply_matrices_of_it(flags: tuple[str, ...], dtype: str) -> None:
    assert choose(Machine(flags, 2, None)).dtype == dtype


def test_the_line_says_what_was_chosen_and_why() -> None:
    variables, line = resolve(Machine((), 16, 4.5), {"HOME": "/x"})
    assert variables == {DTYPE: "float32", THREADS: "4", SERVER_THREADS: "2"}
    assert "\n" not in line
    for part in (
        "4 cores",
        "quota of 4.5",
        "16 CPUs",
        f"{DTYPE}=float32 (bfloat16 would",
        f"{THREADS}=4",
        f"{SERVER_THREADS}=2",
    ):
        assert part in line
    assert "set in the environment" not in line


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({THREADS: "3"}, {THREADS: "3", SERVER_THREADS: "3"}),
        ({THREADS: "3", SERVER_THREADS: "1"}, {THREADS: "3", SERVER_THREADS: "1"}),
        ({SERVER_THREADS: "5"}, {THREADS: "8", SERVER_THREADS: "5"}),
        ({DTYPE: "bfloat16"}, {DTYPE: "bfloat16"}),
        ({THREADS: " ", DTYPE: ""}, {THREADS: "8", DTYPE: "float32"}),
    ],
)
def test_the_users_environment_goes_first_and_the_line_says_so(
    environ: dict[str, str], expected: dict[str, str]
) -> None:
    chosen = {DTYPE: "float32", THREADS: "8", SERVER_THREADS: "4"}
    variables, line = resolve(Machine((), 8, None), environ)
    assert variables == chosen | expected
    for name, value in variables.items():
        said = f"{name}={value} (set in the environment in place of {chosen[name]})" in line
        assert said == (value != chosen[name])
