"""Exponential moving average of the weights, in float32 whatever the compute dtype.

Works on DTensors too: the average is sharded like the weights it follows.
"""

import torch
from torch import nn

from foundry_core.training.config import FixedEma, PowerEma


def ema_decay(config: FixedEma | PowerEma, n: int) -> float:
    """Decay of the n-th update (1-based; 0 is the state before any)."""
    if config.kind == "fixed":
        return config.decay if n > 0 else 0.0
    s = max(0, n - config.update_after - 1)
    if s == 0:
        return 0.0
    decay = 1.0 - (1.0 + s / config.inv_gamma) ** -config.power
    return min(max(decay, config.min_decay), config.max_decay)


class Ema:
    """Average of the trainable parameters; frozen ones are equal to their average."""

    def __init__(self, module: nn.Module, config: FixedEma | PowerEma) -> None:
        self.config = config
        self._live = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self.shadow = {n: p.detach().float().clone() for n, p in self._live.items()}

    @torch.no_grad()
    def update(self, n: int) -> None:
        """shadow ← decay·shadow + (1 − decay)·weights, one fused call over all tensors."""
        if not self.shadow:
            return
        weight = 1.0 - ema_decay(self.config, n)
        torch._foreach_lerp_(list(self.shadow.values()), list(self._live.values()), weight)

    @torch.no_grad()
    def copy_to_module(self) -> None:
        """Replaces the live weights by their average: the end of a run."""
        for name, parameter in self._live.items():
            parameter.copy_(self.shadow[name])
