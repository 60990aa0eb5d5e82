"""An order of n things that no list holds."""

import numpy as np

from foundry_core.data.keyed import key, mix_array
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
