"""What a count of successes says about a success rate: exact interval and posterior."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from foundry_core.errors import FoundryError


def check_counts(successes: int, n: int) -> None:
    """Raises FoundryError unless 0 <= successes <= n."""
    if not 0 <= successes <= n:
        raise FoundryError(f"{successes} successes in {n} episodes: must be between 0 and {n}")


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact interval of a rate (Clopper & Pearson 1934): covers with at least `confidence`.

    Each tail holds at most (1 - confidence) / 2 whatever the rate, so the interval is never too
    short; nothing observed (n = 0) leaves (0, 1).
    """
    check_counts(successes, n)
    if not 0 < confidence < 1:
        raise FoundryError(f"confidence {confidence} must lie strictly between 0 and 1")
    tail = (1 - confidence) / 2
    low = stats.beta.ppf(tail, successes, n - successes + 1) if successes else 0.0
    high = stats.beta.ppf(1 - tail, successes + 1, n - successes) if successes < n else 1.0
    return float(low), float(high)


@dataclass(frozen=True)
class Posterior:
    """Beta(1 + successes, 1 + failures): the rate's posterior under a uniform prior."""

    successes: int
    n: int

    def __post_init__(self) -> None:
        check_counts(self.successes, self.n)

    @property
    def _beta(self):
        return stats.beta(1 + self.successes, 1 + self.n - self.successes)

    @property
    def mean(self) -> float:
        return (1 + self.successes) / (2 + self.n)

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        low, high = self._beta.interval(confidence)
        return float(low), float(high)

    def quantile(self, q: np.ndarray) -> np.ndarray:
        return self._beta.ppf(q)
