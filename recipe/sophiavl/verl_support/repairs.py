"""Repairs of verl 0.9.1 that this recipe needs on GPUs as on CPUs. Each goes once upstream has it."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict
from wrapt import when_imported


def fix_3d_position_ids(data: TensorDict) -> None:
    """Give 3-D position ids of a VLM batch the right ragged dimension, in place.

    Replaces ``verl.utils.tensordict_utils.maybe_fix_3d_position_ids``. Position ids of one sample are (channels, L),
    with 3 or 4 channels; a batch of them is jagged in its last dimension, with values of shape (channels, sum of L).
    When every sequence of a batch has the same length, ``torch.nested.as_nested_tensor`` sees no ragged dimension,
    takes the first, and stores values of shape (batch * channels, L): verl's own fix then fails much later with
    "split_with_sizes expects split_sizes to sum exactly to ...".

    Args:
        data: a batch with or without ``position_ids``; only a nested 3-D tensor is touched.
    """
    if "position_ids" not in data.keys():  # noqa: SIM118  (iterating a TensorDict yields rows, not keys)
        return
    position_ids = data["position_ids"]
    if not (position_ids.is_nested and position_ids.dim() == 3):
        return
    values, total = position_ids.values(), int(position_ids.offsets()[-1])
    # In the right layout the last dimension of the values is the ragged one. A square tensor is right only if it is
    # as small as one sample's channels.
    rows_are_ragged = values.shape[0] == total and (values.shape[-1] != total or total > 4)
    if not rows_are_ragged:
        position_ids._ragged_idx = 2
        return
    batch_size, length = position_ids.size(0), values.shape[-1]
    samples = values.view(batch_size, -1, length)
    data["position_ids"] = torch.nested.nested_tensor_from_jagged(
        samples.transpose(0, 1).reshape(samples.size(1), batch_size * length),
        torch.arange(batch_size + 1, device=values.device) * length,
        jagged_dim=2,
    )


def text_only_input_embeds(model: Any, input_ids: torch.Tensor, unpack_visual_output: Any) -> torch.Tensor:
    """Embeddings of a micro-batch without any image, with the vision tower taking part in the graph at weight zero.

    All FSDP ranks must run the same modules, so verl runs the vision tower on one dummy patch grid and adds 0 times its
    output; the language model's input is unchanged. verl 0.9.1 takes ``.mean()`` of what ``model.visual`` returns,
    which is a ``BaseModelOutputWithPooling`` since transformers 5.

    Args:
        model: a Qwen2-VL or Qwen2.5-VL inner model.
        input_ids: token ids, any shape (..., L), int64.
        unpack_visual_output: verl's own helper that returns (embeddings, deepstack) for either return type.

    Returns:
        (..., L, hidden) embeddings, equal to the token embeddings.
    """
    embeds = model.get_input_embeddings()(input_ids)
    vision = model.config.vision_config
    patch_dim = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    pixels = torch.zeros((16, patch_dim), dtype=model.visual.dtype, device=embeds.device)
    grid = torch.tensor([[1, 4, 4]], dtype=torch.long, device=embeds.device)
    image_embeds, _ = unpack_visual_output(model.visual(pixels, grid_thw=grid))
    return embeds + 0.0 * image_embeds.mean().to(embeds.dtype)


def _fix_text_only_batches(qwen2_vl: Any) -> None:
    with_images = qwen2_vl._get_input_embeds

    def get_input_embeds(
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        *grids: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if pixel_values is None and pixel_values_videos is None:
            mask = None if attention_mask is None else attention_mask.to(input_ids.device)
            return text_only_input_embeds(model, input_ids, qwen2_vl.unpack_visual_output), mask
        return with_images(model, input_ids, attention_mask, pixel_values, pixel_values_videos, *grids)

    qwen2_vl._get_input_embeds = get_input_embeds


def install() -> None:
    """Apply the repairs to the modules that they concern, when those are imported."""

    @when_imported("verl.utils.tensordict_utils")
    def _position_ids(module: Any) -> None:
        module.maybe_fix_3d_position_ids = fix_3d_position_ids

    when_imported("verl.models.transformers.qwen2_vl")(_fix_text_only_batches)
