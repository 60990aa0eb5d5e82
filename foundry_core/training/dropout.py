"""Dropout's noise as a function of (seed, step, rank, micro-batch): a run needs no random state,
and what else draws from torch's generators finds them as they were.

Unlike an action head's noise it is not the sample's own: another number of workers or another
micro-batch draws other masks, as it adds floats in another order.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

from foundry_core.data.keyed import key
from foundry_core.training.distributed import World
from foundry_core.training.mixed_batch import StepKey


def has_dropout(module: nn.Module) -> bool:
    """Whether a module draws masks in training."""
    return any(isinstance(part, nn.Dropout) and part.p > 0 for part in module.modules())


def masks(drops: bool, step: StepKey, part: int, world: World) -> AbstractContextManager[None]:
    """What a forward pass runs inside of; part: number of the micro-batch. A block that runs again
    in the backward pass (`recompute`) draws the same masks."""
    return (
        _seeded(key(step.seed, "dropout", step.step, world.rank, part), world.device)
        if drops
        else nullcontext()
    )


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
