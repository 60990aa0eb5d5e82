"""What every part measures with: clocks, memory, sizes that grow, and how steeply a column does."""

import math
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

# A table's row, by column; the first one is the size.
Row = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Part:
    """What grows. sizes: from small to full. measure: of one size, in an empty folder, in a process
    of its own."""

    sizes: Sequence[int]
    measure: Callable[[Path, int], Row]


class Clock:
    """CPU and wall seconds since it was made: beside other work the first say more."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    @property
    def cpu(self) -> float:
        return time.process_time() - self._cpu

    @property
    def wall(self) -> float:
        return time.perf_counter() - self._wall


def resident() -> float:
    """MiB that this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def growing(largest: int, count: int = 3, apart: float = 10**0.5) -> tuple[int, ...]:
    """`count` sizes, each `apart` times the one before, up to the largest."""
    return tuple(round(largest / apart**n) for n in reversed(range(count)))


def exponents(rows: Sequence[Row]) -> dict[str, float]:
    """By column, d log value / d log size between the last two rows."""
    if len(rows) < 2:
        return {}
    size, *columns = rows[-1]
    apart = math.log(rows[-1][size] / rows[-2][size])
    return {
        name: round(math.log(rows[-1][name] / rows[-2][name]) / apart, 2)
        for name in columns
        if apart and rows[-1][name] > 0 and rows[-2][name] > 0
    }


def rounded(row: Row) -> Row:
    """Three digits; whole numbers as they are."""
    return {k: float(f"{v:.3g}") if v % 1 else int(v) for k, v in row.items()}
