"""Adapters that would not be trained, or not reach the rollout server, are refused with the setting to change."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipe.sophiavl.lora_checks import check_lora
from recipe.sophiavl.model_checks import check_models
from recipe.sophiavl.validation import SettingsError
from tests.unit.test_checks import EXTERNAL, composed

POLICY = Path(__file__).parents[2] / "examples/quickstart/models/policy"
MODEL = "actor_rollout_ref.model"
LORA = (*EXTERNAL, f"{MODEL}.path={POLICY}", f"{MODEL}.lora_rank=8")
LANGUAGE = f"{MODEL}.exclude_modules=.*visual.*"
SEPARATE = "trainer.v1.trainer_mode=separate_async"


def check(*overrides: str) -> None:
    config = composed(*overrides)
    check_lora(config)
    check_models(config)


@pytest.mark.parametrize(
    "overrides",
    [
        (*LORA, LANGUAGE),
        (*LORA, f"{MODEL}.target_modules=[q_proj,k_proj,v_proj,o_proj]"),
        (*LORA, f"{MODEL}.lora.merge=true", SEPARATE),
        (*LORA, "+actor_rollout_ref.rollout.engine_kwargs.vllm.enable_tower_connector_lora=true"),
        (*EXTERNAL, "preset=lora", f"{MODEL}.path={POLICY}"),
        (*EXTERNAL, "preset=lora", f"{MODEL}.path={POLICY}", "trainer.v1.trainer_mode=colocate_async"),
        (*EXTERNAL, f"{MODEL}.path={POLICY}"),
    ],
    ids=" ".join,
)
def test_these_would_reach_the_rollout_server(overrides: tuple[str, ...]) -> None:
    check(*overrides)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ((f"{MODEL}.lora_rank=0", f"{MODEL}.lora.rank=8"), [f"{MODEL}.lora.rank=8", "lora_rank=0"]),
        ((f"{MODEL}.lora_rank=0", f"{MODEL}.lora_adapter_path=here"), [f"{MODEL}.lora_adapter_path=here"]),
        ((LANGUAGE, SEPARATE), ["'separate_async'", "never the adapters", "lora.merge=true", "colocate_async"]),
        (("actor_rollout_ref.rollout.layered_summon=true",), ["load_format='dummy'", "safetensors"]),
        (
            (),
            ["target_modules=all-linear", "17 modules", "model.visual.blocks.0.attn.qkv", "exclude_modules='.*visual"],
        ),
        # the vision encoder's MLP has the same names as the language model's
        ((f"{MODEL}.target_modules=[q_proj,gate_proj]",), ["model.visual.blocks.0.mlp.gate_proj"]),
        ((f"{MODEL}.target_modules=[query]",), ["target_modules=['query']", "not found"]),
        ((f"{MODEL}.exclude_modules=.*proj.*|.*qkv.*|.*mlp.*",), ["exclude_modules=.*proj"]),
    ],
    ids=str,
)
def test_these_are_refused(overrides: tuple[str, ...], says: list[str]) -> None:
    with pytest.raises(SettingsError) as refusal:
        check(*LORA, *overrides)
    for part in says:
        assert part in str(refusal.value)
