"""What is asked is, token for token, what training asks."""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf
from transformers import AutoProcessor

from recipe.sophiavl.evaluate.questions import images_of, messages_of
from recipe.sophiavl.rl_dataset import SophiaVLDataset
from tests.unit.evaluate.conftest import picture, row

POLICY = Path(__file__).resolve().parents[3] / "examples/quickstart/models/policy"


def test_the_prompt_is_that_of_training(write):
    rows = [
        row("is <image> as red as <image>?", images=[picture("red"), picture("blue", "JPEG")]),
        row("which?", "B", images=[picture("red")], problem_type="multiple choice", options=["a", "b"]),
        row("2 + 2?"),
    ]
    processor = AutoProcessor.from_pretrained(POLICY)
    config = OmegaConf.create({"filter_overlong_prompts": False, "max_prompt_length": 512})
    data = SophiaVLDataset(str(write(*rows)), processor.tokenizer, config, processor=processor)

    def rendered(messages):
        return processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)

    for number, asked in enumerate(rows):
        assert rendered(messages_of(asked, images_of(asked))) == rendered(data[number]["raw_prompt"])
