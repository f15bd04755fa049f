"""The grid of a study: which runs there are, and what each of them is trained with."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol

import yaml
from pydantic import Field, TypeAdapter

from recipe.sophiavl.validation import SettingsError, did_you_mean, settings_group

NO_REWARD_MODEL = "none"
START = "start"  # the variant that is the untrained policy
_NAME = re.compile(r"[a-z0-9_]+")
_START = ("thinking_reward=outcome_only", "trainer.val_before_train=true", "trainer.val_only=true")


class Assessment(Protocol):
    """What is known of the thinking of a response: its ``score`` in [0, 1], and the ``form`` it was written in."""

    score: float
    form: str


Judge = Callable[[str, Sequence[bytes], str], Assessment]
"""Knows the truth about the thinking of a response: (question, encoded images, thinking)."""


@dataclass(frozen=True)
class Cell:
    """One run of a study."""

    variant: str
    reward_model: str
    seed: int

    @property
    def name(self) -> str:
        """Its name, also of its files."""
        return f"{self.variant}.{self.reward_model}.{self.seed}"


@settings_group("block")
class Block:
    """Variants x reward models x seeds.

    Attributes:
        variants: names of variants.
        reward_models: names of reward models; ``none`` for variants that ask none.
        seeds: how many, from 1.
    """

    variants: Annotated[list[str], Field(min_length=1)]
    reward_models: Annotated[list[str], Field(min_length=1)]
    seeds: Annotated[int, Field(ge=1)]


@settings_group("study")
class Study:
    """A study as its YAML file tells it.

    Attributes:
        settings: Hydra overrides of every run.
        variants: further overrides, by the variant's name.
        reward_models: the command that serves each reward model as ``trm`` at ``http://127.0.0.1:{port}/v1``, by name;
            ``{port}`` and ``{seed}`` (the run's) are put in.
        judge: what knows the truth about the thinking of a response, ``package.module:function``; see `Judge`.
        grid: blocks of runs, the most important first.
    """

    settings: list[str]
    variants: dict[str, list[str]]
    reward_models: dict[str, str]
    judge: str
    grid: Annotated[list[dict[str, Any]], Field(min_length=1)]
    blocks: list[Block] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        names = [*self.variants, *self.reward_models]
        if wrong := [name for name in names if not _NAME.fullmatch(name)]:
            raise SettingsError(f"{wrong[0]!r} can't name a variant or a reward model: use a-z, 0-9 and _")
        if taken := {START, NO_REWARD_MODEL} & set(names):
            raise SettingsError(f"{taken.pop()!r} has a meaning of its own: name it otherwise")
        for values in self.grid:
            block = Block(**values)
            _check_known("variants", block.variants, self.variants)
            _check_known("reward_models", block.reward_models, [*self.reward_models, NO_REWARD_MODEL])
            self.blocks.append(block)

    def cells(self) -> list[Cell]:
        """All runs, in the order in which they are made: the untrained policy first, then block by block, and within a
        block seed by seed, so that a part of the grid can be compared already."""
        return list(dict.fromkeys([Cell(START, NO_REWARD_MODEL, 0), *self._cells()]))

    def _cells(self) -> Iterator[Cell]:
        for block in self.blocks:
            for seed in range(1, block.seeds + 1):
                for reward_model in block.reward_models:
                    yield from (Cell(variant, reward_model, seed) for variant in block.variants)

    def overrides(self, cell: Cell) -> list[str]:
        """The Hydra overrides of a run, beside where it writes and whom it asks."""
        if cell.variant == START:
            return [*self.settings, *_START]
        seeds = [f"data.seed={cell.seed}", f"actor_rollout_ref.rollout.seed={cell.seed}"]
        return [*self.settings, *self.variants[cell.variant], *seeds]

    def command(self, cell: Cell, port: int) -> str:
        """The shell words that serve the run's reward model; "" where it has none."""
        if cell.reward_model == NO_REWARD_MODEL:
            return ""
        return self.reward_models[cell.reward_model].format(port=port, seed=cell.seed)


def load_study(file: Path) -> Study:
    """A study from its YAML file.

    Raises:
        SettingsError: the file can't be read, or something in it is wrong.
    """
    try:
        given = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{file}: no study: {error}") from error
    if not isinstance(given, Mapping):
        raise SettingsError(f"{file}: no study: it should hold settings, variants, reward_models, judge and grid")
    try:
        return Study(**TypeAdapter(dict[str, Any]).validate_python(given))
    except SettingsError as error:
        raise SettingsError(f"{file}: {error}") from error


def load_judge(name: str) -> Judge:
    """The function that ``package.module:function`` names.

    Raises:
        SettingsError: there is none.
    """
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError(f"judge={name}: no such function ({error}); give package.module:function") from error


def _check_known(what: str, names: Sequence[str], known: Sequence[str] | Mapping[str, Any]) -> None:
    for name in names:
        if name not in known:
            raise SettingsError(f"grid: {what} has no {name!r}{did_you_mean(name, known)}")
