"""How long requests took: percentiles of the latest ones."""

import threading
from collections import deque

import numpy as np

_KEPT = 4096


class Latency:
    """Seconds by name; the latest 4096 of each are kept. Any thread may add."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: dict[str, deque[float]] = {}
        self._counts: dict[str, int] = {}

    def add(self, name: str, seconds: float) -> None:
        with self._lock:
            self._seconds.setdefault(name, deque(maxlen=_KEPT)).append(seconds)
            self._counts[name] = self._counts.get(name, 0) + 1

    def summary(self) -> dict[str, dict[str, float]]:
        """name → {"n", "p50_ms", "p90_ms", "p99_ms"}."""
        with self._lock:
            kept = {name: np.array(values) for name, values in self._seconds.items()}
            counts = dict(self._counts)
        found = {}
        for name, values in kept.items():
            p50, p90, p99 = (round(float(v), 3) for v in 1e3 * np.percentile(values, [50, 90, 99]))
            found[name] = {"n": counts[name], "p50_ms": p50, "p90_ms": p90, "p99_ms": p99}
        return found
