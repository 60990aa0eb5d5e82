"""Weights of single samples: which sample each draw of a stream is, exactly in their shares.

Samples of one weight are a class. A draw goes to a class by a tree of classes, each of whose forks
serves its branches in their shares, rounded to the nearest draw; within its class it goes through
all samples before any comes again. So after n draws a class of share s has been drawn within 2 of
n·s (two classes: within 1/2), and its samples once more or less than each other at most. All of it
is arithmetic on the number of the draw, in Python's integers: shares of a few windows among a
hundred million are exact, too.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import Any

import numpy as np

from foundry_core.data.config import WEIGHTS
from foundry_core.data.keyed import key
from foundry_core.data.loading.permutation import Permutation
from foundry_core.errors import FoundryError

_KEPT = 64
"""Permutations that are kept per stream."""
_MOST = 1 << 48
"""Samples of a run: sums of them, and shares of draws, stay in 64 bits."""
_FORM = (
    f"they are runs [samples, weight], the weight 0 or from {WEIGHTS[0]:g} to {WEIGHTS[1]:g}: "
    "convert the dataset again"
)


@dataclass(frozen=True)
class Runs:
    """Samples that lie in runs, [starts, starts + counts) each; int64 [R], in order."""

    starts: np.ndarray
    counts: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ends", np.cumsum(self.counts))

    def __len__(self) -> int:
        return int(self.counts.sum())

    def nth(self, positions: np.ndarray) -> np.ndarray:
        """The samples at these places of them, int64 [n]."""
        ends: np.ndarray = self._ends  # type: ignore[attr-defined]
        run = np.searchsorted(ends, positions, side="right")
        return self.starts[run] + positions - (ends[run] - self.counts[run])

    def __contains__(self, sample: int) -> bool:
        run = int(np.searchsorted(self.starts, sample, side="right")) - 1
        return run >= 0 and bool(sample < self.starts[run] + self.counts[run])


class SampleWeights:
    """Of the samples of a dataset, or of several that lie behind each other. runs: (how many
    samples, their weight), as dataset.json has them."""

    def __init__(self, runs: Iterable[Sequence[float]]) -> None:
        held = [_run(one) for one in _listed(runs)]
        self.runs = held
        self._counts = np.array([count for count, _ in held], dtype=np.int64)
        self._values = np.array([weight for _, weight in held], dtype=np.float64)
        self._starts = np.cumsum(self._counts) - self._counts

    def __len__(self) -> int:
        return int(self._counts.sum())

    @property
    def total(self) -> float:
        """Sum over the samples."""
        return float((self._counts * self._values).sum())

    def classes(self) -> dict[float, Runs]:
        """{weight: its samples}, by increasing weight, without those that are never drawn."""
        weights = sorted({float(w) for w, n in zip(self._values, self._counts, strict=True) if n})
        return {weight: self._of(self._values == weight) for weight in weights if weight > 0}

    def drawn(self) -> Runs:
        """The samples that have a weight above 0."""
        return self._of(self._values > 0)

    def _of(self, chosen: np.ndarray) -> Runs:
        return Runs(self._starts[chosen], self._counts[chosen])


def _listed(runs: Any) -> Iterable[Any]:
    if not isinstance(runs, Iterable) or isinstance(runs, str | bytes | Mapping):
        raise FoundryError(f"sample weights are {runs!r:.80}", _FORM)
    return runs


def _run(stated: Any) -> tuple[int, float]:
    """What one of dataset.json's runs says. FoundryError for what is none."""
    match stated:
        case [int(count), int() | float() as weight] if 0 <= count <= _MOST and (
            weight == 0 or WEIGHTS[0] <= weight <= WEIGHTS[1]
        ):
            return int(count), float(weight)
    raise FoundryError(f"sample weights hold {stated!r:.80}", _FORM)


def joined(parts: Sequence[tuple[int, SampleWeights | None]]) -> SampleWeights | None:
    """Of datasets behind each other: (samples, their weights); without weights each weighs 1. None
    where none has any."""
    if all(weights is None for _, weights in parts):
        return None
    return SampleWeights(
        run for size, weights in parts for run in (weights.runs if weights else [(size, 1.0)])
    )


class Fork:
    """Draws of two branches with whole weights: of n draws the left one has n·left / (left+right),
    rounded."""

    def __init__(self, left: int, right: int) -> None:
        self._left, self._total = left, left + right

    def split(self, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """number: int64 or Python's integers [n]. (whether the draw is the left one's, bool [n];
        its number among its branch's, [n])."""
        wide = number.astype(object)
        before, after = self._lefts(wide), self._lefts(wide + 1)
        left = (after > before).astype(bool)
        return left, np.where(left, before, wide - before)

    def _lefts(self, n: np.ndarray) -> np.ndarray:
        return (2 * n * self._left + self._total) // (2 * self._total)


Tree = int | tuple[Fork, "Tree", "Tree"]


def tree(weights: Sequence[int]) -> Tree:
    """Huffman's: the rarest are deepest, so that roundings of forks above a class add up to less
    than 3/2."""
    waiting: list[tuple[int, int, Tree]] = [(w, number, number) for number, w in enumerate(weights)]
    heapq.heapify(waiting)
    made = len(waiting)
    while len(waiting) > 1:
        (left, _, one), (right, _, other) = heapq.heappop(waiting), heapq.heappop(waiting)
        heapq.heappush(waiting, (left + right, made, (Fork(left, right), one, other)))
        made += 1
    return waiting[0][2]


class Samples:
    """The samples of a stream in the order of its draws: without weights, all of them once per
    epoch. name: what its permutations depend on, beside seed and epoch."""

    def __init__(
        self, size: int, seed: int, name: str, weights: SampleWeights | None = None
    ) -> None:
        self._seed, self._name = seed, name
        if weights is not None and len(weights) != size:
            raise FoundryError(
                f"dataset {name!r} has {size} samples and weights of {len(weights)}",
                "its dataset.json and shards do not belong together: convert it again",
            )
        classes = weights.classes() if weights else {}
        every = weights is None or (len(classes) == 1 and len(weights.drawn()) == size)
        # One class of all samples is a dataset without weights, to the draw.
        self.weighted = not every
        whole = Runs(np.zeros(1, np.int64), np.array([size], np.int64))
        self._drawn = whole if weights is None else weights.drawn()
        self._classes = [whole] if every else list(classes.values())
        self._weights = [1.0] if every else list(classes)
        shares = [
            Fraction(repr(weight)) * len(members)
            for weight, members in zip(self._weights, self._classes, strict=True)
        ]
        parts = lcm(*(share.denominator for share in shares)) if shares else 1
        self._tree = tree([int(share * parts) for share in shares]) if any(shares) else 0
        self._cache: dict[tuple[int, int], Permutation] = {}

    def __len__(self) -> int:
        """Samples that are ever drawn."""
        return len(self._drawn)

    def drawn(self, places: Sequence[int]) -> list[int]:
        """Those at these places among them, as they lie in the dataset."""
        found: list[int] = self._drawn.nth(np.array(places, np.int64)).tolist()
        return found

    def draws(self, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(sample [n], how often it came before [n]) of the stream's draws, int64."""
        sample, epoch = np.empty(len(number), np.int64), np.empty(len(number), np.int64)
        self._descend(self._tree, np.arange(len(number)), number, (sample, epoch))
        return sample, epoch

    def substitute(self, sample: int, epoch: int, attempt: int) -> int:
        """Another one of its weight, as a function of what it replaces."""
        found = (i for i, members in enumerate(self._classes) if sample in members)
        which = next(found, 0)
        members = self._classes[which]
        place = key(self._seed, "substitute", sample, epoch, attempt) % len(members)
        return int(members.nth(self._permutation(which, epoch)(np.array([place])))[0])

    def _descend(
        self, branch: Tree, at: np.ndarray, number: np.ndarray, out: tuple[np.ndarray, np.ndarray]
    ) -> None:
        """Fills `out` at these places."""
        if isinstance(branch, int):
            self._fill(branch, at, number.astype(np.int64), out)
        elif len(at):
            fork, one, other = branch
            left, within = fork.split(number)
            for side, chosen in ((one, left), (other, ~left)):
                self._descend(side, at[chosen], within[chosen], out)

    def _fill(
        self, which: int, at: np.ndarray, number: np.ndarray, out: tuple[np.ndarray, np.ndarray]
    ) -> None:
        members = self._classes[which]
        epoch, position = np.divmod(number, len(members))
        out[1][at] = epoch
        for turn in set(epoch.tolist()):
            here = epoch == turn
            places = self._permutation(which, turn)(position[here])
            out[0][at[here]] = members.nth(places)

    def _permutation(self, which: int, epoch: int) -> Permutation:
        if (which, epoch) not in self._cache:
            while len(self._cache) > _KEPT:
                self._cache.pop(next(iter(self._cache)))
            of = (repr(self._weights[which]),) if self.weighted else ()
            made = Permutation(len(self._classes[which]), key(self._seed, self._name, epoch, *of))
            self._cache[which, epoch] = made
        return self._cache[which, epoch]
