"""A step's batch in parts that fit into memory, rows of like length together.

Which samples a step has is decided before this, and sums over a batch do not ask for the order of
its rows: so here, and only here, samples may be sorted by length. Each part is then cut to its own
longest row instead of the batch's.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from foundry_core.errors import FoundryError
from foundry_core.training.mixed_loss import Batch, MixedBatch

_PADDED = ("tokens", "token_mask", "target_mask")
_MULTIPLE = 8  # what tensor cores like rows to be


def split_batch(batch: MixedBatch, micro_batch: int | None) -> list[MixedBatch]:
    """Equal parts of at most `micro_batch` samples, each with its share of every modality. Every
    row is in exactly one part, with all its real tokens."""
    sizes = {m: len(next(iter(part.values()))) for m, part in batch.items()}
    if micro_batch is None or sum(sizes.values()) <= micro_batch:
        return [batch]
    parts = -(-sum(sizes.values()) // micro_batch)
    check_micro_batch(sizes, micro_batch)
    cut = {m: _by_length(part, parts) for m, part in batch.items()}
    return [{m: pieces[i] for m, pieces in cut.items()} for i in range(parts)]


def check_micro_batch(sizes: Mapping[str, int], micro_batch: int | None) -> None:
    """Raises unless every modality's batch divides into the same number of parts."""
    if micro_batch is None:
        return
    parts = -(-sum(sizes.values()) // micro_batch)
    for modality, size in sizes.items():
        if size % parts:
            raise FoundryError(
                f"{modality} batch of {size} does not divide into {parts} micro-batches "
                f"(micro_batch={micro_batch}, {sum(sizes.values())} samples per worker in all)",
                "choose resources.micro_batch so that every modality's batch divides",
            )


def _by_length(batch: Batch, parts: int) -> list[Batch]:
    """Packed rows (no token_mask) are all of one length and stay in their order."""
    mask = batch.get("token_mask")
    if mask is None:
        return [dict(zip(batch, rows, strict=True)) for rows in _chunks(batch, parts)]
    lengths, order = torch.sort(mask.sum(dim=1), stable=True)
    ordered = {name: tensor[order] for name, tensor in batch.items()}
    longest = lengths.view(parts, -1).amax(dim=1).tolist()
    cut: list[Batch] = []
    for rows, real in zip(_chunks(ordered, parts), longest, strict=True):
        length = min(mask.shape[1], -(-real // _MULTIPLE) * _MULTIPLE)
        named = dict(zip(batch, rows, strict=True))
        cut.append({n: t[:, :length] if n in _PADDED else t for n, t in named.items()})
    return cut


def _chunks(batch: Batch, parts: int) -> list[tuple[Tensor, ...]]:
    return list(zip(*(tensor.chunk(parts) for tensor in batch.values()), strict=True))
