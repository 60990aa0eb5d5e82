"""How families of transformers VLMs differ: how pixels enter, how many tokens an image becomes, and
what their processors write around it. A family is a few small functions in the table at the end.

Legend: B batch, T sequence, N images per sample.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Inputs = dict[str, Tensor]
Named = Callable[[int], str]
"""The text of a token id."""


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """What a family makes its inputs from: tokens int64 [B,T], mask bool [B,T] (False at padding),
    prompt bool [B,T] or None (see Backbone)."""

    tokens: Tensor
    mask: Tensor
    prompt: Tensor | None


def _nothing(settings: Any, named: Named) -> tuple[str, str]:
    return "", ""


def _image_token(settings: Any) -> int:
    return settings.image_token_id


@dataclass(frozen=True, kw_only=True)
class Family:
    """inputs(settings, pixels [B,N,3,H,W] normalised, sequences) → the model's keywords.

    placeholder: id of what stands for an image in a chat template; around: what the processor puts
    before and after the image tokens that replace it; bare: the same where no template does.
    both_ways: it was pretrained to read prompts without causality.
    """

    tokens_per_image: Callable[[Any, int], int]
    inputs: Callable[[Any, Tensor, Sequences], Inputs]
    placeholder: Callable[[Any], int] = _image_token
    around: Callable[[Any, Named], tuple[str, str]] = _nothing
    bare: Callable[[Any, Named], tuple[str, str]] | None = None
    both_ways: bool = False


def _square(settings: Any, image_size: int, merge: int = 1) -> int:
    """Tokens of an image whose patches are merged by merge × merge."""
    return (image_size // settings.vision_config.patch_size // merge) ** 2


def _idefics_inputs(settings: Any, pixels: Tensor, sequences: Sequences) -> Inputs:
    return {"pixel_values": pixels}


def _idefics_around(settings: Any, named: Named) -> tuple[str, str]:
    """Of one picture that is not split into tiles."""
    return "<fake_token_around_image><global-img>", "<fake_token_around_image>"


def _qwen_inputs(settings: Any, pixels: Tensor, sequences: Sequences) -> Inputs:
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
    is_image = sequences.tokens == settings.image_token_id
    return {
        "pixel_values": x.reshape(-1, channels * frames * patch * patch),
        "image_grid_thw": grid.expand(n, -1),
        "position_ids": mrope_positions(is_image, sequences.mask, height // patch // merge),
    }


def _qwen_bare(settings: Any, named: Named) -> tuple[str, str]:
    return named(settings.vision_start_token_id), named(settings.vision_end_token_id)


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


def _gemma_inputs(settings: Any, pixels: Tensor, sequences: Sequences) -> Inputs:
    """Type 1 marks the image tokens, which see each other both ways."""
    is_image = (sequences.tokens == settings.image_token_id).long()
    return {"pixel_values": pixels.flatten(0, 1), "token_type_ids": is_image}


def _gemma_around(settings: Any, named: Named) -> tuple[str, str]:
    return f"\n\n{named(settings.boi_token_id)}", f"{named(settings.eoi_token_id)}\n\n"


def _paligemma_inputs(settings: Any, pixels: Tensor, sequences: Sequences) -> Inputs:
    """Type 0 is the prompt, which is read both ways; without one all is causal."""
    prompt = torch.zeros_like(sequences.mask) if sequences.prompt is None else sequences.prompt
    kinds = (~(prompt & sequences.mask)).long()
    return {"pixel_values": pixels.flatten(0, 1), "token_type_ids": kinds}


_IDEFICS = Family(
    tokens_per_image=lambda settings, size: _square(settings, size, settings.scale_factor),
    inputs=_idefics_inputs,
    around=_idefics_around,
)
_QWEN = Family(
    tokens_per_image=lambda settings, size: _square(
        settings, size, settings.vision_config.spatial_merge_size
    ),
    inputs=_qwen_inputs,
    bare=_qwen_bare,
)
FAMILIES = {
    "idefics3": _IDEFICS,
    "smolvlm": _IDEFICS,
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": _QWEN,
    "qwen3_vl": _QWEN,
    "paligemma": Family(tokens_per_image=_square, inputs=_paligemma_inputs, both_ways=True),
    "gemma3": Family(
        tokens_per_image=lambda settings, size: settings.mm_tokens_per_image,
        inputs=_gemma_inputs,
        placeholder=lambda settings: settings.boi_token_id,
        around=_gemma_around,
    ),
}
