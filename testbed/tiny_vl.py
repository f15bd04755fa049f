"""A random-weight Qwen2.5-VL small enough to serve on a laptop CPU in seconds: the quickstart's, untrained.

It answers nonsense, but as a real model does: real tokenizer, chat template, image processor, vision tower and
log-probabilities.
"""

from __future__ import annotations

from pathlib import Path

# A text to learn merges from.
TRAINING_TEXT = (
    "You grade the reasoning of another model about a question with images. Logical soundness, correct reasoning, "
    "error identification, language consistency, redundancy. The image shows a square, a circle, a triangle; the angle "
    "equals the sum of both, so the answer is yes. Reply with the grade only. BEGIN REASONING END REASONING score\n"
)


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
    import torch  # these take seconds to import: only building a model does so
    from transformers import Qwen2_5_VLForConditionalGeneration

    from examples.quickstart.tiny_qwen import MERGE, PATCH, model_config, save_processor, train_tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer([text] * 4, vocabulary)
    config = model_config(tokenizer, context=8192)
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config).to(torch.bfloat16)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(model.generation_config, name, getattr(config, name))
    model.save_pretrained(folder)
    token = (PATCH * MERGE) ** 2
    save_processor(tokenizer, folder, (token, max_image_tokens * token))
    return folder
