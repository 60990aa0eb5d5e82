"""The group of processes that share one optimizer step.

Losses are sums divided by element counts of the GLOBAL batch, so ranks add gradients. DDP and
FSDP2 average them instead: the loop multiplies the loss by the world's size to undo that.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from foundry_core.errors import FoundryError
from foundry_core.models.blocks import blocks_of
from foundry_core.models.tensor_files import PIECE_BYTES, flat_pieces
from foundry_core.training.config import check_divides


def never() -> bool:
    """Nobody asks."""
    return False


@dataclass(frozen=True, kw_only=True)
class World:
    """One process among those of a run. size > 1 needs an initialised torch.distributed group.
    stop: whether who launched the run asks it to end; rank 0's counts."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    stop: Callable[[], bool] = never

    @property
    def main(self) -> bool:
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Element-wise sum over all ranks, in float64, in one collective."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return tensor.tolist()

    def total(self, values: Tensor) -> Tensor:
        """Element-wise sum over all ranks, on the device: nobody's host waits."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def gather(self, values: Sequence[int]) -> list[list[int]]:
        """The values of every rank, which are as many on each; one collective."""
        if self.size == 1:
            return [list(values)]
        mine = torch.tensor(values, dtype=torch.int64, device=self.device)
        every = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(every, mine)
        return [one.tolist() for one in every]

    def barrier(self) -> None:
        """Waits for every rank."""
        if self.size > 1:
            dist.barrier()


def parallelise(
    module: nn.Module,
    world: World,
    strategy: str,
    *,
    shard_size: int | None = None,
    bf16_weights: bool = False,
    unused: bool = True,
) -> nn.Module:
    """The module to call in the loop: itself, DDP around it, or itself sharded by FSDP2.

    FSDP2 shards in place, block by block (`blocks_of`), then the root. Parameters keep their names
    (apart from DDP's `module.` in front). shard_size: of hsdp, which keeps a copy per that many
    ranks. bf16_weights: FSDP2 computes on bf16 copies of them, for one rank, too. unused: whether a
    batch may leave parameters without gradients, which DDP must look for in each step.
    """
    if strategy == "ddp" or (world.size == 1 and not bf16_weights):
        if world.size == 1:
            return module
        ids = [world.device] if world.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(
            module, device_ids=ids, find_unused_parameters=unused
        )
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    half = torch.bfloat16 if bf16_weights else None
    # Inputs stay as they are: actions and the tables of rotary positions need their bits.
    policy = MixedPrecisionPolicy(
        param_dtype=half,
        reduce_dtype=torch.float32 if half else None,
        cast_forward_inputs=False,
    )
    mesh = _mesh(world, shard_size if strategy == "hsdp" else None)
    for block in blocks_of(module):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(module, mesh=mesh, mp_policy=policy)
    return module


def _mesh(world: World, shard_size: int | None) -> DeviceMesh:
    if not dist.is_initialized():  # a run of one process
        backend = "nccl" if world.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    kind = world.device.type
    if shard_size is None:
        return init_device_mesh(kind, (world.size,))
    shape = (world.size // shard_size, shard_size)
    return init_device_mesh(kind, shape, mesh_dim_names=("replicate", "shard"))


@contextmanager
def gradient_sync(module: nn.Module, enabled: bool) -> Iterator[None]:
    """Whether this backward pass exchanges gradients: only the last micro-batch needs to."""
    if isinstance(module, nn.parallel.DistributedDataParallel):
        with nullcontext() if enabled else module.no_sync():
            yield
        return
    set_sync = getattr(module, "set_requires_gradient_sync", None)  # FSDP2's
    if callable(set_sync):
        set_sync(enabled)
    yield


def reshard(module: nn.Module) -> None:
    """Frees what a forward pass without a backward one left gathered: FSDP2's root keeps it, stale
    once the weights change, and in the sharded parameters' place."""
    for part in module.modules():
        free = getattr(part, "reshard", None)
        if callable(free):
            free()


def full(tensor: Tensor) -> Tensor:
    """The whole tensor on every rank; a collective if it is sharded."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def whole_pieces(tensor: Tensor, world: World) -> Iterator[Tensor]:
    """A tensor's values in order on the CPU, in pieces of at most PIECE_BYTES, at rank 0; the other
    ranks get nothing and send what they hold, a piece at a time. Collective if it is sharded."""
    if not hasattr(tensor, "to_local"):
        if world.main:
            yield from flat_pieces(tensor)
        return
    held = tensor.to_local().detach().contiguous().reshape(-1)
    most = max(1, PIECE_BYTES // held.element_size())
    for owner, count in _owners(tensor):
        if owner == world.rank == 0:
            yield from flat_pieces(held)
        elif world.main:
            for begin in range(0, count, most):
                piece = held.new_empty(min(most, count - begin))
                dist.recv(piece, src=owner)
                yield piece.cpu()
        elif owner == world.rank:
            for piece in held.split(most):
                dist.send(piece, dst=0)


def _owners(tensor: Any) -> list[tuple[int, int]]:
    """(rank, elements) of the parts that fill a tensor of FSDP2 in order, of copies the first."""
    from torch.distributed.tensor import Replicate, Shard

    ranks, row_shards = tensor.device_mesh.mesh, None
    for axis, placement in reversed(list(enumerate(tensor.placements))):
        if placement == Shard(0) and row_shards is None:
            row_shards = axis
        elif placement == Replicate():
            ranks = ranks.select(axis, 0)
        else:
            raise FoundryError(
                f"a weight of shape {list(tensor.shape)} is split as {tensor.placements}: only "
                "splits by rows can be written",
                "use resources.strategy ddp, fsdp or hsdp",
            )
    owners = ranks.reshape(-1).tolist()
    rows = tensor.shape[0]
    share = -(-rows // len(owners))  # torch.chunk's
    columns = tensor.numel() // max(1, rows)
    counts = [max(0, min(share, rows - i * share)) * columns for i in range(len(owners))]
    return [(rank, count) for rank, count in zip(owners, counts, strict=True) if count]


def local_batch_size(global_size: int, world: World, modality: str) -> int:
    """Samples of one modality per rank."""
    check_divides(global_size, world.size, modality)
    return global_size // world.size
