"""Mixed batches {modality: {name: tensor}}: parts of them that fit into memory, and their loss."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from foundry_core.data.loading.schedule import Weight, weight_at
from foundry_core.training.config import check_micro_batch

Batch = Mapping[str, Tensor]
MixedBatch = Mapping[str, Batch]

ROWS = "rows"
"""Among an objective's sums: the loss of each row, float32 [B], outside of the graph."""
DATASETS = "dataset_ids"
"""In a batch: which dataset of its modality each row is of, int64 [B]."""
_PADDED = ("tokens", "token_mask", "target_mask")
_MULTIPLE = 8  # what tensor cores like rows to be


@dataclass(frozen=True, kw_only=True)
class StepKey:
    """Coordinates of the randomness of a step; objectives add the number of the draw."""

    seed: int
    step: int


class Objective(Protocol):
    """Loss of one modality."""

    def elements(self, batch: Batch) -> Tensor:
        """Valid elements of each row of a batch as the loader made it, int64 [B]."""
        ...

    def prepare(self, batch: Batch) -> Batch:
        """Host work on a micro-batch before it travels to the device: checks, indices."""
        ...

    def __call__(self, model: nn.Module, batch: Batch, key: StepKey) -> dict[str, Tensor]:
        """Sums over the batch's valid elements. `loss` is differentiated, ROWS are its parts; the
        rest is logged."""
        ...


class Probe(Protocol):
    """What validation measures of one modality."""

    def prepare(self, batch: Batch) -> Batch:
        """As `Objective.prepare`."""
        ...

    def __call__(self, model: nn.Module, batch: Batch, key: StepKey) -> dict[str, Tensor]:
        """Whatever `sums` needs, of a prepared batch; without gradient, nothing random but what the
        key gives."""
        ...

    def sums(self, batch: Batch, found: Batch) -> Mapping[str, tuple[float, float]]:
        """measure → (sum, how many it is of), over a batch as the loader made it. All measures
        there are, each time."""
        ...


class MixedLoss(nn.Module):
    """Σ weight · sum / count over the modalities of a micro-batch: one forward, one backward.

    datasets: how many there are of each modality whose losses are told apart: the sums of these are
    logged as `<modality>_loss/`, float32 [datasets].

    A module of its own because DDP and FSDP hook into `forward`.
    """

    def __init__(
        self,
        model: nn.Module,
        objectives: Mapping[str, Objective],
        weights: Mapping[str, Weight],
        datasets: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.objectives = dict(objectives)
        self.weights = dict(weights)
        self.datasets = dict(datasets or {})

    def forward(
        self,
        batch: MixedBatch,
        counts: Mapping[str, Tensor],
        key: StepKey,
        probe: Probe | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(what is differentiated, what is logged). With a probe: (0, what it finds in a batch of
        one modality)."""
        if probe is not None:
            (part,) = batch.values()
            return torch.zeros(()), probe(self.model, part, key)
        terms: list[Tensor] = []
        logged: dict[str, Tensor] = {}
        for modality, part in batch.items():
            sums = dict(self.objectives[modality](self.model, part, key))
            rows = sums.pop(ROWS, None)
            if rows is not None and modality in self.datasets:
                logged[f"{modality}_loss/"] = by_dataset(
                    rows, part[DATASETS], self.datasets[modality]
                )
            means = {name: value / counts[modality] for name, value in sums.items()}
            terms.append(weight_at(self.weights.get(modality, 1.0), key.step) * means["loss"])
            for name, value in means.items():
                logged[f"{modality}_{name}"] = value.detach()
        total = functools.reduce(torch.add, terms)
        logged["loss"] = total.detach()
        return total, logged


def by_dataset(rows: Tensor, owners: Tensor, datasets: int) -> Tensor:
    """Sums of rows [B] by the dataset that each is of, float32 [datasets]."""
    found = torch.zeros(datasets, dtype=torch.float32, device=rows.device)
    return found.index_add_(0, owners, rows.float())


def split_batch(
    batch: MixedBatch, micro_batch: int | None, *, cut: bool = True
) -> list[MixedBatch]:
    """Equal parts of at most `micro_batch` samples, each with its share of every modality. Every
    row is in exactly one part, with all its real tokens.

    Which samples a step has is decided before this, and sums do not ask for the order of rows: so
    here, and only here, rows of like length come together, cut to the longest of their part. Not
    `cut` where blocks are compiled: each length would be a compilation.
    """
    sizes = {m: len(next(iter(part.values()))) for m, part in batch.items()}
    if micro_batch is None or sum(sizes.values()) <= micro_batch:
        return [batch]
    parts = -(-sum(sizes.values()) // micro_batch)
    check_micro_batch(sizes, micro_batch)
    pieces = {m: _by_length(part, parts, cut) for m, part in batch.items()}
    return [{m: part[i] for m, part in pieces.items()} for i in range(parts)]


def _by_length(batch: Batch, parts: int, cut: bool) -> list[Batch]:
    """Packed rows (no token_mask) are all of one length and stay in their order."""
    mask = batch.get("token_mask")
    if mask is None or not cut:
        return [dict(zip(batch, rows, strict=True)) for rows in _chunks(batch, parts)]
    lengths, order = torch.sort(mask.sum(dim=1), stable=True)
    ordered = {name: tensor[order] for name, tensor in batch.items()}
    longest = lengths.view(parts, -1).amax(dim=1).tolist()
    found: list[Batch] = []
    for rows, real in zip(_chunks(ordered, parts), longest, strict=True):
        length = min(mask.shape[1], -(-real // _MULTIPLE) * _MULTIPLE)
        named = dict(zip(batch, rows, strict=True))
        found.append({n: t[:, :length] if n in _PADDED else t for n, t in named.items()})
    return found


def _chunks(batch: Batch, parts: int) -> list[tuple[Tensor, ...]]:
    return list(zip(*(tensor.chunk(parts) for tensor in batch.values()), strict=True))
