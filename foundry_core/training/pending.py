"""The numbers of the steps since the host last looked: they stay on the device until it does, for
reading one waits until everything before it is done.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from foundry_core.training.mixed_batch import MixedBatch


@dataclass(frozen=True, kw_only=True)
class StepNumbers:
    """What a step gave. values: `loss`, its parts, `grad_norm`; samples: modality → ids."""

    step: int
    values: dict[str, float]
    finite: bool
    samples: Mapping[str, list[int]]


class PendingSteps:
    """Steps in the order they were made."""

    def __init__(self) -> None:
        self._steps: list[tuple[int, tuple[str, ...], Tensor, MixedBatch]] = []

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, step: int, values: Mapping[str, Tensor], batch: MixedBatch) -> None:
        """values: scalars on the device. Of the batch only the samples' names are kept."""
        names = {m: {"sample_ids": p["sample_ids"]} for m, p in batch.items() if "sample_ids" in p}
        numbers = torch.stack([value.detach().double() for value in values.values()])
        self._steps.append((step, tuple(values), numbers, names))

    def read(self) -> list[StepNumbers]:
        """All of them; the one wait. Nothing is pending afterwards."""
        steps, self._steps = self._steps, []
        flat = torch.cat([numbers for _, _, numbers, _ in steps]).tolist() if steps else []
        read = []
        for step, names, _, batch in steps:
            values = dict(zip(names, flat, strict=False))
            del flat[: len(names)]
            read.append(
                StepNumbers(
                    step=step,
                    values=values,
                    finite=_finite(values["loss"]) and _finite(values["grad_norm"]),
                    samples={m: part["sample_ids"].tolist() for m, part in batch.items()},
                )
            )
        return read


def _finite(value: float) -> bool:
    return abs(value) < float("inf")  # false for NaN, too
