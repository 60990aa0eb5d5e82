"""The loss of one optimizer step: a weighted sum over the modalities of a mixed batch."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

Batch = Mapping[str, Tensor]
MixedBatch = Mapping[str, Batch]


@dataclass(frozen=True, kw_only=True)
class StepKey:
    """Coordinates of the randomness of a step; objectives add the sample id."""

    seed: int
    step: int


class Objective(Protocol):
    """Loss of one modality."""

    def count(self, batch: Batch) -> float:
        """Valid elements of a batch as the loader made it."""
        ...

    def prepare(self, batch: Batch) -> Batch:
        """Host work on a micro-batch before it travels to the device: checks, indices."""
        ...

    def __call__(self, model: nn.Module, batch: Batch, key: StepKey) -> dict[str, Tensor]:
        """Sums over the batch's valid elements. `loss` is differentiated; the rest is logged."""
        ...


class MixedLoss(nn.Module):
    """Σ weight · sum / count over the modalities of a micro-batch: one forward, one backward.

    A module of its own because DDP and FSDP hook into `forward`.
    """

    def __init__(
        self, model: nn.Module, objectives: Mapping[str, Objective], weights: Mapping[str, float]
    ) -> None:
        super().__init__()
        self.model = model
        self.objectives = dict(objectives)
        self.weights = dict(weights)

    def forward(
        self, batch: MixedBatch, counts: Mapping[str, float], key: StepKey
    ) -> tuple[Tensor, dict[str, Tensor]]:
        terms: list[Tensor] = []
        logged: dict[str, Tensor] = {}
        for modality, part in batch.items():
            sums = self.objectives[modality](self.model, part, key)
            means = {name: value / counts[modality] for name, value in sums.items()}
            terms.append(self.weights.get(modality, 1.0) * means["loss"])
            for name, value in means.items():
                logged[f"{modality}_{name}"] = value.detach()
        total = functools.reduce(torch.add, terms)
        logged["loss"] = total.detach()
        return total, logged
