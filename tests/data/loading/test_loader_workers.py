"""Worker processes: bounded prefetch, deaths that are named, pinned memory."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from foundry_core.data.loading.config import DataConfig, LoaderResources, TextData
from foundry_core.data.loading.dataset import SampleDataset
from foundry_core.data.loading.loader import Loader
from foundry_core.data.loading.pixels import OutputBuffer, new_buffer
from foundry_core.errors import FoundryError


class Diary(SampleDataset):
    """A text dataset whose reads, from whatever process, are written down."""

    def __init__(self, folder: Path, slow: float = 0.0) -> None:
        self.counters: dict[str, int] = {}
        self._file, self._slow = folder / "reads", slow
        self._file.write_bytes(b"")

    def __len__(self) -> int:
        return 1000

    fetched = 0
    weights = None

    def read(
        self, index: int, sample_key: int, output: OutputBuffer = new_buffer
    ) -> dict[str, np.ndarray]:
        time.sleep(self._slow)
        with self._file.open("ab") as stream:
            stream.write(b".")
        return {"tokens": np.full(9, index % 50, dtype=np.uint16)}

    @property
    def reads(self) -> int:
        return self._file.stat().st_size


def loader_of(diary: Diary, workers: int, prefetch: int = 2, pin: bool = False) -> Loader:
    return Loader(
        DataConfig(text=TextData(batch_size=2)),
        {"text": {"diary": diary}},
        seed=0,
        eos_id=0,
        pad_id=1,
        resources=LoaderResources(workers=workers, prefetch=prefetch, pin_memory=pin),
    )


def test_workers_are_never_more_than_their_prefetch_ahead(tmp_path: Path) -> None:
    diary = Diary(tmp_path)
    batches = loader_of(diary, workers=2, prefetch=3).batches()
    for taken in range(1, 5):
        next(batches)
        time.sleep(0.3)
        assert diary.reads <= 2 * (taken + 2 * 3)
    assert diary.reads >= 2 * (4 + 3)  # they do work ahead
    batches.close()


def test_closing_ends_the_workers_and_the_global_random_state_is_left_alone(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    batches = loader_of(Diary(tmp_path), workers=2).batches()
    next(batches)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    assert multiprocessing.active_children() == []


def test_a_killed_worker_is_a_named_error_not_a_hang(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGCHLD)
    batches = loader_of(Diary(tmp_path, slow=0.01), workers=2).batches()
    next(batches)
    victim = multiprocessing.active_children()[0]
    os.kill(victim.pid, signal.SIGKILL)
    started = time.monotonic()
    time.sleep(0.2)  # the consumer's own code is not where the error appears
    with pytest.raises(FoundryError, match=rf"worker died: .*{victim.pid}.*2 workers"):
        for _ in range(1000):
            next(batches)
    assert time.monotonic() - started < 30
    assert multiprocessing.active_children() == []
    assert signal.getsignal(signal.SIGCHLD) == before


@pytest.mark.parametrize("workers", [0, 1])
def test_pinning_is_asked_for_only_where_cuda_is(tmp_path: Path, workers: int) -> None:
    batches = loader_of(Diary(tmp_path), workers, pin=True).batches()
    tokens = next(batches)["text"]["tokens"]
    assert tokens.is_pinned() == torch.cuda.is_available()
    batches.close()
