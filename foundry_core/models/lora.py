"""Low-rank adapters: W·x + (alpha/rank)·up·(down·x), with W frozen (Hu et al. 2021)."""

import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foundry_core.errors import FoundryError
from foundry_core.models.config import LoRAConfig
from foundry_core.models.interfaces import Backbone

L = TypeVar("L", bound=nn.Linear)


class LoRALinear(nn.Linear):
    """A linear that keeps its parameters' names and gains `lora_down` [r,in], `lora_up` [out,r].

    lora_up starts at zero: at first the layer is the one it was. A fused projection (qkv, gate_up)
    shares its `lora_down` among the parts.
    """

    def __init__(self, linear: nn.Linear, config: LoRAConfig) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        down = linear.weight.new_empty(config.rank, self.in_features)
        nn.init.kaiming_uniform_(down, a=math.sqrt(5))
        self.lora_down = nn.Parameter(down)
        self.lora_up = nn.Parameter(linear.weight.new_zeros(self.out_features, config.rank))
        self.scale = config.alpha / config.rank

    def forward(self, x: Tensor) -> Tensor:
        low = F.linear(x, self.lora_down)
        return F.linear(x, self.weight, self.bias) + self.scale * F.linear(low, self.lora_up)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """One linear that computes the same."""
        linear = nn.Linear(
            self.in_features, self.out_features, bias=self.bias is not None, device="meta"
        )
        weight = self.weight + self.scale * self.lora_up @ self.lora_down
        linear.weight, linear.bias = nn.Parameter(weight), self.bias
        return linear


def apply_lora(backbone: Backbone, config: LoRAConfig) -> None:
    """Freezes the backbone and puts adapters on the linears of its text layers, in place."""
    backbone.requires_grad_(False)
    found: set[str] = set()
    for parent, name, linear in _linears(backbone.text_layers, nn.Linear):
        found.add(name)
        if config.targets is None or name in config.targets:
            setattr(parent, name, LoRALinear(linear, config))
    unknown = sorted(set(config.targets or ()) - found)
    if unknown:
        raise FoundryError(
            f"lora.targets names {unknown[0]!r}, which no text layer of the backbone has",
            f"its linears are {', '.join(sorted(found))}",
        )


def merge_lora(backbone: Backbone) -> None:
    """Folds the adapters into the weights, in place; without adapters it does nothing."""
    for parent, name, linear in _linears(backbone.text_layers, LoRALinear):
        setattr(parent, name, linear.merged())


def _linears(layers: nn.ModuleList, kind: type[L]) -> list[tuple[nn.Module, str, L]]:
    """(parent, name, module) of the modules that are exactly of a class."""
    return [
        (parent, name, child)
        for parent in layers.modules()
        for name, child in parent.named_children()
        if isinstance(child, kind) and type(child) is kind
    ]
