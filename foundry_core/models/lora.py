"""Low-rank adapters: W·x + (alpha/rank)·up·(down·x), with W frozen (Hu et al. 2021)."""

import math
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foundry_core.errors import FoundryError
from foundry_core.models.config import ALL_LINEAR, LoRAConfig
from foundry_core.models.interfaces import Decoder
from foundry_core.models.products import Linear

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
        self.dropout = nn.Dropout(config.dropout) if config.dropout else None

    def forward(self, x: Tensor) -> Tensor:
        low = F.linear(x if self.dropout is None else self.dropout(x), self.lora_down)
        return F.linear(x, self.weight, self.bias) + self.scale * F.linear(low, self.lora_up)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """One linear that computes the same."""
        return self.linear_of(self.weight + self.scale * self.lora_up @ self.lora_down)

    def linear_of(self, weight: Tensor) -> nn.Linear:
        """One with this weight, and its own bias."""
        out, into = weight.shape
        linear = Linear(into, out, bias=self.bias is not None, device="meta")
        linear.weight, linear.bias = nn.Parameter(weight), self.bias
        return linear


class Place(NamedTuple):
    """A module in its model: dotted name, and where it hangs."""

    name: str
    parent: nn.Module
    child: str

    def put(self, module: nn.Module) -> None:
        setattr(self.parent, self.child, module)


def apply_lora(model: Decoder, config: LoRAConfig) -> None:
    """Freezes a language or vision-language model and puts adapters on the linears that the config
    names, in place."""
    model.lora = config
    model.requires_grad_(False)
    layers = [module for layer in model.text_layers for module in layer.modules()]
    in_text = {id(module) for module in layers}
    # The output layer stays as it is, as peft has it: it may be the embedding.
    output = id(model.output_layer[0])
    linears = {
        place: linear
        for place, linear in places(model, nn.Linear, Linear)
        if id(linear.weight) != output
    }
    for part in config.whole:
        _train(model, part)
    linears = {p: linear for p, linear in linears.items() if not _within(p.name, config.whole)}
    text = {place for place, linear in linears.items() if id(linear) in in_text}
    chosen = _chosen(config.targets, text, set(linears))
    # In the model's order, on which random values depend.
    for place, linear in linears.items():
        if place in chosen:
            place.put(LoRALinear(linear, config))


def _train(model: nn.Module, part: str) -> None:
    """Lets gradients reach a part, by its dotted name. FoundryError for one that there is not."""
    try:
        module = model.get_submodule(part)
    except AttributeError:
        known = ", ".join(name for name, _ in model.named_children())
        raise FoundryError(
            f"lora.whole names {part!r}, which the model does not have",
            f"its parts are {known}, and theirs by dotted names",
        ) from None
    module.requires_grad_(True)


def _within(name: str, parts: tuple[str, ...]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def _chosen(
    targets: str | tuple[str, ...] | None, text: set[Place], every: set[Place]
) -> set[Place]:
    """A bare name is that of a linear of the text layers; what has a dot or a wildcard is matched
    with the dotted names of all linears, or with their ends behind a dot."""
    if targets is None:
        return text
    if targets == ALL_LINEAR:
        return every
    chosen: set[Place] = set()
    for target in targets:
        dotted = any(mark in target for mark in ".*?[")
        found = {p for p in every if _named(p.name, target)} if dotted else set()
        found |= set() if dotted else {p for p in text if p.child == target}
        if not found:
            known = sorted({p.name if dotted else p.child for p in (every if dotted else text)})
            raise FoundryError(
                f"lora.targets names {target!r}, which no "
                f"{'linear' if dotted else 'text layer'} of the model has",
                f"its linears are {', '.join(known[:12])}{', ...' if len(known) > 12 else ''}",
            )
        chosen |= found
    return chosen


def _named(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def merge_lora(model: Decoder) -> None:
    """Folds the adapters into the weights, in place, and lets all of them be trained again; without
    adapters it does nothing."""
    if model.lora is not None:
        for place, linear in list(places(model, LoRALinear)):
            place.put(linear.merged())
        _forget(model)


def drop_lora(model: Decoder) -> None:
    """Takes the adapters off, in place: the model is the one they were put on."""
    if model.lora is not None:
        for place, linear in list(places(model, LoRALinear)):
            place.put(linear.linear_of(linear.weight.detach()))
        _forget(model)


def _forget(model: Decoder) -> None:
    model.lora = None
    model.requires_grad_(True)


def places(module: nn.Module, *kinds: type[L]) -> Iterator[tuple[Place, L]]:
    """The modules that are exactly of one of the classes, each once."""
    for name, parent in module.named_modules():
        for child, found in parent.named_children():
            if isinstance(found, kinds) and type(found) in kinds:
                yield Place(f"{name}.{child}" if name else child, parent, child), found
