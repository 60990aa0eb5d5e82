"""How families of transformers VLMs differ: how pixels enter, how many tokens an image becomes.

A family is two small functions in the table at the end.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Inputs = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Family:
    """inputs(settings, pixels [B,N,3,H,W] normalised, tokens [B,T], token_mask [B,T]) → the
    model's keywords."""

    tokens_per_image: Callable[[Any, int], int]
    inputs: Callable[[Any, Tensor, Tensor, Tensor], Inputs]


def _patch_grid(settings: Any, image_size: int) -> int:
    return image_size // settings.vision_config.patch_size


def _idefics_tokens(settings: Any, image_size: int) -> int:
    return (_patch_grid(settings, image_size) // settings.scale_factor) ** 2


def _idefics_inputs(settings: Any, pixels: Tensor, tokens: Tensor, token_mask: Tensor) -> Inputs:
    return {"pixel_values": pixels}


def _qwen_tokens(settings: Any, image_size: int) -> int:
    return (_patch_grid(settings, image_size) // settings.vision_config.spatial_merge_size) ** 2


def _qwen_inputs(settings: Any, pixels: Tensor, tokens: Tensor, token_mask: Tensor) -> Inputs:
    """Patches in merge-block order, each repeated over the temporal patch; and their grid."""
    vision = settings.vision_config
    patch, merge, frames = vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
    images = pixels.flatten(0, 1)
    n, channels, height, _ = images.shape
    blocks = height // patch // merge
    x = images.view(n, channels, blocks, merge, patch, blocks, merge, patch)
    # → [n, block row, block column, row in block, column in block, channel, patch y, patch x]
    x = x.permute(0, 2, 5, 3, 6, 1, 4, 7)
    x = x[:, :, :, :, :, :, None].expand(*x.shape[:6], frames, patch, patch)
    grid = torch.tensor([[1, height // patch, height // patch]], device=pixels.device)
    return {
        "pixel_values": x.reshape(-1, channels * frames * patch * patch),
        "image_grid_thw": grid.expand(n, -1),
        "position_ids": mrope_positions(
            tokens == settings.image_token_id, token_mask, height // patch // merge
        ),
    }


def mrope_positions(is_image: Tensor, token_mask: Tensor, side: int) -> Tensor:
    """Qwen-VL's positions int64 [3,B,T] (time, row, column) for square images of side² tokens.

    Text counts on by one in all three; an image's tokens take its first position plus their row
    and column, and the text after it goes on `side` later. Transformers' own version copies the
    token types to the host at every step and takes adjacent images for one.
    """
    index = token_mask.long().cumsum(dim=1) - 1
    seen = is_image.long().cumsum(dim=1)
    within = torch.where(is_image, (seen - 1) % side**2, 0)
    images_before = torch.where(is_image, (seen - 1) // side**2, seen // side**2)
    start = index - within - images_before * (side**2 - side)
    positions = torch.stack((start, start + within // side, start + within % side))
    return positions.clamp_(min=0)


def _paligemma_tokens(settings: Any, image_size: int) -> int:
    return _patch_grid(settings, image_size) ** 2


def _gemma_inputs(settings: Any, pixels: Tensor, tokens: Tensor, token_mask: Tensor) -> Inputs:
    """token_type_ids mark image tokens, which see each other both ways in Gemma 3. PaliGemma reads
    0 as "prefix, attended both ways"; 1 everywhere keeps text causal, as in training."""
    images = {"pixel_values": pixels.flatten(0, 1)}
    is_image = (tokens == settings.image_token_id).long()
    if settings.model_type == "paligemma":
        return {**images, "token_type_ids": 1 - is_image}
    return {**images, "token_type_ids": is_image}


def _gemma3_tokens(settings: Any, image_size: int) -> int:
    return settings.mm_tokens_per_image


_IDEFICS = Family(tokens_per_image=_idefics_tokens, inputs=_idefics_inputs)
_QWEN = Family(tokens_per_image=_qwen_tokens, inputs=_qwen_inputs)
FAMILIES = {
    "idefics3": _IDEFICS,
    "smolvlm": _IDEFICS,
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": _QWEN,
    "qwen3_vl": _QWEN,
    "paligemma": Family(tokens_per_image=_paligemma_tokens, inputs=_gemma_inputs),
    "gemma3": Family(tokens_per_image=_gemma3_tokens, inputs=_gemma_inputs),
}
