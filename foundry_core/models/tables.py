"""Small tensors of constants, made once per device: a copy from the host makes the device's queue
wait, and has no place in a recorded CUDA graph."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor


def constants(values: Sequence[float], device: torch.device) -> Tensor:
    """float32 [len(values)]. In a compiled graph they are a part of the graph, which may not look
    into a cache. Do not write into it."""
    if torch.compiler.is_compiling():
        return torch.tensor(values, dtype=torch.float32, device=device)
    return _constants(tuple(values), str(device))


@functools.lru_cache(maxsize=64)
def _constants(values: tuple[float, ...], device: str) -> Tensor:
    with torch.inference_mode(False):  # else training could not save it for its backward pass
        return torch.tensor(values, dtype=torch.float32, device=device)
