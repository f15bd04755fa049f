"""The parts of the project depend on each other one way, and a training run loads nothing of making a TRM."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import networkx as nx
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("recipe", "reward_score", "data_preprocess", "page_kit", "testbed", "benchmarks")
RECIPE = "recipe.sophiavl"

# What each part may import of the others. "recipe" is everything in recipe/sophiavl that is no part of its own.
ALLOWED = {
    "reward_score": set(),
    "page_kit": set(),
    "data_preprocess": {"page_kit", "reward_score"},
    f"{RECIPE}.validation": set(),
    f"{RECIPE}.rivals": set(),
    f"{RECIPE}.trust_estimator": set(),
    f"{RECIPE}.trust_grpo": {f"{RECIPE}.rivals", f"{RECIPE}.trust_estimator", f"{RECIPE}.validation"},
    f"{RECIPE}.trm": {f"{RECIPE}.validation"},
    f"{RECIPE}.verl_support": set(),
    f"{RECIPE}.trm_training": {
        f"{RECIPE}.trm",
        f"{RECIPE}.trust_grpo",
        f"{RECIPE}.validation",
        f"{RECIPE}.verl_support",
        f"{RECIPE}.data_files",
        f"{RECIPE}.hydra_errors",
        "data_preprocess",
        "page_kit",
        "reward_score",
    },
    f"{RECIPE}.data_files": {f"{RECIPE}.validation"},
    f"{RECIPE}.hydra_errors": {f"{RECIPE}.validation"},
    "recipe": {
        f"{RECIPE}.rivals",
        f"{RECIPE}.trm",
        f"{RECIPE}.trust_grpo",
        f"{RECIPE}.validation",
        f"{RECIPE}.verl_support",
        f"{RECIPE}.data_files",
        f"{RECIPE}.hydra_errors",
        "data_preprocess",
        "page_kit",
        "reward_score",
    },
    # Commands on models, which no training run loads.
    f"{RECIPE}.evaluate": {
        "recipe",
        f"{RECIPE}.trm",
        f"{RECIPE}.trm_training",
        f"{RECIPE}.trust_grpo",
        f"{RECIPE}.validation",
        f"{RECIPE}.verl_support",
        "data_preprocess",
        "page_kit",
        "reward_score",
    },
    f"{RECIPE}.infer": {
        f"{RECIPE}.evaluate",
        f"{RECIPE}.trm",
        f"{RECIPE}.trm_training",
        f"{RECIPE}.validation",
        "data_preprocess",
        "page_kit",
        "reward_score",
    },
    f"{RECIPE}.study": {
        "recipe",
        f"{RECIPE}.trm",
        f"{RECIPE}.trm_training",
        f"{RECIPE}.validation",
        f"{RECIPE}.verl_support",
        f"{RECIPE}.data_files",
        "data_preprocess",
        "page_kit",
        "reward_score",
    },
    "testbed": {"recipe", f"{RECIPE}.trm", f"{RECIPE}.trust_grpo", f"{RECIPE}.verl_support", "data_preprocess"},
    "benchmarks": {
        "testbed",
        "recipe",
        f"{RECIPE}.trm",
        f"{RECIPE}.trust_estimator",
        f"{RECIPE}.verl_support",
        "data_preprocess",
        "page_kit",
    },
}


@cache
def sources() -> dict[str, Path]:
    """Each module of the project by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in (REPOSITORY / package).rglob("*.py"):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports() -> nx.DiGraph:
    """Module to module, wherever in the file the import stands."""
    graph = nx.DiGraph()
    for module, path in sources().items():
        graph.add_node(module)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                assert node.level == 0, f"{path}: a relative import"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            assert not any(name.split(".")[0] == "tests" for name in names), f"{path} imports from tests"
            for name in names:
                target = name if name in sources() else name.rpartition(".")[0]
                if target in sources() and target != module:
                    graph.add_edge(module, target)
    return graph


def part_of(module: str) -> str:
    """The most specific part that the module belongs to."""
    inside = [part for part in ALLOWED if module == part or module.startswith(f"{part}.")]
    return max(inside, key=len)


def test_the_imports_were_read() -> None:
    assert imports().has_edge(f"{RECIPE}.trainer", f"{RECIPE}.reward_manager")
    assert any(target.startswith("reward_score") for _, target in imports().edges)


def test_the_imports_have_no_cycle() -> None:
    cycles = list(nx.simple_cycles(imports()))
    assert not cycles, f"these modules import each other: {cycles}"


@pytest.mark.parametrize("part", ALLOWED)
def test_a_part_imports_only_what_it_may(part: str) -> None:
    wrong = [
        f"{module} imports {target}"
        for module, target in imports().edges
        if part_of(module) == part and part_of(target) not in ALLOWED[part] | {part}
    ]
    assert not wrong, f"{part} may import {sorted(ALLOWED[part]) or 'nothing'} only: {wrong}"


def loaded_by(statement: str) -> set[str]:
    """Names of all modules that a fresh interpreter has loaded after the statement."""
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("module", [f"{RECIPE}.trust_grpo", "reward_score", f"{RECIPE}.trm.client"])
def test_the_rules_and_the_client_need_no_engine(module: str) -> None:
    loaded = loaded_by(f"import {module}")
    assert module in loaded
    assert loaded.isdisjoint({"torch", "verl", "ray", "vllm"})


def test_a_training_run_loads_nothing_of_making_a_trm() -> None:
    reachable = nx.descendants(imports(), f"{RECIPE}.main_sophiavl") | nx.descendants(imports(), f"{RECIPE}.plugin")
    assert f"{RECIPE}.reward_manager" in reachable
    assert not [module for module in reachable if module.startswith(f"{RECIPE}.trm_training")]
