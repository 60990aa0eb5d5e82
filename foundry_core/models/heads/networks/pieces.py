"""Chunks of actions as short sequences of whole numbers, and back. NumPy alone.

Legend: n chunks, K horizon, A action dim, L = K·A symbols.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from foundry_core.errors import FoundryError


@functools.lru_cache(maxsize=8)
def cosines(horizon: int) -> np.ndarray:
    """The orthonormal cosine transform (DCT-II), float64 [K,K]: rows are waves, slow ones first."""
    wave, step = np.arange(horizon)[:, None], np.arange(horizon)
    table = np.cos(math.pi / horizon * (step + 0.5) * wave) * math.sqrt(2 / horizon)
    table[0] /= math.sqrt(2)
    return table


def coefficients(actions: np.ndarray, scale: float) -> np.ndarray:
    """[n,K,A] → int64 [n,L]: rounded, the slow waves of all dimensions first."""
    waves = np.einsum("wk,nka->nwa", cosines(actions.shape[1]), actions.astype(np.float64))
    return np.rint(waves * scale).astype(np.int64).reshape(len(actions), -1)


def actions_of(numbers: np.ndarray, horizon: int, scale: float) -> np.ndarray:
    """Inverse of `coefficients` up to its rounding: float32 [n,K,A]."""
    waves = numbers.reshape(len(numbers), horizon, -1) / scale
    return np.einsum("wk,nwa->nka", cosines(horizon), waves).astype(np.float32)


class Learnt(NamedTuple):
    """low, high: of the numbers, which are the first tokens, low being token 0. merges: the pair of
    tokens that each further token stands for."""

    low: int
    high: int
    merges: tuple[tuple[int, int], ...]


def learn(numbers: np.ndarray, pieces: int) -> Learnt:
    """Byte-pair encoding of rows int64 [n,L]: the pair that occurs most often becomes a token, of
    equals the one of lower numbers, until there are `pieces` or no pair occurs twice."""
    low, high = int(numbers.min()), int(numbers.max())
    letters = high - low + 1
    if letters > pieces:
        raise FoundryError(
            f"the coefficients of the training set's actions take {letters} values from {low} to "
            f"{high}, model.head.pieces is {pieces}",
            "raise pieces, or lower model.head.scale",
        )
    # One array with -1 between rows, over which no pair reaches.
    line = np.pad(numbers - low, ((0, 0), (0, 1)), constant_values=-1).ravel()
    merges: list[tuple[int, int]] = []
    for token in range(letters, pieces):
        first, second = line[:-1], line[1:]
        pairs, counts = np.unique(
            (first * pieces + second)[(first >= 0) & (second >= 0)], return_counts=True
        )
        if not len(pairs) or counts.max() < 2:
            break
        left, right = (int(x) for x in divmod(pairs[counts.argmax()], pieces))
        merges.append((left, right))
        line = _merged(line, left, right, token)
    return Learnt(low, high, tuple(merges))


def _merged(line: np.ndarray, left: int, right: int, token: int) -> np.ndarray:
    """Every pair as its token, from the left: of `a a a` the first two."""
    starts = np.flatnonzero((line[:-1] == left) & (line[1:] == right))
    if left == right:
        # In a run of neighbours every other start counts.
        breaks = np.flatnonzero(np.diff(starts, prepend=-2) != 1)
        runs = np.repeat(starts[breaks], np.diff(breaks, append=len(starts)))
        starts = starts[(starts - runs) % 2 == 0]
    line = line.copy()
    line[starts] = token
    return np.delete(line, starts + 1)


class Pieces:
    """What was learnt, put to use. Numbers beyond those of the training set become the nearest."""

    def __init__(self, learnt: Learnt) -> None:
        self.low, self.high, merges = learnt
        letters = self.high - self.low + 1
        self._rank = {tuple(pair): number for number, pair in enumerate(merges)}
        self._letters = letters
        self._symbols: list[tuple[int, ...]] = [(letter + self.low,) for letter in range(letters)]
        for left, right in merges:
            self._symbols.append(self._symbols[left] + self._symbols[right])

    def encode(self, numbers: Sequence[int]) -> list[int]:
        """Tokens of one row; the earliest merge that fits is made first."""
        tokens = [min(max(number, self.low), self.high) - self.low for number in numbers]
        last = len(self._rank)
        while len(tokens) > 1:
            ranks = [self._rank.get(pair, last) for pair in itertools.pairwise(tokens)]
            best = min(ranks)
            if best == last:
                break
            merged, at = [], 0
            while at < len(tokens):
                pair = at < len(ranks) and ranks[at] == best
                merged.append(self._letters + best if pair else tokens[at])
                at += 2 if pair else 1
            tokens = merged
        return tokens

    def decode(self, tokens: Sequence[int], length: int) -> list[int]:
        """Numbers of one row: what is missing at its end is 0, the fast waves rest; what is too
        much is cut. Tokens that were never learnt stand for nothing."""
        known = (self._symbols[token] for token in tokens if token < len(self._symbols))
        numbers = [number for symbols in known for number in symbols][:length]
        return numbers + [0] * (length - len(numbers))
