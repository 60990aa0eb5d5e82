"""Resizing on tensors with the filters of image libraries, as processors of models use them.

Antialiased: where a picture shrinks, the filter widens with it. Separable, columns before rows,
rounded to whole levels after each, which is what Pillow does on 8-bit pictures (on tall ones it
may take the rows first).
"""

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor


def resize(images: Tensor, side: int, method: str) -> Tensor:
    """uint8 [n,C,H,W] → uint8 [n,C,side,side], stretched. method: bilinear, bicubic, lanczos."""
    height, width = images.shape[-2:]
    # Half precision would be off by whole levels.
    with torch.autocast(images.device.type, enabled=False):
        if width != side:
            weights = _weights(width, side, method, str(images.device))
            images = _whole(images.float() @ weights.T)
        if height != side:
            weights = _weights(height, side, method, str(images.device))
            images = _whole(weights @ images.float())
    return images


def _whole(levels: Tensor) -> Tensor:
    return levels.add_(0.5).floor_().clamp_(0, 255).to(torch.uint8)


@functools.lru_cache(maxsize=32)
def _weights(source: int, target: int, method: str, device: str) -> Tensor:
    """float32 [target, source]: what each source pixel gives to each target pixel."""
    kernel, reach = _FILTERS[method]
    scale = source / target
    stretch = max(scale, 1.0)
    rows = torch.zeros(target, source, dtype=torch.float64)
    for pixel in range(target):
        centre = (pixel + 0.5) * scale
        first = max(0, int(centre - reach * stretch + 0.5))
        last = min(source, int(centre + reach * stretch + 0.5))
        taps = [kernel((at + 0.5 - centre) / stretch) for at in range(first, last)]
        rows[pixel, first:last] = torch.tensor(taps, dtype=torch.float64) / sum(taps)
    with torch.inference_mode(False):
        return rows.float().to(device)


def _triangle(x: float) -> float:
    return max(0.0, 1.0 - abs(x))


def _cubic(x: float) -> float:
    """Keys' cubic with a = -1/2."""
    x, a = abs(x), -0.5
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0


def _lanczos(x: float) -> float:
    """sinc windowed by its own main lobe, stretched to three."""
    return _sinc(x) * _sinc(x / 3) if -3 <= x < 3 else 0.0


def _sinc(x: float) -> float:
    return math.sin(math.pi * x) / (math.pi * x) if x else 1.0


_FILTERS: dict[str, tuple[Callable[[float], float], float]] = {
    "bilinear": (_triangle, 1.0),
    "bicubic": (_cubic, 2.0),
    "lanczos": (_lanczos, 3.0),
}
