"""Batches of every step, for any rank and any number of worker processes.

`loader.batch(step, rank, world)` is a pure function of its arguments; everything else here makes
it fast. There is no state to save but the step.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial

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
from foundry_core.data.loading.shards import UnreadableSample
from foundry_core.data.loading.text import collate_text
from foundry_core.data.loading.workers import MixedBatch, made_by_workers, pinned, pinning
from foundry_core.data.robot.transforms import Sample, collate_robot
from foundry_core.errors import FoundryError

_ATTEMPTS = 1000


class Modality:
    """Order and datasets of one modality."""

    def __init__(
        self, name: str, config: ModalityData, datasets: Mapping[str, SampleDataset], seed: int
    ) -> None:
        self.name, self.config = name, config
        self.datasets = [datasets[label] for label in sorted(datasets)]
        self.labels = sorted(datasets)
        sizes = {label: len(dataset) for label, dataset in datasets.items()}
        self.order = Order(sizes, config.weights, key(seed, name))
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
            pin = pinning(self.resources)
            for step in itertools.count(first_step):
                batch = self.batch(step, rank, world)
                yield pinned(batch) if pin else batch
        make = partial(self._made, rank=rank, world=world)
        with closing(made_by_workers(make, first_step, self.resources)) as made:
            for batch, counters in made:
                self._count(counters)
                yield batch

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

    def _arrays(self, step: int, rank: int, world: int) -> tuple[dict[str, Sample], dict[str, int]]:
        before = self._dataset_counters()
        counters: Counter[str] = Counter()
        arrays = {}
        for name, modality in self.modalities.items():
            size = modality.config.batch_size
            part = rank_slice(size, rank, world)
            draws = modality.order.draws(step * size + part.start, part.stop - part.start)
            samples, ids = [], np.empty(len(draws), dtype=np.int64)
            images = BatchImages(len(draws))
            modality.ahead(draws)
            for row, draw in enumerate(draws):
                content, used = self._read(modality, draw, counters, images.row(row))
                samples.append(content)
                ids[row] = modality.first_ids[draw[0]] + used
                counters[f"{name}.{modality.labels[draw[0]]}.samples"] += 1
            pixels = {} if images.images is None else {"images": images.images}
            arrays[name] = pixels | self._collate(name, samples) | {"sample_ids": ids}
        for name, value in self._dataset_counters().items():
            if value != before.get(name, 0):
                counters[name] = value - before.get(name, 0)
        return arrays, dict(counters)

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
