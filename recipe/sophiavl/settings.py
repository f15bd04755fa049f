"""The Hydra groups ``thinking_reward`` and ``sophiavl`` as typed, validated settings.

The YAML files under ``config/`` document every key. Here they become frozen dataclasses; whatever is wrong raises
``SettingsError`` at start, with the key, the value, and what to change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recipe.sophiavl.trm.client_settings import ClientConfig
from recipe.sophiavl.trust_grpo import TrustGRPOConfig

# Under this name verl finds our reward manager (reward.reward_manager.name).
REWARD_MANAGER_NAME = "sophiavl"

MODES = ("external", "pool", "colocated")
OCR_REWARDS = ("exp", "linear")

_TRUST_KEYS = tuple(f.name for f in fields(TrustGRPOConfig))
_CLIENT_KEYS = tuple(f.name for f in fields(ClientConfig))


class SettingsError(ValueError):
    """A setting is wrong; the message names it, its value, and what to change."""


def _require(condition: bool, key: str, value: Any, advice: str) -> None:
    if not condition:
        raise SettingsError(f"{key}={value!r}: {advice}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class ThinkingRewardSettings:
    """The ``thinking_reward`` group.

    Attributes:
        enable: ask the thinking reward model at all; False is plain GRPO on the outcome reward.
        mode: where the TRM runs: ``external`` (``urls``), ``pool`` or ``colocated`` (``reward.reward_model``).
        score_validation: ask the TRM for validation responses too (their reward stays the outcome).
        ocr_reward: outcome of OCR questions: ``exp`` = exp(-WER), ``linear`` = 1 - WER clipped to [0, 1].
        preflight: check the TRM before the first rollout.
        max_missing_frac: stop when more than this share of the asked scores is missing over the window, in [0, 1].
        missing_window_steps: length of that window in training steps, >= 1.
        trust: trust weight and annealing (``trust_grpo.py``).
        client: the TRM client's settings. ``urls`` and ``model`` are filled in at run time unless mode is external.
    """

    enable: bool = True
    mode: str = "external"
    score_validation: bool = False
    ocr_reward: str = "exp"
    preflight: bool = True
    max_missing_frac: float = 0.5
    missing_window_steps: int = 5
    trust: TrustGRPOConfig = field(default_factory=TrustGRPOConfig)
    client: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in ("enable", "score_validation", "preflight"):
            value = getattr(self, key)
            _require(isinstance(value, bool), f"thinking_reward.{key}", value, "use true or false")
        _require(self.mode in MODES, "thinking_reward.mode", self.mode, f"use one of {', '.join(MODES)}")
        _require(
            self.ocr_reward in OCR_REWARDS,
            "thinking_reward.ocr_reward",
            self.ocr_reward,
            f"use one of {', '.join(OCR_REWARDS)}",
        )
        _require(
            _is_number(self.max_missing_frac) and 0 <= self.max_missing_frac <= 1,
            "thinking_reward.max_missing_frac",
            self.max_missing_frac,
            "use a share between 0 and 1 (1 never stops)",
        )
        _require(
            isinstance(self.missing_window_steps, int) and self.missing_window_steps >= 1,
            "thinking_reward.missing_window_steps",
            self.missing_window_steps,
            "use a whole number of steps, 1 or more",
        )
        if self.enable:
            self._check_client()

    def _check_client(self) -> None:
        if self.mode != "external":
            self.client_config(router_address="router:1", model="model")
            return
        _require(
            bool(self.client.get("urls")),
            "thinking_reward.urls",
            self.client.get("urls"),
            "name the TRM's OpenAI-compatible base URL, such as [http://localhost:8000/v1], "
            "or set thinking_reward.enable=false",
        )
        self.client_config()

    @property
    def needs_verl_hosting(self) -> bool:
        """Whether verl itself has to host the TRM (``reward.reward_model``)."""
        return self.enable and self.mode != "external"

    def client_config(self, router_address: str | None = None, model: str | None = None) -> ClientConfig:
        """The TRM client's settings.

        Args:
            router_address: ``host:port`` of verl's reward router, for the modes that verl hosts.
            model: the model name that the hosted server answers to.
        """
        values = dict(self.client)
        if self.mode != "external":
            _require(
                router_address is not None,
                "thinking_reward.mode",
                self.mode,
                "verl hosts no reward model: set reward.reward_model.enable=true, or use thinking_reward.mode=external",
            )
            values.update(urls=(f"http://{router_address}/v1",), model=model)
        values["urls"] = tuple(values.get("urls") or ())
        return ClientConfig(**values)

    @classmethod
    def from_config(cls, group: DictConfig | Mapping[str, Any]) -> ThinkingRewardSettings:
        """Read the ``thinking_reward`` group.

        Raises:
            SettingsError: an unknown key, or a value out of range.
        """
        values = _to_dict(group)
        own = {f.name for f in fields(cls)} - {"trust", "client"}
        unknown = set(values) - own - set(_TRUST_KEYS) - set(_CLIENT_KEYS)
        known = sorted(own | set(_TRUST_KEYS) | set(_CLIENT_KEYS))
        _require(not unknown, "thinking_reward", sorted(unknown), f"unknown settings; known are {', '.join(known)}")
        try:
            return cls(
                **{key: values[key] for key in own if key in values},
                trust=TrustGRPOConfig(**{key: values[key] for key in _TRUST_KEYS if key in values}),
                client={key: values[key] for key in _CLIENT_KEYS if key in values},
            )
        except SettingsError:
            raise
        except (TypeError, ValueError) as error:
            raise SettingsError(str(error)) from error


@dataclass(frozen=True)
class EngineSettings:
    """The ``sophiavl`` group: guards and pace of the engine, independent of the thinking reward.

    Attributes:
        dry_run: compose, validate, print the configuration, and exit.
        replay_poll_interval_s: pause between two looks of verl's replay buffer at the rollout, in seconds (> 0).
        check_rollout: compare the rollout's token probabilities with the actor's at every step; stop if they differ.
        min_rollout_correlation: lowest Pearson correlation accepted, in (0, 1].
        max_rollout_diff: the correlation counts only where the mean absolute difference of the probabilities exceeds
            this, in [0, 1]: a nearly deterministic policy has no spread to correlate.
    """

    dry_run: bool = False
    replay_poll_interval_s: float = 0.1
    check_rollout: bool = True
    min_rollout_correlation: float = 0.95
    max_rollout_diff: float = 0.005

    def __post_init__(self) -> None:
        for key in ("dry_run", "check_rollout"):
            _require(isinstance(getattr(self, key), bool), f"sophiavl.{key}", getattr(self, key), "use true or false")
        _require(
            _is_number(self.replay_poll_interval_s) and self.replay_poll_interval_s > 0,
            "sophiavl.replay_poll_interval_s",
            self.replay_poll_interval_s,
            "use a number of seconds above 0",
        )
        _require(
            _is_number(self.min_rollout_correlation) and 0 < self.min_rollout_correlation <= 1,
            "sophiavl.min_rollout_correlation",
            self.min_rollout_correlation,
            "use a correlation above 0 and at most 1",
        )
        _require(
            _is_number(self.max_rollout_diff) and 0 <= self.max_rollout_diff <= 1,
            "sophiavl.max_rollout_diff",
            self.max_rollout_diff,
            "use a probability difference between 0 and 1",
        )

    @classmethod
    def from_config(cls, group: DictConfig | Mapping[str, Any]) -> EngineSettings:
        """Read the ``sophiavl`` group. Raises SettingsError on an unknown key or a value out of range."""
        values = _to_dict(group)
        known = [f.name for f in fields(cls)]
        unknown = sorted(set(values) - set(known))
        _require(not unknown, "sophiavl", unknown, f"unknown settings; known are {', '.join(known)}")
        return cls(**values)


def _to_dict(group: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    return OmegaConf.to_container(group, resolve=True) if isinstance(group, DictConfig) else dict(group)
