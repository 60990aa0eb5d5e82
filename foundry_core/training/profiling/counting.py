"""What the operators of a step do: their FLOPs, the bytes they read and write, and where the host
waits for a device."""

import contextlib
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from foundry_core.training.profiling.ledger import Ledger

_aten = torch.ops.aten
# A CPU's own attention, which torch's table leaves out.
_ATTENTION = "_scaled_dot_product_flash_attention"
_SAME_FORMULA = {
    _aten._scaled_dot_product_flash_attention_for_cpu: getattr(_aten, _ATTENTION),
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: getattr(
        _aten, f"{_ATTENTION}_backward"
    ),
}
# Fused attention computes its scores again on its way back: of five products MFU counts four.
_SCORES_AGAIN = {
    packet
    for packet in (*flop_registry, *_SAME_FORMULA)
    if "attention" in str(packet) and "backward" in str(packet)
}
# Read no more of their first argument than they return.
_LOOK_UPS = {_aten.embedding, _aten.index_select, _aten.gather, _aten.index}
# Nothing is read or written.
_FREE = {
    _aten.empty,
    _aten.empty_like,
    _aten.empty_strided,
    _aten.new_empty,
    _aten.new_empty_strided,
    _aten._unsafe_view,
}
# The size or value of their result is needed on the host.
_READS = {
    _aten._local_scalar_dense,
    _aten.nonzero,
    _aten.masked_select,
    _aten._unique2,
    _aten.unique_dim,
    _aten.unique_consecutive,
    _aten.equal,
}
_BY_MASK = {_aten.index, _aten.index_put, _aten.index_put_}
_HOST_PHASES = ("data", "prepare")
_HERE = str(Path(__file__).parent)
_TORCH = str(Path(torch.__file__).parent)


@dataclass(frozen=True, kw_only=True)
class Work:
    """One operator's: is_product where it has FLOPs to count."""

    flops: int
    bytes: int

    @property
    def is_product(self) -> bool:
        return self.flops > 0


@dataclass(frozen=True, kw_only=True)
class HostRead:
    """A place where a step's host waits for the device, `count` times. what: the operator, or what
    torch says of it."""

    what: str
    where: str
    count: int


class StepCounter(TorchDispatchMode):
    """work: of every operator that runs inside; flops: those that MFU counts. reads: (operator,
    place) → how often the host needed a value of it, outside of the phases that work on batches of
    the host."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger
        self.work: list[Work] = []
        self.flops = 0
        self.reads: Counter[tuple[str, str]] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet = getattr(func, "overloadpacket", None)
        if packet is None:  # a higher-order operator: what it runs comes by itself
            return out
        if self._ledger.label.phase not in _HOST_PHASES:
            flops = _flops(packet, args, kwargs, out)
            self.flops += flops * 4 // 5 if packet in _SCORES_AGAIN else flops
            self.work.append(Work(flops=flops, bytes=_bytes(func, args, kwargs, out)))
            if packet in _READS or (packet in _BY_MASK and _has_mask(args)):
                self.reads[func.name(), _place()] += 1
        return out


def _flops(packet: Any, args: Any, kwargs: Mapping[str, Any], out: Any) -> int:
    formula: Callable[..., int] | None = flop_registry.get(_SAME_FORMULA.get(packet, packet))
    return int(formula(*args, **kwargs, out_val=out)) if formula else 0


def _bytes(func: Any, args: Any, kwargs: Mapping[str, Any], out: Any) -> int:
    """What it reads, writes into its arguments, and makes."""
    packet = func.overloadpacket
    if func.is_view or packet in _FREE:
        return 0
    given = _tensors((args, dict(kwargs)))
    known = {_storage(t) for t in given}
    made = sum(_extent(t) for t in _tensors(out) if _storage(t) not in known)
    if packet in _LOOK_UPS:
        return 2 * made
    written = sum(
        _extent(t)
        for declared, value in zip(func._schema.arguments, args, strict=False)
        if declared.alias_info is not None and declared.alias_info.is_write
        for t in _tensors(value)
    )
    return sum(map(_extent, given)) + written + made


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _extent(tensor: Tensor) -> int:
    """Bytes behind it: an expanded tensor's are those of what was expanded."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _has_mask(args: Any) -> bool:
    masks = (torch.bool, torch.uint8)
    return any(t.dtype in masks for t in _tensors(args[1]))


def _place() -> str:
    """The line that asked, of the first function outside of torch and this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith((_HERE, _TORCH)):
        frame = frame.f_back
    return place(frame.f_code.co_filename, frame.f_lineno)


def place(file: str, line: int) -> str:
    """folder/file.py:line"""
    return f"{'/'.join(Path(file).parts[-2:])}:{line}"


def host_reads(reads: Mapping[tuple[str, str], int]) -> list[HostRead]:
    """The most frequent first."""
    ordered = sorted(reads.items(), key=lambda item: (-item[1], item[0]))
    return [HostRead(what=what, where=where, count=n) for (what, where), n in ordered]


@contextlib.contextmanager
def device_waits() -> Iterator[Counter[tuple[str, str]]]:
    """(what torch says, place) → how often, of all waits for a CUDA device inside of the block."""
    found: Counter[tuple[str, str]] = Counter()
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode(before)
    for warning in caught:
        if "synchronizing CUDA operation" in str(warning.message):
            found["wait for the device", place(warning.filename, warning.lineno)] += 1
