"""A model by its parts (language, vision, projector, head): norms of their gradients, the calls
that lead into them, and blocks whose activations are made again in the backward pass instead of
being kept.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from foundry_core.errors import FoundryError
from foundry_core.models.heads.networks.base import ActionHead
from foundry_core.models.interfaces import Decoder, LanguageModel
from foundry_core.models.vla import VLA
from foundry_core.training.distributed import full

Parts = Mapping[str, Sequence[nn.Module]]
# The output layer and the cross-entropy that reads it: what `entries_of` adds to the parts.
OUTPUT = "output"
# How parts are called in a training step, besides as modules.
_METHODS: Mapping[type[nn.Module], Sequence[str]] = {
    LanguageModel: ("embed", "hidden", "tap"),
    ActionHead: ("training_loss_terms",),
}


def parts_of(model: nn.Module) -> Parts:
    """Part → its modules; everything is `model` where a module says nothing of its parts."""
    return model.parts if isinstance(model, Decoder | VLA) else {"model": [model]}


def entries_of(model: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """(part, module, name of its method) of all calls that lead into a part in a training step."""
    for part, modules in parts_of(model).items():
        for module in modules:
            yield part, module, "forward"
            for kind, names in _METHODS.items():
                if isinstance(module, kind):
                    yield from ((part, module, name) for name in names)
    for module in model.modules():
        if isinstance(module, Decoder):
            yield OUTPUT, module, "next_token_sums"


def part_norms(model: nn.Module) -> dict[str, Tensor]:
    """grad_norm_<part> → the norm of its gradients, on the device: no host waits. Parts that no
    gradient has reached are left out. Sharded gradients are reduced: a collective."""
    found = {}
    for name, modules in parts_of(model).items():
        gradients = [p.grad for p in parameters_of(modules) if p.grad is not None]
        if gradients:
            norm = torch.nn.utils.get_total_norm(gradients)
            found[f"grad_norm_{name}"] = full(norm)
    return found


def recompute(model: nn.Module, names: Sequence[str]) -> None:
    """Each block of these parts keeps its inputs alone and runs again in the backward pass. In
    place, before the model is compiled or sharded; names of parameters stay. The same kernels run
    on the same inputs, so gradients keep their bits unless they are compiled."""
    parts = parts_of(model)
    for name in names:
        blocks = [b for module in parts.get(name, ()) for b in transformer_blocks(module)]
        if not blocks:
            raise FoundryError(
                f"resources.recompute names {name!r}, of which this model has no blocks",
                f"its parts are {', '.join(parts)}",
            )
        for block in blocks:
            block.forward = _recomputed(block.forward)


def transformer_blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Entries of the outermost lists of modules that have parts themselves: no bare
    convolutions."""
    if isinstance(module, nn.ModuleList):
        composed = [entry for entry in module if any(True for _ in entry.children())]
        if composed:
            yield from composed
            return
    for child in module.children():
        yield from transformer_blocks(child)


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return run


def parameters_of(modules: Sequence[nn.Module]) -> Iterator[nn.Parameter]:
    """Each once: tied heads are in two modules."""
    seen: set[int] = set()
    for module in modules:
        for parameter in module.parameters():
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield parameter
