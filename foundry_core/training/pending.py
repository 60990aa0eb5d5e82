"""The numbers of the steps since the host last looked: they stay on the device until it does, for
reading one waits until everything before it is done.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from foundry_core.training.mixed_batch import MixedBatch


@dataclass(frozen=True, kw_only=True)
class StepNumbers:
    """What a step gave. values: `loss`, its parts, `grad_norm`; shares: sums and how many elements
    they are of; samples: modality → ids."""

    step: int
    values: dict[str, float]
    shares: dict[str, tuple[float, float]]
    finite: bool
    samples: Mapping[str, list[int]]


class PendingSteps:
    """Steps in the order they were made."""

    def __init__(self) -> None:
        self._steps: list[tuple[int, Mapping[str, int], Tensor, MixedBatch]] = []

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, step: int, values: Mapping[str, Tensor], batch: MixedBatch) -> None:
        """values: on the device, scalars or (sum, how many elements it is of) [2]. Of the batch the
        samples' names alone are kept."""
        names = {m: {"sample_ids": p["sample_ids"]} for m, p in batch.items() if "sample_ids" in p}
        numbers = torch.cat([value.detach().double().flatten() for value in values.values()])
        sizes = {name: value.numel() for name, value in values.items()}
        self._steps.append((step, sizes, numbers, names))

    def read(self) -> list[StepNumbers]:
        """All of them; the one wait. Nothing is pending afterwards."""
        steps, self._steps = self._steps, []
        flat = torch.cat([numbers for _, _, numbers, _ in steps]).tolist() if steps else []
        read = []
        numbers = iter(flat)
        for step, sizes, _, batch in steps:
            found = {name: list(islice(numbers, size)) for name, size in sizes.items()}
            values = {name: some[0] for name, some in found.items() if len(some) == 1}
            read.append(
                StepNumbers(
                    step=step,
                    values=values,
                    shares={n: (some[0], some[1]) for n, some in found.items() if len(some) == 2},
                    finite=_finite(values["loss"]) and _finite(values["grad_norm"]),
                    samples={m: part["sample_ids"].tolist() for m, part in batch.items()},
                )
            )
        return read


def _finite(value: float) -> bool:
    return abs(value) < float("inf")  # false for NaN, too
