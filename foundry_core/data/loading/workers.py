"""Batches made by worker processes: bounded ahead of the consumer, in the order of steps.

A worker that dies (out of memory, kill -9, a crashing codec) becomes a FoundryError in the
consumer within seconds, wherever the run is; a mistake of the user's inside a worker becomes the
same error as without workers.
"""

import itertools
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

import torch

from foundry_core.data.loading.config import LoaderResources
from foundry_core.errors import FoundryError

MixedBatch = dict[str, dict[str, torch.Tensor]]
Made = tuple[MixedBatch, Mapping[str, int]]


def made_by_workers(
    make: Callable[[int], Made], first_step: int, resources: LoaderResources
) -> Generator[Made, None, None]:
    """make(first_step), make(first_step + 1), ...; at most workers x prefetch are made ahead.
    Closing the iterator ends the workers."""
    handler = signal.getsignal(signal.SIGCHLD)
    batches = iter(
        torch.utils.data.DataLoader(
            _Steps(make),
            sampler=itertools.count(first_step),
            batch_size=None,
            num_workers=resources.workers,
            prefetch_factor=resources.prefetch,
            pin_memory=pinning(resources),
            generator=torch.Generator(),  # torch seeds its workers: not from the global state
        )
    )
    # torch's handler would raise inside whatever line the main thread is at, a forward pass say.
    # Without it, waiting for a batch looks after the workers every few seconds.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, handler)
    try:
        while True:
            outcome = _next(batches, resources)
            if isinstance(outcome, FoundryError):
                raise outcome
            yield outcome
    finally:
        del batches


def pinning(resources: LoaderResources) -> bool:
    """Page-locked batches, for copies that overlap with compute; means nothing without CUDA."""
    return resources.pin_memory and torch.cuda.is_available()


def pinned(batch: MixedBatch) -> MixedBatch:
    """The batch in page-locked memory."""
    return {name: {k: v.pin_memory() for k, v in part.items()} for name, part in batch.items()}


def _next(batches: Iterator[Any], resources: LoaderResources) -> Any:
    try:
        return next(batches)
    except RuntimeError as error:
        if not any(word in str(error) for word in ("DataLoader worker", "Pin memory thread")):
            raise
        raise FoundryError(
            f"a loader worker died: {error} ({resources.workers} workers, each up to "
            f"{resources.prefetch} batches ahead)",
            "most often memory ran out: lower loader_workers; the run resumes from its last "
            "checkpoint",
        ) from error


class _Steps(torch.utils.data.Dataset):
    """Step → batch, for torch's worker processes. A user's mistake travels as a value: torch would
    raise it again with a traceback for its message."""

    def __init__(self, make: Callable[[int], Made]) -> None:
        self._make = make

    def __getitem__(self, step: int) -> Made | FoundryError:
        try:
            return self._make(step)
        except FoundryError as error:
            return error
