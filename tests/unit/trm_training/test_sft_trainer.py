"""Freezing takes the vision encoder out of the training, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import AutoConfig, Qwen2_5_VLForConditionalGeneration

from recipe.sophiavl.trm_training.sft_trainer import freeze_vision
from recipe.sophiavl.validation import SettingsError
from testbed.training import REPOSITORY

POLICY = REPOSITORY / "examples/quickstart/models/policy"


def test_the_vision_encoder_gets_no_gradient_and_the_rest_does():
    model = Qwen2_5_VLForConditionalGeneration(AutoConfig.from_pretrained(POLICY))
    count = freeze_vision(model)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert count == len(frozen) == len(list(model.model.visual.parameters()))
    assert all(name.startswith("model.visual.") for name in frozen)
    assert "lm_head.weight" in trained


def test_a_name_that_only_contains_a_known_one_is_trained():
    model = nn.ModuleDict({"vision_tower": nn.Linear(2, 2), "visual_words": nn.Linear(2, 2)})
    assert freeze_vision(model) == 2
    assert model["visual_words"].weight.requires_grad


def test_a_model_without_a_vision_encoder_is_refused():
    with pytest.raises(SettingsError, match="Sequential has no module called visual"):
        freeze_vision(torch.nn.Sequential(nn.Linear(2, 2)))
