"""The order of samples as a pure function: no list of indices, no generator with a history.

A draw is numbered by a position p = 0, 1, 2, ... over the whole run: step s with global batch B
makes the draws s·B .. s·B+B-1, and rank r of R takes the r-th of R equal slices of them. A position
gives its dataset (Mix), its number n among that dataset's draws, from it the epoch n // size
and the position n % size in it, and a keyed permutation of that epoch gives the sample. So the
state of a loader is the step, resuming costs nothing, and ranks or workers cannot change anything.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from foundry_core.data.keyed import key, mix_array
from foundry_core.data.loading.mix import Mix
from foundry_core.data.loading.schedule import Weight, ever, scheduled, weight_at
from foundry_core.data.loading.scheduled_mix import ScheduledMix
from foundry_core.errors import FoundryError

_ROUNDS = 6


class Permutation:
    """A bijection of 0 .. size-1 that costs no memory: a Feistel network on the smallest even
    number of bits that holds `size`, walked along its cycles until it lands inside (fewer than 4
    steps on average; Black and Rogaway 2002)."""

    def __init__(self, size: int, of: int) -> None:
        if size < 1:
            raise FoundryError(f"cannot order {size} samples", "the dataset is empty")
        self.size = size
        half = max(1, ((size - 1).bit_length() + 1) // 2)
        self._half = np.uint64(half)
        self._mask = np.uint64((1 << half) - 1)
        self._keys = np.array([key(of, r) for r in range(_ROUNDS)], dtype=np.uint64)

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """int64 positions [n] → int64 samples [n]."""
        values = self._network(np.asarray(positions, dtype=np.uint64))
        outside = values >= self.size
        while outside.any():
            values[outside] = self._network(values[outside])
            outside = values >= self.size
        return values.astype(np.int64)

    def _network(self, values: np.ndarray) -> np.ndarray:
        left, right = values >> self._half, values & self._mask
        for round_key in self._keys:
            left, right = right, left ^ (mix_array(right + round_key) & self._mask)
        return (left << self._half) | right


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
    functions of it.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        weights: Mapping[str, Weight] | None,
        seed: int,
        per_step: int = 1,
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
        self._pooled = weights is None
        self._cache: dict[tuple[int, int], Permutation] = {}
        for label, size in zip(self.labels, self.sizes, strict=True):
            if size == 0 and weights is not None and ever(weights[label]):
                raise FoundryError(
                    f"dataset {label!r} is empty but has weight {weights[label]}",
                    "convert it again, or give it weight 0",
                )

    @property
    def shares(self) -> list[float]:
        """Share of the draws per label, as it is honoured; the last one of those that change."""
        if self._pooled:
            return [float(size) / max(1, self._starts[-1]) for size in self.sizes]
        return [float(w) for w in self.mix.weights]

    @property
    def epoch_length(self) -> int | None:
        """Draws after which every sample was seen once; None where weights repeat some earlier."""
        return int(self._starts[-1]) if self._pooled else None

    def draws(self, first: int, count: int) -> Draws:
        """The draws at positions first .. first+count-1."""
        stream, number = self.mix.draws(first, count)
        return self._resolve(stream, number)

    def substitute(self, dataset: int, sample: int, epoch: int, attempt: int) -> int:
        """Sample of the same dataset that stands in for an unreadable one: a pure function of what
        it replaces, hence the same on every rank and worker."""
        size = int(self.sizes[dataset])
        position = np.array([key(self._seed, "substitute", sample, epoch, attempt) % size])
        return int(self._permutation(dataset, epoch)(position)[0])

    def _resolve(self, stream: np.ndarray, number: np.ndarray) -> Draws:
        sizes = self._starts[-1:] if self._pooled else self.sizes
        epoch, position = number // sizes[stream], number % sizes[stream]
        sample = np.empty(len(stream), dtype=np.int64)
        for which, turn in {(int(s), int(e)) for s, e in zip(stream, epoch, strict=True)}:
            here = (stream == which) & (epoch == turn)
            sample[here] = self._permutation(-1 if self._pooled else which, turn)(position[here])
        if not self._pooled:
            return Draws(dataset=stream, sample=sample, epoch=epoch)
        dataset = np.searchsorted(self._starts, sample, side="right") - 1
        return Draws(dataset=dataset, sample=sample - self._starts[dataset], epoch=epoch)

    def _permutation(self, which: int, epoch: int) -> Permutation:
        """which: dataset number, or -1 for the pool."""
        if (which, epoch) not in self._cache:
            while len(self._cache) > 64:
                self._cache.pop(next(iter(self._cache)))
            label = "" if which < 0 else self.labels[which]
            size = self._starts[-1] if which < 0 else self.sizes[which]
            self._cache[which, epoch] = Permutation(int(size), key(self._seed, label, epoch))
        return self._cache[which, epoch]


def rank_slice(batch_size: int, rank: int, world: int) -> slice:
    """Rank r's part of a global batch."""
    if batch_size % world:
        raise FoundryError(
            f"a global batch of {batch_size} does not divide among {world} ranks",
            "choose a batch size that is a multiple of the number of workers",
        )
    share = batch_size // world
    return slice(rank * share, (rank + 1) * share)
