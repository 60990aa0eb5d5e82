"""The order of samples as a pure function: no list of indices, no generator with a history.

A draw is numbered by a position p = 0, 1, 2, ... over the whole run: step s with global batch B
makes the draws s·B .. s·B+B-1, and rank r of R takes the r-th of R equal slices of them. A position
gives its dataset (Mix), its number n among that dataset's draws, from it the epoch n // size
and the position n % size in it, and a keyed permutation of that epoch gives the sample. So the
state of a loader is the step, resuming costs nothing, and ranks or workers cannot change anything.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from foundry_core.data.loading.mix import Mix
from foundry_core.data.loading.sample_weights import Samples, SampleWeights, joined
from foundry_core.data.loading.schedule import Weight, ever, scheduled, weight_at
from foundry_core.data.loading.scheduled_mix import ScheduledMix
from foundry_core.errors import FoundryError

# (dataset number, sample in it, epoch of that dataset)
Draw = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Draws of one modality: dataset number, sample in it, epoch of that dataset; int64 [n]."""

    dataset: np.ndarray
    sample: np.ndarray
    epoch: np.ndarray

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[Draw]:
        columns = (self.dataset.tolist(), self.sample.tolist(), self.epoch.tolist())
        return zip(*columns, strict=True)


class Order:
    """Which sample each position of one modality is.

    sizes: samples per dataset label. weights: share per label, honoured exactly; None makes one
    big dataset of all (every sample once per epoch). Labels enter the permutations' keys, so that
    adding a dataset does not reshuffle the others. per_step: draws of a step, for weights that are
    functions of it. sample_weights: of the samples of those datasets that have some; where shares
    are given they count within a dataset, else among all samples.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        weights: Mapping[str, Weight] | None,
        seed: int,
        per_step: int = 1,
        sample_weights: Mapping[str, SampleWeights | None] | None = None,
    ) -> None:
        self.labels = sorted(sizes)
        self.sizes = np.array([sizes[label] for label in self.labels], dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self.sizes)])
        self._seed = seed
        held: list[Weight] = [1.0] if weights is None else [weights[n] for n in self.labels]
        self.mix: Mix | ScheduledMix = (
            ScheduledMix(held, per_step)
            if scheduled(held)
            else Mix([weight_at(weight, 0) for weight in held])
        )
        by_label = [(sample_weights or {}).get(label) for label in self.labels]
        self._datasets = [
            Samples(int(size), seed, label, of)
            for label, size, of in zip(self.labels, self.sizes, by_label, strict=True)
        ]
        totals = zip(self.sizes.tolist(), by_label, strict=True)
        self._totals = [size if of is None else of.total for size, of in totals]
        self._pool: Samples | None = None
        if weights is None:
            parts = list(zip(self.sizes.tolist(), by_label, strict=True))
            self._pool = Samples(int(self._starts[-1]), seed, "", joined(parts))
        for label, samples in zip(self.labels, self._datasets, strict=True):
            if not len(samples) and weights is not None and ever(weights[label]):
                empty = "is empty" if not sizes[label] else "has samples of weight 0 alone"
                raise FoundryError(
                    f"dataset {label!r} {empty} but has weight {weights[label]}",
                    "convert it again, or give it weight 0",
                )
        if self._pool is not None and self._starts[-1] and not len(self._pool):
            raise FoundryError(
                f"all samples of {', '.join(self.labels)} have weight 0: nothing would be drawn",
                "correct the weights in their conversions, or set sample_weights: false",
            )

    @property
    def shares(self) -> list[float]:
        """Share of the draws per label, as it is honoured; the last one of those that change."""
        if self._pool is not None:
            whole = sum(self._totals)
            return [total / whole if whole else 0.0 for total in self._totals]
        return [float(w) for w in self.mix.weights]

    @property
    def epoch_length(self) -> int | None:
        """Draws after which every sample was seen once; None where weights repeat some earlier."""
        if self._pool is None or self._pool.weighted:
            return None
        return int(self._starts[-1])

    def drawn(self, dataset: int) -> int:
        """Samples of a dataset that are ever drawn."""
        return len(self._datasets[dataset])

    def drawn_samples(self, dataset: int, places: Sequence[int]) -> list[int]:
        """Those at these places among them, in the dataset's own order."""
        return self._datasets[dataset].drawn(places)

    def draws(self, first: int, count: int) -> Draws:
        """The draws at positions first .. first+count-1."""
        stream, number = self.mix.draws(first, count)
        if self._pool is not None:
            sample, epoch = self._pool.draws(number)
            dataset = np.searchsorted(self._starts, sample, side="right") - 1
            return Draws(dataset=dataset, sample=sample - self._starts[dataset], epoch=epoch)
        sample, epoch = np.empty_like(number), np.empty_like(number)
        for which in set(stream.tolist()):
            here = stream == which
            sample[here], epoch[here] = self._datasets[which].draws(number[here])
        return Draws(dataset=stream, sample=sample, epoch=epoch)

    def substitute(self, dataset: int, sample: int, epoch: int, attempt: int) -> int:
        """Sample of the same dataset that stands in for an unreadable one: a pure function of what
        it replaces, hence the same on every rank and worker."""
        return self._datasets[dataset].substitute(sample, epoch, attempt)


def rank_slice(batch_size: int, rank: int, world: int) -> slice:
    """Rank r's part of a global batch."""
    if batch_size % world:
        raise FoundryError(
            f"a global batch of {batch_size} does not divide among {world} ranks",
            "choose a batch size that is a multiple of the number of workers",
        )
    share = batch_size // world
    return slice(rank * share, (rank + 1) * share)
