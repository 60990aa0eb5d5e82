"""Which rank's file holds which part of each tensor of a run, and which parts a rank reads back.

Both are planned by torch.distributed.checkpoint: what one writes is spread over the ranks that hold
it, and what any other number of ranks reads is cut out of what was written. The plan is kept as
JSON, and the parts lie in safetensors files: nothing that is read is ever unpickled.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from foundry_core.models.tensor_files import DTYPES
from foundry_core.training.distributed import World

_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES}
Numbers = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A box of a tensor, in the file of `rank` under the tensor's name."""

    rank: int
    offsets: Numbers
    sizes: Numbers


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """A whole tensor and the boxes that fill it."""

    dtype: torch.dtype
    shape: Numbers
    chunks: tuple[Chunk, ...]


Layout = Mapping[str, StoredTensor]


def plan_layout(tensors: Mapping[str, Tensor], world: World) -> Layout:
    """Collective. Each part is written once; copies are spread so that all files are of one size,
    as far as whole tensors allow."""
    from torch.distributed.checkpoint._dedup_save_plans import dedup_save_plans
    from torch.distributed.checkpoint.default_planner import create_default_local_save_plan

    plans: list[Any] = [create_default_local_save_plan(dict(tensors), True)]
    if world.size > 1:
        plans = plans * world.size
        dist.all_gather_object(plans, plans[0])
    chunks: dict[str, list[Chunk]] = {name: [] for name in tensors}
    for rank, plan in enumerate(dedup_save_plans(plans)):
        for item in plan.items:
            assert item.tensor_data is not None  # of every tensor
            box = item.tensor_data.chunk
            if math.prod(box.sizes):  # a rank beyond the last row holds nothing
                chunk = Chunk(rank=rank, offsets=tuple(box.offsets), sizes=tuple(box.sizes))
                chunks[item.index.fqn].append(chunk)
    return {
        name: StoredTensor(dtype=t.dtype, shape=tuple(t.shape), chunks=tuple(chunks[name]))
        for name, t in tensors.items()
    }


def local_part(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor, without a copy."""
    held: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return held.detach()


@torch.no_grad()
def read_parts(tensors: Mapping[str, Tensor], layout: Layout, files: Mapping[int, Path]) -> None:
    """Fills what this rank holds of `tensors`, whose names and shapes are those of the layout, from
    files by the rank that wrote them. Only the parts held are read."""
    from safetensors import safe_open

    opened: dict[int, Any] = {}
    for name, chunk, source, target, lengths in _reads(tensors, layout):
        if chunk.rank not in opened:
            opened[chunk.rank] = safe_open(files[chunk.rank], framework="pt")
        stored = opened[chunk.rank]
        whole = lengths == chunk.sizes
        box = _box(source, lengths)
        value = stored.get_tensor(name) if whole else stored.get_slice(name)[box]
        held = local_part(tensors[name])
        (held[_box(target, lengths)] if lengths else held).copy_(value)


def _reads(
    tensors: Mapping[str, Tensor], layout: Layout
) -> Iterator[tuple[str, Chunk, Numbers, Numbers, Numbers]]:
    """(name, chunk, offsets in it, offsets in what this rank holds, lengths)."""
    from torch.distributed.checkpoint import default_planner
    from torch.distributed.checkpoint.metadata import (
        ChunkStorageMetadata,
        Metadata,
        TensorProperties,
        TensorStorageMetadata,
    )

    boxes = {name: {c.offsets: c for c in stored.chunks} for name, stored in layout.items()}
    metadata = Metadata(
        {
            name: TensorStorageMetadata(
                properties=TensorProperties(dtype=stored.dtype),
                size=torch.Size(stored.shape),
                chunks=[
                    ChunkStorageMetadata(offsets=torch.Size(c.offsets), sizes=torch.Size(c.sizes))
                    for c in stored.chunks
                ],
            )
            for name, stored in layout.items()
        }
    )
    for item in default_planner.create_default_local_load_plan(dict(tensors), metadata).items:
        name, offsets = item.storage_index.fqn, item.storage_index.offset
        lengths = tuple(item.lengths)
        if math.prod(lengths):
            chunk = boxes[name][tuple(offsets or ())]
            yield name, chunk, tuple(item.storage_offsets), tuple(item.dest_offsets), lengths


def _box(offsets: Numbers, lengths: Numbers) -> tuple[slice, ...]:
    return tuple(slice(o, o + n) for o, n in zip(offsets, lengths, strict=True))


def layout_document(layout: Layout) -> dict[str, Any]:
    """As JSON."""
    return {
        name: {
            "dtype": str(stored.dtype).removeprefix("torch."),
            "shape": list(stored.shape),
            "chunks": [[c.rank, list(c.offsets), list(c.sizes)] for c in stored.chunks],
        }
        for name, stored in layout.items()
    }


def parse_layout(document: Mapping[str, Any], files: int) -> Layout:
    """The inverse; ValueError, KeyError or TypeError for what no `plan_layout` gives: a part in no
    file, beyond its tensor, or missing."""
    layout = {}
    for name, stored in document.items():
        shape = _numbers(stored["shape"])
        chunks = tuple(
            Chunk(rank=rank, offsets=_numbers(offsets), sizes=_numbers(sizes))
            for rank, offsets, sizes in stored["chunks"]
        )
        inside = all(
            0 <= c.rank < files
            and len(c.offsets) == len(c.sizes) == len(shape)
            and all(o + n <= s for o, n, s in zip(c.offsets, c.sizes, shape, strict=True))
            for c in chunks
        )
        if not inside or sum(math.prod(c.sizes) for c in chunks) != math.prod(shape):
            raise ValueError(f"the parts of {name!r} do not fill it")
        layout[name] = StoredTensor(dtype=_DTYPES[stored["dtype"]], shape=shape, chunks=chunks)
    return layout


def _numbers(values: Any) -> Numbers:
    if not all(isinstance(v, int) and v >= 0 for v in values):
        raise ValueError(f"no sizes: {values!r}")
    return tuple(values)
