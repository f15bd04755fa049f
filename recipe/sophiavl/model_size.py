"""How large a model is, from its config.json alone: what a plan of a run computes memory with. No weights are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Models whose config.json need not be at hand, by the beginning of their names: width, MLP width, layers, key-value
# heads, heads, words, tied embeddings; width of the vision encoder's MLP. From their config.json.
_KNOWN = {
    "Qwen2.5-VL-3B": (2048, 11008, 36, 2, 16, 151936, True, 3420),
    "Qwen2.5-VL-7B": (3584, 18944, 28, 4, 28, 152064, False, 3420),
    "Qwen2.5-VL-32B": (5120, 27648, 64, 8, 40, 152064, False, 3456),
    "Qwen2.5-VL-72B": (8192, 29568, 80, 8, 64, 152064, False, 3456),
}


@dataclass(frozen=True)
class ModelSize:
    """Numbers of one model.

    Attributes:
        parameters: of the model itself.
        adapters: parameters of the adapters (LoRA) beside it, which alone are trained then; else 0.
        kv_values: numbers that one token puts into the KV cache: 2 x layers x key-value heads x head width; None for an
            attention that is not of this kind.
        vocabulary: number of words, which is the width of the logits.
    """

    parameters: int
    adapters: int
    kv_values: int | None
    vocabulary: int

    @property
    def trained(self) -> int:
        """Parameters that the run trains."""
        return self.adapters or self.parameters


def model_size(model: DictConfig) -> ModelSize | None:
    """The size of ``actor_rollout_ref.model``.

    Its parameters are counted by building it, and its adapters, as verl does, on torch's device ``meta``, which holds
    no values.

    Returns:
        None where the configuration is neither in a local folder, nor in the hub's cache, nor known.

    Raises:
        ValueError: peft finds nothing that ``target_modules`` names.
    """
    config = _configuration(model.hf_config_path or model.path, model.trust_remote_code)
    if config is None:
        return None
    import torch
    from verl.utils.model import get_hf_auto_model_class

    with torch.device("meta"):
        module = get_hf_auto_model_class(config).from_config(config, trust_remote_code=model.trust_remote_code)
    parameters = sum(values.numel() for values in module.parameters())
    text = config.get_text_config()
    return ModelSize(parameters, _adapters(module, model), _kv_values(text), text.vocab_size)


def _configuration(path: str, trust_remote_code: bool) -> PretrainedConfig | None:
    from transformers import AutoConfig
    from transformers.models.qwen2_5_vl import Qwen2_5_VLConfig

    folder = Path(path).expanduser()
    try:
        return AutoConfig.from_pretrained(
            str(folder) if folder.is_dir() else path, local_files_only=True, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError):  # not at hand, damaged, or of no type that transformers knows
        known = [size for name, size in _KNOWN.items() if path.rpartition("/")[2].startswith(name)]
    if not known or folder.is_dir():
        return None
    width, mlp, layers, kv_heads, heads, words, tied, vision_mlp = known[0]
    return Qwen2_5_VLConfig(
        text_config={
            "hidden_size": width,
            "intermediate_size": mlp,
            "num_hidden_layers": layers,
            "num_key_value_heads": kv_heads,
            "num_attention_heads": heads,
            "vocab_size": words,
            "tie_word_embeddings": tied,
        },
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": vision_mlp,
            "num_heads": 16,
            "out_hidden_size": width,
        },
        tie_word_embeddings=tied,
        architectures=["Qwen2_5_VLForConditionalGeneration"],
    )


def _adapters(module: Any, model: DictConfig) -> int:
    if model.lora_rank <= 0:
        return 0
    import torch
    from peft import LoraConfig, get_peft_model

    plain = OmegaConf.to_container(model, resolve=True)
    chosen = {name: plain.get(name) for name in ("target_modules", "target_parameters", "exclude_modules")}
    with torch.device("meta"):
        adapted = get_peft_model(module, LoraConfig(r=model.lora_rank, **chosen))
    return sum(values.numel() for values in adapted.parameters() if values.requires_grad)


def _kv_values(text: PretrainedConfig) -> int | None:
    heads = getattr(text, "num_attention_heads", None)
    kv_heads = getattr(text, "num_key_value_heads", heads)
    width = getattr(text, "head_dim", None) or (text.hidden_size // heads if heads else None)
    if not kv_heads or not width or hasattr(text, "kv_lora_rank"):  # the last: latent attention
        return None
    return 2 * text.num_hidden_layers * kv_heads * width
