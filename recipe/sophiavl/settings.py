"""The Hydra groups ``thinking_reward`` and ``sophiavl`` as typed settings, checked at start.

The YAML files under ``config/`` document every key. ``thinking_reward`` is one group for its user and four here: what
the manager does, the outcome reward (`OutcomeSettings`), Trust-GRPO (`TrustGRPOConfig`), and the client
(`ClientSettings`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, fields
from typing import Annotated, Any, Literal

from omegaconf import DictConfig
from pydantic import AfterValidator, Field

from recipe.sophiavl.trm.client_settings import ClientSettings
from recipe.sophiavl.trust_grpo import TrustGRPOConfig
from recipe.sophiavl.validation import (
    SettingsError,
    did_you_mean,
    make,
    no_such_setting,
    plain,
    read_group,
    settings_group,
)
from reward_score import PROBLEM_TYPES, OutcomeSettings

# Under this name verl finds our reward manager (reward.reward_manager.name).
REWARD_MANAGER_NAME = "sophiavl"

Share = Annotated[float, Field(ge=0, le=1)]
ValidationMode = Literal["as_configured", "sampled", "greedy"]


def _each_once(values: list[str]) -> list[str]:
    if len(set(values)) != len(values):
        raise ValueError("each at most once")
    return values


@settings_group("thinking_reward")
class ThinkingRewardSettings:
    """The ``thinking_reward`` group.

    Attributes:
        enable: ask the thinking reward model at all; False is plain GRPO on the outcome reward.
        mode: where the TRM runs: ``external`` (``urls``), ``pool`` or ``colocated`` (``reward.reward_model``).
        score_validation: ask the TRM for validation responses too (their reward stays the outcome).
        preflight: check the TRM before the first rollout.
        max_missing_frac: stop when more than this share of the asked scores is missing over the window, in [0, 1].
        max_dropped_groups_frac: stop when more than this share of the groups lost their thinking term to missing
            scores over the window, in [0, 1].
        missing_window_steps: length of that window in training steps, >= 1.
        outcome: what counts as a right answer (``reward_score/settings.py``).
        trust: trust weight and annealing (``trust_grpo.py``).
        client: the TRM client's settings. ``urls`` and ``model`` are filled in at run time unless mode is external.
    """

    enable: bool = True
    mode: Literal["external", "pool", "colocated"] = "external"
    score_validation: bool = False
    preflight: bool = True
    max_missing_frac: Share = 0.5
    max_dropped_groups_frac: Share = 0.5
    missing_window_steps: Annotated[int, Field(ge=1)] = 5
    outcome: OutcomeSettings = field(default_factory=OutcomeSettings)
    trust: TrustGRPOConfig = field(default_factory=TrustGRPOConfig)
    client: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = {name.lower() for name in PROBLEM_TYPES}
        if unknown := sorted(self.trust.correct_threshold_by_type.keys() - known):
            raise SettingsError(
                f"thinking_reward.correct_threshold_by_type={unknown[0]!r}: no such answer type"
                f"{did_you_mean(unknown[0], known)}; known are {', '.join(sorted(known))}"
            )
        if not self.enable:
            return
        if self.mode == "external":
            if not self.client.get("urls"):
                raise SettingsError(
                    f"thinking_reward.urls={self.client.get('urls')!r}: name the TRM's OpenAI-compatible base URL, "
                    "such as http://localhost:8000/v1 (several: [URL,URL]), or set thinking_reward.enable=false"
                )
            wish = self.client_settings().structured_output
            if wish in ("auto", "on") and not self.preflight:
                raise SettingsError(
                    f"thinking_reward.structured_output={wish!r}: the preflight finds out what the servers have, and "
                    "thinking_reward.preflight=False: set choice (vLLM), json_schema or off, or preflight=true"
                )
        else:
            self.client_settings(router_address="router:1", model="model")

    @property
    def needs_verl_hosting(self) -> bool:
        """Whether verl itself has to host the TRM (``reward.reward_model``)."""
        return self.enable and self.mode != "external"

    def client_settings(self, router_address: str | None = None, model: str | None = None) -> ClientSettings:
        """The TRM client's settings.

        Args:
            router_address: for the modes that verl hosts, the servers as ``host:port,host:port``.
            model: the model name that the hosted server answers to.
        """
        if self.mode == "external":
            return ClientSettings(**self.client)
        if router_address is None:
            raise SettingsError(
                f"thinking_reward.mode={self.mode!r}: verl hosts no reward model: set reward.reward_model.enable=true, "
                "or use thinking_reward.mode=external"
            )
        urls = [f"http://{address}/v1" for address in router_address.split(",")]
        hosted = {"urls": urls, "model": model}
        if self.client.get("structured_output") in ("auto", "on"):
            hosted["structured_output"] = (
                "choice"  # verl hosts vLLM, unless reward.reward_model.rollout.name says other
            )
        return ClientSettings(**self.client | hosted)

    @classmethod
    def from_config(cls, group: DictConfig | Mapping[str, Any]) -> ThinkingRewardSettings:
        """Read the ``thinking_reward`` group.

        Raises:
            SettingsError: an unknown key, or a value out of range.
        """
        parts = {
            None: {f.name for f in fields(cls)} - {"outcome", "trust", "client"},
            "outcome": {f.name for f in fields(OutcomeSettings)},
            "trust": {f.name for f in fields(TrustGRPOConfig)},
            "client": {f.name for f in fields(ClientSettings)},
        }
        values = plain(group)
        known = set().union(*parts.values())
        if unknown := sorted(values.keys() - known):
            told = (f"thinking_reward.{name}: {no_such_setting(name, known)}" for name in unknown)
            raise SettingsError("\n".join(told))
        own, outcome, trust, client = ({key: values[key] for key in names & values.keys()} for names in parts.values())
        outcome = make("thinking_reward", OutcomeSettings, outcome)
        return cls(**own, outcome=outcome, trust=TrustGRPOConfig(**trust), client=client)


@settings_group("sophiavl")
class EngineSettings:
    """The ``sophiavl`` group: guards and pace of the engine, independent of the thinking reward.

    Attributes:
        dry_run: compose, validate, print a plan of the run (``full``: the whole configuration), and exit.
        gpu_memory_gb: memory of one GPU for that plan, in GB of 10^9 bytes, > 0; None: of the GPU here, else 80.
        validation_modes: how each validation samples, once for each: ``as_configured`` (verl's ``val_kwargs``),
            ``sampled`` (as in training), ``greedy``. The first one keeps verl's metric names and dumps.
        replay_poll_interval_s: pause between two looks of verl's replay buffer at the rollout, in seconds (> 0).
        check_rollout: compare the rollout's token probabilities with the actor's at every step; stop if they differ
            throughout a window.
        rollout_window_steps: length of that window in training steps, >= 1.
        min_rollout_correlation: lowest Pearson correlation accepted, in (0, 1].
        max_rollout_diff: the correlation counts only where the mean absolute difference of the probabilities exceeds
            this, in [0, 1]: a nearly deterministic policy has no spread to correlate.
        log_groups: how many groups of a step a logger gets to show (``loggers.py``), in [0, 32]; 0: none.
        log_groups_freq: at the first training step and at every so many, >= 1.
        report: write the run's page once it has come to its end.
    """

    dry_run: Literal[False, True, "full"] = False
    gpu_memory_gb: Annotated[float, Field(gt=0)] | None = None
    validation_modes: Annotated[list[ValidationMode], Field(min_length=1), AfterValidator(_each_once)] = field(
        default_factory=lambda: ["as_configured"]
    )
    replay_poll_interval_s: Annotated[float, Field(gt=0)] = 0.1
    check_rollout: bool = True
    rollout_window_steps: Annotated[int, Field(ge=1)] = 3
    min_rollout_correlation: Annotated[float, Field(gt=0, le=1)] = 0.95
    max_rollout_diff: Share = 0.005
    log_groups: Annotated[int, Field(ge=0, le=32)] = 2
    log_groups_freq: Annotated[int, Field(ge=1)] = 20
    report: bool = True

    @classmethod
    def from_config(cls, group: DictConfig | Mapping[str, Any]) -> EngineSettings:
        """Read the ``sophiavl`` group. Raises SettingsError on an unknown key or a value out of range."""
        return read_group(cls, group)
