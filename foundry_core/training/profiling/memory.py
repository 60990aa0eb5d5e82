"""Bytes of what a training keeps: weights, gradients, moments, average, and activations held for
the backward pass."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foundry_core.training.loop import Trainer
from foundry_core.training.parts import Parts, parameters_of, parts_of
from foundry_core.training.profiling.ledger import FORWARD, Ledger

# What autocast makes of weights and the graph then holds; no part's activations.
WEIGHT_COPIES = "weight copies"


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on this device. activations: by part, of the micro-batch that holds most; "" outside of
    any part. weight_copies: in the type of products, held as long. peaks: of torch's allocator, of
    what it gave out and of what it took from the device."""

    weights: Mapping[str, int]
    buffers: int
    gradients: int
    moments: int
    average: int
    activations: Mapping[str, int]
    weight_copies: int
    peaks: "AllocatorPeaks"


@dataclass(frozen=True, kw_only=True)
class AllocatorPeaks:
    """Bytes, since they were last reset; None on a CPU."""

    allocated: int | None = None
    reserved: int | None = None

    @classmethod
    def of(cls, device: torch.device) -> "AllocatorPeaks":
        if device.type != "cuda":
            return cls()
        return cls(
            allocated=torch.cuda.max_memory_allocated(device),
            reserved=torch.cuda.max_memory_reserved(device),
        )


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Of what this rank holds of them."""
    return sum(_local(tensor).nbytes for tensor in tensors)


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def weight_bytes(parts: Parts) -> dict[str, int]:
    """Part → bytes of its parameters, each once."""
    seen: set[int] = set()
    found = {}
    for part, modules in parts.items():
        own = [p for p in parameters_of(modules) if id(p) not in seen]
        seen.update(map(id, own))
        found[part] = bytes_of(own)
    return found


def memory_of(trainer: Trainer, gradients: int, held: "Held", peaks: AllocatorPeaks) -> Memory:
    """gradients: their bytes, when they were there."""
    activations = dict(held.most)
    copies = activations.pop(WEIGHT_COPIES, 0)
    return Memory(
        weights=weight_bytes(parts_of(trainer.model)),
        buffers=bytes_of(trainer.model.buffers()),
        gradients=gradients,
        moments=bytes_of(
            tensor
            for state in trainer.optimizer.state.values()
            for name, tensor in state.items()
            if name != "step"
        ),
        average=bytes_of(trainer.ema.shadow.values()) if trainer.ema else 0,
        activations=activations,
        weight_copies=copies,
        peaks=peaks,
    )


class Held:
    """Counts what the forward passes inside of `watching` keep for their backward passes: each
    storage once, in the part where it was first kept. Weights themselves do not count.

    most: part → bytes of the pass that kept most.
    """

    def __init__(self, loss: nn.Module, ledger: Ledger) -> None:
        self._loss, self._ledger = loss, ledger
        self._storages: set[int] = set()
        self._kept: dict[str, int] = {}
        self.most: Mapping[str, int] = {}

    def watching(self) -> "_Watching":
        return _Watching(self)

    def begins(self, *_: object) -> None:
        """A forward pass."""
        self._weights = {_storage(t) for t in (*self._loss.parameters(), *self._loss.buffers())}
        self._storages, self._kept = set(), defaultdict(int)

    def ends(self, *_: object) -> None:
        """The same one."""
        if sum(self._kept.values()) > sum(self.most.values()):
            self.most = dict(self._kept)

    def pack(self, tensor: Tensor) -> Tensor:
        """What autograd shall keep for a tensor: the same, without a way back to its graph."""
        if self._ledger.label.phase == FORWARD:  # else a block that runs again
            self._count(tensor)
        return tensor.detach()

    def _count(self, tensor: Tensor) -> None:
        origin = tensor._base if tensor._is_view() else tensor
        storage = _storage(tensor)
        if storage in self._storages or storage in self._weights:
            return
        if isinstance(origin, nn.Parameter):  # FSDP gathers them anew
            return
        self._storages.add(storage)
        part = WEIGHT_COPIES if _is_weight_copy(origin) else self._ledger.label.part
        self._kept[part] += _local(tensor).untyped_storage().nbytes()


class _Watching:
    def __init__(self, held: Held) -> None:
        self._held = held
        self._hooks = torch.autograd.graph.saved_tensors_hooks(held.pack, lambda kept: kept)

    def __enter__(self) -> None:
        loss = self._held._loss
        self._handles = [
            loss.register_forward_pre_hook(self._held.begins),
            loss.register_forward_hook(self._held.ends),
        ]
        self._hooks.__enter__()

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)
        for handle in self._handles:
            handle.remove()


def _storage(tensor: Tensor) -> int:
    return _local(tensor).untyped_storage()._cdata


def _is_weight_copy(tensor: Tensor | None) -> bool:
    """Whether it is a parameter in another type."""
    node = tensor.grad_fn if tensor is not None else None
    if node is None or "ToCopy" not in node.name():
        return False
    return isinstance(getattr(node.next_functions[0][0], "variable", None), nn.Parameter)


def unused_parameters(model: nn.Module) -> Iterator[str]:
    """Names of those that train and have no gradient now."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.grad is None:
            yield name
