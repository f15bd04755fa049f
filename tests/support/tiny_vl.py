"""A random-weight Qwen2.5-VL small enough to serve on a laptop CPU in seconds.

It answers nonsense, but as a real model does: real tokenizer, chat template, image processor, vision tower and
log-probabilities.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # they take seconds to import: only building a model does so
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

# The control tokens of Qwen2.5-VL, in its order.
CONTROL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT_TEMPLATE = """\
{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}\
{% if part.type in ('image', 'image_url') %}<|vision_start|><|image_pad|><|vision_end|>\
{% elif part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
# A text to learn merges from; digits stay single tokens, as in Qwen's own tokenizer.
TRAINING_TEXT = (
    "You grade the reasoning of another model about a question with images. Logical soundness, correct reasoning, "
    "error identification, language consistency, redundancy. The image shows a square, a circle, a triangle; the angle "
    "equals the sum of both, so the answer is yes. Reply with the grade only. BEGIN REASONING END REASONING score\n"
)
HIDDEN = 32
PATCH = 14
MERGED_PATCH = 2 * PATCH


def build_tiny_vl(
    folder: Path, *, seed: int = 0, vocabulary: int = 512, max_image_tokens: int = 16, text: str = TRAINING_TEXT
) -> Path:
    """Write model, tokenizer and image processor to `folder`, and return it. Needs torch and transformers.

    Args:
        folder: where to; made if missing.
        seed: of the random weights.
        vocabulary: tokens beside the control tokens, at least 256.
        max_image_tokens: most tokens that one image becomes.
        text: what the tokenizer learns its merges from; on such text it needs as few tokens as a large one does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _build_tokenizer(vocabulary, text)
    tokenizer.save_pretrained(folder)
    _build_model(tokenizer, seed).save_pretrained(folder)
    _write_processor(folder, max_image_tokens)
    return folder


def _build_tokenizer(vocabulary: int, text: str) -> PreTrainedTokenizerFast:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(
                Regex(
                    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
                    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
                ),
                behavior="isolated",
            ),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([text] * 4, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(CONTROL_TOKENS[1:]),
        model_max_length=32768,
        chat_template=CHAT_TEMPLATE,
    )


def _build_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> PreTrainedModel:
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in CONTROL_TOKENS}
    ends = {
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": HIDDEN,
            "intermediate_size": 2 * HIDDEN,
            "num_hidden_layers": 2,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": False,
            "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6], "rope_type": "default", "rope_theta": 1e4},
            **ends,
        },
        vision_config={
            "depth": 2,
            "hidden_size": HIDDEN,
            "num_heads": 1,
            "intermediate_size": 2 * HIDDEN,
            "out_hidden_size": HIDDEN,
            "patch_size": PATCH,
            "window_size": 8 * PATCH,
            "fullatt_block_indexes": [1],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config).to(torch.bfloat16)
    for name, value in ends.items():
        setattr(model.generation_config, name, value)
    return model


def _write_processor(folder: Path, max_image_tokens: int) -> None:
    image = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_convert_rgb": True,
        "rescale_factor": 1 / 255,
        "resample": 3,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "min_pixels": MERGED_PATCH**2,
        "max_pixels": max_image_tokens * MERGED_PATCH**2,
        "patch_size": PATCH,
        "temporal_patch_size": 2,
        "merge_size": 2,
    }
    video = {**image, "image_processor_type": None, "video_processor_type": "Qwen2VLVideoProcessor"}
    for name, content in (
        ("preprocessor_config.json", image),
        ("video_preprocessor_config.json", video),
        ("processor_config.json", {"processor_class": "Qwen2_5_VLProcessor"}),
    ):
        (folder / name).write_text(json.dumps(content, indent=1))
