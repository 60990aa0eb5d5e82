"""Autocast, on the meta device too, of which torch knows no such thing."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Inside, products are computed in the type of their factors."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def product_type(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """In which type products of this dtype are computed here and now."""
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return dtype
    return torch.get_autocast_dtype(device.type)
