"""Which dataset each draw of a mix comes from: exact shares at every prefix."""

import heapq
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from foundry_core.errors import FoundryError

MAX_PERIOD = 1 << 17


class Mix:
    """Which stream each draw comes from: exact shares at every prefix, at any position in O(1).

    Shares are fractions p_i / Q. Within a period of Q draws dataset i's j-th draw is due in the
    window [floor(j Q / p_i), ceil((j+1) Q / p_i) - 1]; serving the earliest deadline first meets
    all windows (Baruah et al. 1996, "proportionate progress"), and meeting them is the same as:
    after n draws the count of dataset i differs from n p_i / Q by less than 1, for every n. One
    period is tabulated.

    Weights are taken as the decimals they are written as (0.9 is nine tenths). Where their common
    denominator exceeds MAX_PERIOD they are rounded to multiples of 1/MAX_PERIOD, a positive weight
    never to 0; `weights` are the fractions that are honoured.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        if not weights or any(not math.isfinite(w) or w < 0 for w in weights):
            raise FoundryError(f"mix weights {list(weights)} must be finite and not negative")
        exact = [Fraction(repr(float(w))) for w in weights]
        total = sum(exact)
        if total == 0:
            raise FoundryError(f"mix weights {list(weights)} are all 0: nothing would be drawn")
        shares = [w / total for w in exact]
        self.period = math.lcm(*(share.denominator for share in shares))
        if self.period > MAX_PERIOD:
            self.period = MAX_PERIOD
            self._counts = _apportion(shares, MAX_PERIOD)
        else:
            self._counts = [int(share * self.period) for share in shares]
        self.weights = [Fraction(count, self.period) for count in self._counts]
        self._table = spread(self._counts, self.period)
        self._nth = occurrences(self._table, len(weights))

    def draws(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """(stream [count], number of the draw among that stream's draws [count]), int64."""
        positions = np.arange(first, first + count, dtype=np.int64)
        turn, at = positions // self.period, positions % self.period
        stream = self._table[at]
        return stream, turn * np.array(self._counts, dtype=np.int64)[stream] + self._nth[at]


def _apportion(shares: Sequence[Fraction], seats: int) -> list[int]:
    """Largest remainders, with one seat for every positive share."""
    counts = [max(int(share * seats), 1 if share else 0) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda i: (counts[i] - shares[i] * seats, i))
    spare = seats - sum(counts)
    for i in by_remainder[:spare] if spare > 0 else []:
        counts[i] += 1
    while sum(counts) > seats:
        counts[max(range(len(counts)), key=lambda i: counts[i] - shares[i] * seats)] -= 1
    return counts


def spread(counts: Sequence[int], period: int) -> np.ndarray:
    """Streams int64 [period], each as often as counted, at even distances: earliest deadline first;
    of equal deadlines the lower number."""
    table = np.empty(period, dtype=np.int64)
    waiting = [(0, i, 0) for i, count in enumerate(counts) if count]
    heapq.heapify(waiting)
    ready: list[tuple[int, int, int]] = []
    for slot in range(period):
        while waiting and waiting[0][0] <= slot:
            _, i, j = heapq.heappop(waiting)
            heapq.heappush(ready, (-(-(j + 1) * period // counts[i]) - 1, i, j))
        _, i, j = heapq.heappop(ready)
        table[slot] = i
        if j + 1 < counts[i]:
            heapq.heappush(waiting, ((j + 1) * period // counts[i], i, j + 1))
    return table


def occurrences(table: np.ndarray, streams: int) -> np.ndarray:
    """Number of each entry among those of its stream, int64 [len(table)]."""
    nth = np.empty(len(table), dtype=np.int64)
    for stream in range(streams):
        here = table == stream
        nth[here] = np.arange(np.count_nonzero(here))
    return nth
