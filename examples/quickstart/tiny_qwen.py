"""A Qwen2.5-VL of about one million parameters for rows of pictures: configuration, tokenizer, image processor."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig

from data_preprocess.easy_vqa import PICTURE_SIDE, PLACES

# Qwen2.5-VL's control tokens, in its order.
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
VOCABULARY = 512
HIDDEN = 128
HEAD = 32
VISION_HIDDEN = 96
ROPE_THETA = 100.0
PATCH = 14
MERGE = 2
TEMPORAL_PATCH = 2
PIXELS = len(PLACES) * PICTURE_SIDE**2
IMAGE_TOKENS = PIXELS // (PATCH * MERGE) ** 2
# One token each: they stand in every response.
TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def train_tokenizer(texts: Iterable[str], vocabulary: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """A byte-level BPE of the texts with Qwen's control tokens; every string can be encoded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in TAGS])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(CONTROL_TOKENS[1:]),
        model_max_length=4096,
        chat_template=CHAT_TEMPLATE,
    )


def model_config(tokenizer: PreTrainedTokenizerFast, context: int = 4096) -> Qwen2_5_VLConfig:
    """The architecture of Qwen2.5-VL at a hundredth of its width; the vocabulary is exactly the tokenizer's."""
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in CONTROL_TOKENS}
    ends = {
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    # Faster frequencies than Qwen's, most of them for an image token's column: texts are short and rows are wide.
    rope = {"type": "mrope", "mrope_section": [2, 2, 12], "rope_type": "default", "rope_theta": ROPE_THETA}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": HIDDEN,
            "intermediate_size": 2 * HIDDEN,
            "num_hidden_layers": 3,
            "num_attention_heads": HIDDEN // HEAD,
            "num_key_value_heads": HIDDEN // HEAD // 2,
            "max_position_embeddings": context,
            "max_window_layers": 3,
            "use_sliding_window": False,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": False,
            "rope_theta": ROPE_THETA,
            "rope_scaling": rope,
            **ends,
        },
        vision_config={
            "depth": 3,
            "hidden_size": VISION_HIDDEN,
            "num_heads": VISION_HIDDEN // HEAD,
            "intermediate_size": 2 * VISION_HIDDEN,
            "out_hidden_size": HIDDEN,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": TEMPORAL_PATCH,
            "window_size": PICTURE_SIDE,  # only the last block looks across pictures
            "fullatt_block_indexes": [2],
            "tokens_per_second": 2,
            "in_channels": 3,
            "in_chans": 3,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
    )
    for name, value in ends.items():
        setattr(config, name, value)
    return config


def save_processor(
    tokenizer: PreTrainedTokenizerFast, folder: Path, pixels: tuple[int, int] = (PIXELS, PIXELS)
) -> None:
    """Write tokenizer and image processor: every image gets this many pixels, at least and at most (a scene's)."""
    tokenizer.save_pretrained(folder)
    image = {
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_convert_rgb": True,
        "rescale_factor": 1 / 255,
        "resample": 3,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "min_pixels": pixels[0],
        "max_pixels": pixels[1],
        "patch_size": PATCH,
        "temporal_patch_size": TEMPORAL_PATCH,
        "merge_size": MERGE,
        "processor_class": "Qwen2_5_VLProcessor",
    }
    video = {**image, "video_processor_type": "Qwen2VLVideoProcessor", "min_frames": 4, "max_frames": 8, "fps": 2.0}
    files = {
        "preprocessor_config.json": {**image, "image_processor_type": "Qwen2VLImageProcessor"},
        "video_preprocessor_config.json": {**video, "do_sample_frames": False},
        "processor_config.json": {"processor_class": "Qwen2_5_VLProcessor"},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1) + "\n")
