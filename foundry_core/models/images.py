"""Pixels as every vision tower takes them."""

import torch
from torch import Tensor

from foundry_core.errors import FoundryError
from foundry_core.models.config.vision import ImageNormalization


def normalize_images(images: Tensor, normalization: ImageNormalization) -> Tensor:
    """uint8 [n,3,H,W] → float32 (x/255 − mean)/std."""
    if images.dtype != torch.uint8:
        raise FoundryError(
            f"images are {images.dtype}, but vision towers take uint8 and normalise themselves",
            "pass the decoded pixels as they are",
        )
    scale = [1 / (255 * s) for s in normalization.std]
    shift = [-m / s for m, s in zip(normalization.mean, normalization.std, strict=True)]
    return torch.addcmul(
        _per_channel(shift, images), images.to(torch.float32), _per_channel(scale, images)
    )


def _per_channel(values: list[float], images: Tensor) -> Tensor:
    tensor = torch.tensor(values, dtype=torch.float32)
    return tensor.to(images.device, non_blocking=True).view(1, 3, 1, 1)
