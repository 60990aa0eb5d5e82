"""Batches of every step, for any rank and any number of worker processes.

`loader.batch(step, rank, world)` is a pure function of its arguments; everything else here makes
it fast. There is no state to save but the step.
"""

import itertools
import signal
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
import torch

from foundry_core.data.keyed import key
from foundry_core.data.loading.captions import collate_captions
from foundry_core.data.loading.config import (
    CAPTIONS,
    ROBOT,
    TEXT,
    DataConfig,
    LoaderResources,
    ModalityData,
)
from foundry_core.data.loading.dataset import SampleDataset
from foundry_core.data.loading.order import Draw, Draws, Order, rank_slice
from foundry_core.data.loading.pixels import BatchImages, OutputBuffer
from foundry_core.data.loading.robot import RobotDataset
from foundry_core.data.loading.shards import UnreadableSample
from foundry_core.data.loading.text import collate_text
from foundry_core.data.robot.transforms import Sample, collate_robot
from foundry_core.errors import FoundryError

_ATTEMPTS = 1000
MixedBatch = dict[str, dict[str, torch.Tensor]]
Made = tuple[MixedBatch, Mapping[str, int]]


class Modality:
    """Order and datasets of one modality."""

    def __init__(
        self, name: str, config: ModalityData, datasets: Mapping[str, SampleDataset], seed: int
    ) -> None:
        self.name, self.config = name, config
        self.datasets = [datasets[label] for label in sorted(datasets)]
        self.labels = sorted(datasets)
        sizes = {label: len(dataset) for label, dataset in datasets.items()}
        weights = {
            label: dataset.weights if config.sample_weights else None
            for label, dataset in datasets.items()
        }
        self.order = Order(sizes, config.weights, key(seed, name), config.batch_size, weights)
        self.first_ids = np.concatenate([[0], np.cumsum(self.order.sizes)])
        self._keys = [key(seed, name, label) for label in self.labels]

    def ahead(self, draws: Draws) -> None:
        """Announces to each dataset which samples a batch is about to read."""
        for number, dataset in enumerate(self.datasets):
            dataset.ahead(draws.sample[draws.dataset == number].tolist())

    def sample_key(self, dataset: int, sample: int, epoch: int) -> int:
        """Of everything random about one sighting of a sample."""
        return key(self._keys[dataset], sample, epoch)


class Loader:
    """Mixed batches {modality: {name: CPU tensor}} of a run.

    train False turns augmentation off and takes the first instruction of each sample.
    """

    def __init__(
        self,
        config: DataConfig,
        datasets: Mapping[str, Mapping[str, SampleDataset]],
        *,
        seed: int,
        eos_id: int,
        pad_id: int,
        resources: LoaderResources | None = None,
    ) -> None:
        config.check_labels({name: list(parts) for name, parts in datasets.items()})
        self.config = config
        self.resources = resources or LoaderResources()
        self._eos_id, self._pad_id = eos_id, pad_id
        self.modalities = {
            name: Modality(name, part, datasets[name], seed)
            for name, part in config.modalities.items()
        }
        self.counters: Counter[str] = Counter()

    def batch(self, step: int, rank: int = 0, world: int = 1) -> MixedBatch:
        """This rank's part of the batch of `step`."""
        batch, counters = self._made(step, rank, world)
        self._count(counters)
        return batch

    def batches(self, first_step: int = 0, rank: int = 0, world: int = 1) -> Iterator[MixedBatch]:
        """The batches of first_step, first_step + 1, ... without end. Closing the iterator ends
        its workers."""
        if self.resources.workers == 0:
            pin = _pinning(self.resources)
            for step in itertools.count(first_step):
                batch = self.batch(step, rank, world)
                yield _pinned(batch) if pin else batch
        make = partial(self._made, rank=rank, world=world)
        with closing(_made_by_workers(make, first_step, self.resources)) as made:
            for batch, counters in made:
                self._count(counters)
                yield batch

    def action_chunks(self, count: int) -> np.ndarray:
        """float32 [n, K, A]: of `count` windows of demonstrations, or all where there are fewer,
        evenly spread over the datasets that are read. No image is read."""
        robot = self.modalities[ROBOT]
        weights = robot.config.weights or dict.fromkeys(robot.labels, 1.0)
        read = [number for number, label in enumerate(robot.labels) if weights[label]]
        ends = np.cumsum([robot.order.drawn(dataset) for dataset in read])
        total = int(ends[-1])
        found = []
        for window in np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int)):
            number = int(np.searchsorted(ends, window, side="right"))
            dataset = robot.datasets[read[number]]
            assert isinstance(dataset, RobotDataset)
            place = window - (ends[number] - robot.order.drawn(read[number]))
            (sample,) = robot.order.drawn_samples(read[number], [place])
            found.append(dataset.actions(sample))
        return np.stack(found)

    def report(self) -> dict[str, int]:
        """What was drawn, replaced, cut and fetched again so far, by name; sorted."""
        return dict(sorted(self.counters.items()))

    def _made(self, step: int, rank: int, world: int) -> tuple[MixedBatch, dict[str, int]]:
        arrays, counters = self._arrays(step, rank, world)
        return _tensors(arrays), counters

    def _count(self, counters: Mapping[str, int]) -> None:
        self.counters.update(counters)
        skipped = sum(n for name, n in self.counters.items() if name.endswith(".skipped"))
        if skipped > self.config.unreadable.max_skips:
            raise FoundryError(
                f"{skipped} samples were unreadable, data.unreadable.max_skips is "
                f"{self.config.unreadable.max_skips}",
                "mend the datasets (foundry data validate), or raise the bound",
            )

    def rows(self, name: str, label: str, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        """These samples of a dataset, in this order, as a batch of its modality. Their names and
        numbers are the indices, and everything random about them is that of the first epoch."""
        modality = self.modalities[name]
        samples = np.array(indices, dtype=np.int64)
        which = np.full_like(samples, modality.labels.index(label))
        draws = Draws(dataset=which, sample=samples, epoch=np.zeros_like(samples))
        counters: Counter[str] = Counter()
        part = self._part(modality, draws, counters)
        self._count({k: n for k, n in counters.items() if k.endswith(".skipped")})
        names = {"sample_ids": samples, "draw_ids": samples}
        return _tensors({name: part | names})[name]

    def _arrays(self, step: int, rank: int, world: int) -> tuple[dict[str, Sample], dict[str, int]]:
        before = self._dataset_counters()
        counters: Counter[str] = Counter()
        arrays = {}
        for name, modality in self.modalities.items():
            size = modality.config.batch_size
            part = rank_slice(size, rank, world)
            first = step * size + part.start
            draws = modality.order.draws(first, part.stop - part.start)
            numbers = np.arange(first, first + len(draws), dtype=np.int64)
            part_of_rank = self._part(modality, draws, counters)
            arrays[name] = part_of_rank | {"draw_ids": numbers, "dataset_ids": draws.dataset}
        for name, value in self._dataset_counters().items():
            if value != before.get(name, 0):
                counters[name] = value - before.get(name, 0)
        return arrays, dict(counters)

    def _part(self, modality: Modality, draws: Draws, counters: Counter[str]) -> Sample:
        """The drawn samples, collated, with the names of those that were read."""
        samples, ids = [], np.empty(len(draws), dtype=np.int64)
        images = BatchImages(len(draws))
        modality.ahead(draws)
        for row, draw in enumerate(draws):
            content, used = self._read(modality, draw, counters, images.row(row))
            samples.append(content)
            ids[row] = modality.first_ids[draw[0]] + used
            counters[f"{modality.name}.{modality.labels[draw[0]]}.samples"] += 1
        pixels = {} if images.images is None else {"images": images.images}
        return pixels | self._collate(modality.name, samples) | {"sample_ids": ids}

    def _read(
        self, modality: Modality, draw: Draw, counters: Counter[str], output: OutputBuffer
    ) -> tuple[Sample, int]:
        """(sample, its index): the one drawn, or under policy "skip" what stands in for it."""
        dataset, sample, epoch = draw
        source = modality.datasets[dataset]
        index = sample
        for attempt in range(_ATTEMPTS):
            try:
                made = source.read(index, modality.sample_key(dataset, index, epoch), output)
                return made, index
            except UnreadableSample:
                if self.config.unreadable.policy == "stop":
                    raise
            counters[f"{modality.name}.{modality.labels[dataset]}.skipped"] += 1
            index = modality.order.substitute(dataset, sample, epoch, attempt)
        raise FoundryError(
            f"{_ATTEMPTS} samples of {modality.labels[dataset]!r} in a row are unreadable",
            "convert the dataset again",
        )

    def _collate(self, name: str, samples: list[Sample]) -> Sample:
        if name == TEXT:
            return collate_text(samples, self._eos_id)
        if name == CAPTIONS:
            return collate_captions(samples, self._pad_id, self.config.pad_multiple)
        assert name == ROBOT, name
        for sample in samples:
            del sample["images"]  # they are in the batch already
        return collate_robot(samples, self._pad_id, self.config.pad_multiple)

    def _dataset_counters(self) -> dict[str, int]:
        counters: dict[str, int] = {}
        for name, modality in self.modalities.items():
            for label, dataset in zip(modality.labels, modality.datasets, strict=True):
                for counter, value in dataset.counters.items():
                    counters[f"{name}.{label}.{counter}"] = value
                counters[f"{name}.{label}.shards_fetched"] = dataset.fetched
        return counters


def _tensors(arrays: Mapping[str, Sample]) -> MixedBatch:
    return {
        name: {k: torch.from_numpy(v) for k, v in part.items()} for name, part in arrays.items()
    }


def _made_by_workers(
    make: Callable[[int], Made], first_step: int, resources: LoaderResources
) -> Generator[Made, None, None]:
    """make(first_step), make(first_step + 1), ... by worker processes, at most workers x prefetch
    ahead. Closing the iterator ends the workers.

    A worker that dies (out of memory, kill -9, a crashing codec) becomes a FoundryError here within
    seconds; a mistake of the user's inside a worker becomes the same error as without workers.
    """
    handler = signal.getsignal(signal.SIGCHLD)
    batches = iter(
        torch.utils.data.DataLoader(
            _Steps(make),
            sampler=itertools.count(first_step),
            batch_size=None,
            num_workers=resources.workers,
            prefetch_factor=resources.prefetch,
            pin_memory=_pinning(resources),
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


def _pinning(resources: LoaderResources) -> bool:
    """Page-locked batches, for copies that overlap with compute; means nothing without CUDA."""
    return resources.pin_memory and torch.cuda.is_available()


def _pinned(batch: MixedBatch) -> MixedBatch:
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
